"""Fewer, shallower and simpler trees, chosen on the validation rows."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from trimgate.data import halves
from trimgate.data.dataset import Array, Dataset
from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.prune._collapse import alphas, depth_of, limited, simplified
from trimgate.techniques.prune._config import PruneConfig
from trimgate.techniques.prune._ensembles import (
    Ensemble,
    Fitted,
    Forest,
    SingleTree,
    find,
    last_step,
)
from trimgate.training import (
    ROUNDS,
    Measure,
    Proof,
    check_classes,
    fit,
    seeded_clone,
    train_booster,
)

_log = logging.getLogger("trimgate.techniques.prune")

# Below this rise of the log loss nothing changes for anyone, however small the loss itself is.
_LOSS_FLOOR = 1e-4


@dataclass(frozen=True)
class _Quality:
    """The primary metric, and the log loss of a boosted classifier."""

    value: float
    loss: float | None


@dataclass(frozen=True)
class _Bar:
    """What a smaller ensemble must reach.

    Attributes:
        rows: That it is judged on.
        ordering: Others, that the trees of a forest are ordered on; None keeps their order.
        proof: Of the primary metric.
        loss: The log loss, where it is looked at.
        reference: The quality of the whole ensemble.
        config: The parameters of the step.
    """

    rows: Dataset
    ordering: Dataset | None
    proof: Proof
    loss: Measure | None
    reference: _Quality
    config: PruneConfig

    @classmethod
    def of(cls, full: Ensemble, method: str, config: PruneConfig, context: Context) -> "_Bar":
        """The quality of the whole ensemble on the validation rows."""
        info, rows, ordering = full.info, context.validation, None
        if method == "trees" and isinstance(full, Forest) and config.order == "greedy":
            # trees that were chosen on some rows look better on them than they are
            ordering, rows = halves(rows)
        # the mean of fewer trees of a forest stays at its level
        shrinks = info.task != "regression" and not isinstance(full, Forest | SingleTree)
        loss = Measure.of("log_loss", info, rows) if shrinks else None
        (scores,) = full.staged(rows, [full.size])
        proof = Proof(
            info, rows, scores, context.metric, config.tolerance, config.confidence, context.seed
        )
        reference = _Quality(proof.reference_value, loss(scores) if loss else None)
        return cls(rows, ordering, proof, loss, reference, config)

    def quality(self, scores: Array) -> _Quality:
        """What the scores are worth."""
        return _Quality(self.proof.measure(scores), self.loss(scores) if self.loss else None)

    def looks_good(self, quality: _Quality) -> bool:
        """Whether the metric and the log loss are no worse than the config allows, by chance."""
        measure, config = self.proof.measure, self.config
        if not measure.acceptable(quality.value, self.reference.value, config.tolerance):
            return False
        if quality.loss is None or self.reference.loss is None or config.amount != "auto":
            return True
        rise = max(config.max_loss_rise * self.reference.loss, _LOSS_FLOOR)
        return quality.loss <= self.reference.loss + rise

    def good(self, option: "_Option") -> bool:
        """Whether an option is no worse than that, with the confidence of the config."""
        return self.looks_good(option.quality) and self.proof(option.scores).good


@dataclass(frozen=True)
class _Option:
    """One ensemble and how many of its trees are enough."""

    ensemble: Ensemble
    size: int
    scores: Array
    quality: _Quality
    depth: int | None = None
    alpha: float | None = None

    @property
    def cost(self) -> float:
        per_round = self.ensemble.cost() / self.ensemble.size
        return per_round * self.size


def prune_trees(
    model: Any, info: ModelInfo, config: PruneConfig, context: Context
) -> tuple[Any, dict[str, Any]]:
    """Fewer trees of an ensemble, shallower ones, or ones with fewer branches.

    Args:
        model: The user's fitted model.
        info: Its record.
        config: The parameters of the step.
        context: Training rows (to train again), validation rows and the primary metric.

    Returns:
        The smaller model, and the notes for the card.

    Raises:
        NotApplicable: The model is no such ensemble, or all of it is needed.
    """
    full = find(model, info)
    method = config.method
    if method == "auto":
        method = "cost_complexity" if isinstance(full, SingleTree) else "trees"
    bar = _Bar.of(full, method, config, context)
    ways = {"trees": _fewer, "depth": _shallower, "cost_complexity": _simpler}
    best = ways[method](full, bar, context)
    pruned = best.ensemble.cut(best.size)
    before, after = full.leaves(), find(pruned, info).leaves()
    _log.info("kept %d of %d trees, %d leaves", len(after), len(before), sum(after))
    return pruned, {
        "method": method,
        "trees_before": len(before),
        "trees_after": len(after),
        "leaves_before": sum(before),
        "leaves_after": sum(after),
        "depth": best.depth,
        "alpha": best.alpha,
        "metric": context.metric,
        "metric_before": bar.reference.value,
        "metric_after": best.quality.value,
        "metric_at_worst": bar.proof(best.scores).worst,
        "confidence": config.confidence,
        "log_loss_before": bar.reference.loss,
        "log_loss_after": best.quality.loss,
    }


def _fewer(full: Ensemble, bar: _Bar, context: Context) -> _Option:
    """As few trees as are enough, of the fitted or of newly trained ones."""
    config = bar.config
    if isinstance(full, SingleTree):
        raise NotApplicable(
            "a single tree cannot lose trees",
            key="prune.method",
            value=config.method,
            mend="use depth or cost_complexity",
        )
    options = [_shrunk(full, bar, None)]
    if config.refit:
        for depth in config.depths:
            options.append(_shrunk(_refitted(full, context, depth), bar, depth))
    good = [option for option in options if bar.good(option)]
    if good:
        best = min(good, key=lambda option: option.cost)
    else:
        measure = bar.proof.measure
        best = max(options, key=lambda o: measure.gain(o.quality.value, bar.reference.value))
    if best.depth is None and best.size == full.size:
        raise _all_needed(f"with fewer of its {full.size} trees", bar)
    return best


def _shallower(full: Ensemble, bar: _Bar, context: Context) -> _Option:
    """Trees of at most so many levels: cut where they stand, or trained again."""
    depth = bar.config.depth
    if not isinstance(full, Fitted):
        depths = bar.config.depths if depth == "auto" else (depth,)
        options = [_option(_refitted(full, context, d), bar, depth=d) for d in depths]
        good = [o for o in options if o.cost < full.cost() and bar.good(o)]
        if depth == "auto" and not good:
            raise _all_needed(f"trained again with trees of a depth of {max(depths)}", bar)
        return options[0] if depth != "auto" else min(good, key=lambda o: o.cost)
    deepest = depth_of(full)
    if depth != "auto":
        if depth >= deepest:
            raise NotApplicable(
                f"no tree is deeper than {deepest} levels", key="prune.depth", value=depth
            )
        return _option(limited(full, depth), bar, depth=depth)
    cuts = range(deepest - 1, 0, -1)
    best = _furthest(cuts, lambda levels: _option(limited(full, levels), bar, depth=levels), bar)
    if best is None:
        raise _all_needed(f"with trees of fewer than its {deepest} levels", bar)
    return best


def _simpler(full: Ensemble, bar: _Bar, context: Context) -> _Option:
    """Trees without the branches that gain the least."""
    if not isinstance(full, Fitted):
        raise NotApplicable(
            "cost-complexity pruning needs the impurity of each node, which only the trees of "
            "scikit-learn keep",
            key="prune.method",
            value=bar.config.method,
            mend="use trees or depth",
        )
    leaves = sum(full.leaves())
    if bar.config.alpha != "auto":
        option = _option(simplified(full, bar.config.alpha), bar, alpha=bar.config.alpha)
        if sum(option.ensemble.leaves()) == leaves:
            raise NotApplicable(
                "no branch gains so little", key="prune.alpha", value=bar.config.alpha,
                mend=f"the branches go between {alphas(full)[0]:.3g} and {alphas(full)[-1]:.3g}",
            )  # fmt: skip
        return option
    cuts = alphas(full)
    best = _furthest(cuts, lambda alpha: _option(simplified(full, alpha), bar, alpha=alpha), bar)
    if best is None:
        raise _all_needed("without the branches that gain the least", bar)
    return best


def _all_needed(without: str, bar: _Bar) -> NotApplicable:
    loss = f", or its log loss by more than {bar.config.max_loss_rise:.0%}" if bar.loss else ""
    return NotApplicable(
        f"{bar.proof.failure(without)}{loss}",
        key="prune.tolerance",
        mend="raise it, give more validation rows, or say how much to remove",
    )


_Cut = TypeVar("_Cut", int, float)


def _furthest(cuts: Sequence[_Cut], make: Callable[[_Cut], _Option], bar: _Bar) -> _Option | None:
    """The furthest of ever deeper cuts up to which all look good, and that surely is good."""
    count = 0
    while count < len(cuts) and bar.looks_good(make(cuts[count]).quality):
        count += 1
    # Bisection: a proof takes much longer than a look, and a deeper cut is seldom better.
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if bar.good(make(cuts[middle])):
            low = middle + 1
        else:
            high = middle
    return make(cuts[low - 1]) if low else None


def _option(
    ensemble: Ensemble, bar: _Bar, *, depth: int | None = None, alpha: float | None = None
) -> _Option:
    (scores,) = ensemble.staged(bar.rows, [ensemble.size])
    return _Option(ensemble, ensemble.size, scores, bar.quality(scores), depth, alpha)


def grid(size: int) -> list[int]:
    """Ascending sizes from 1 to `size`, each about 1.15 times the one before."""
    sizes, current = {size}, float(size)
    while current > 1:
        current /= 1.15
        sizes.add(max(1, round(current)))
    return sorted(sizes)


def _shrunk(ensemble: Ensemble, bar: _Bar, depth: int | None) -> _Option:
    """The ensemble without the explicit share of its trees, or with as few as are enough."""
    if isinstance(ensemble, Forest) and bar.ordering is not None:
        ensemble = ensemble.reordered(ensemble.greedy_order(bar.ordering))
    amount = bar.config.amount
    sizes = grid(ensemble.size)
    if amount != "auto":
        sizes = [max(1, round(ensemble.size * (1 - amount)))]
    scores = dict(zip(sizes, ensemble.staged(bar.rows, sizes), strict=True))

    def option(size: int) -> _Option:
        return _Option(ensemble, size, scores[size], bar.quality(scores[size]), depth)

    furthest = _furthest(sizes[::-1], option, bar) if amount == "auto" else None
    return furthest or option(sizes[-1])


def _refitted(full: Ensemble, context: Context, depth: int) -> Ensemble:
    """The same kind of model, trained with trees of at most `depth` levels."""
    model, info = full.model, full.info
    _log.info("training trees of depth %d on %d rows", depth, len(context.train))
    if hasattr(model, "get_params"):
        clone = seeded_clone(model, context.seed)
        last_step(clone).set_params(max_depth=depth)
        return find(fit(clone, model, info, context.train), info)
    if info.framework == "xgboost" and "hyperparameters" not in info.notes:
        raise NotApplicable(
            "a booster without its estimator cannot be trained again, as its file does not say "
            "its hyper-parameters",
            key="prune.refit",
            mend="use method trees without refit, or bring the XGBoost estimator",
        )
    check_classes(info, context.train)
    parameters = {"max_depth": depth, ROUNDS: full.size}
    return find(train_booster(model, info, context.train, parameters, context.seed), info)
