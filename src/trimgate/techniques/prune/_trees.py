"""Fewer, shallower and simpler trees, chosen on the validation rows."""

import logging
from dataclasses import dataclass
from typing import Any

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
    """What an ensemble with fewer trees must reach."""

    measure: Measure
    loss: Measure | None
    reference: _Quality
    config: PruneConfig

    @classmethod
    def of(cls, full: Ensemble, info: ModelInfo, config: PruneConfig, context: Context) -> "_Bar":
        """The quality of the whole ensemble on the validation rows."""
        measure = Measure.of(context.metric, info, context.validation)
        # the mean of fewer trees of a forest stays at its level
        shrinks = info.task != "regression" and not isinstance(full, Forest | SingleTree)
        loss = Measure.of("log_loss", info, context.validation) if shrinks else None
        (scores,) = full.staged(context.validation, [full.size])
        return cls(measure, loss, _quality(measure, loss, scores), config)

    def quality(self, scores: Array) -> _Quality:
        """What the scores are worth."""
        return _quality(self.measure, self.loss, scores)

    def reached(self, quality: _Quality) -> bool:
        """Whether the metric and the log loss are no worse than the config allows."""
        if not self.measure.acceptable(quality.value, self.reference.value, self.config.tolerance):
            return False
        if quality.loss is None or self.reference.loss is None or self.config.amount != "auto":
            return True
        rise = max(self.config.max_loss_rise * self.reference.loss, _LOSS_FLOOR)
        return quality.loss <= self.reference.loss + rise


def _quality(measure: Measure, loss: Measure | None, scores: Array) -> _Quality:
    return _Quality(measure(scores), loss(scores) if loss else None)


@dataclass(frozen=True)
class _Option:
    """One ensemble and how many of its trees are enough."""

    ensemble: Ensemble
    size: int
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
    bar = _Bar.of(full, info, config, context)
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
    options = [_shrunk(full, context.validation, bar, None)]
    if config.refit:
        for depth in config.depths:
            fitted = _refitted(full, context, depth)
            options.append(_shrunk(fitted, context.validation, bar, depth))
    good = [option for option in options if bar.reached(option.quality)]
    if good:
        best = min(good, key=lambda option: option.cost)
    else:
        best = max(options, key=lambda o: bar.measure.gain(o.quality.value, bar.reference.value))
    if best.depth is None and best.size == full.size:
        raise _all_needed(f"with fewer of its {full.size} trees", bar)
    return best


def _shallower(full: Ensemble, bar: _Bar, context: Context) -> _Option:
    """Trees of at most so many levels: cut where they stand, or trained again."""
    depth, rows = bar.config.depth, context.validation
    if not isinstance(full, Fitted):
        depths = bar.config.depths if depth == "auto" else (depth,)
        options = [_option(_refitted(full, context, d), rows, bar, depth=d) for d in depths]
        good = [o for o in options if bar.reached(o.quality) and o.cost < full.cost()]
        if depth == "auto" and not good:
            raise _all_needed(f"trained again with trees of a depth of {max(depths)}", bar)
        return options[0] if depth != "auto" else min(good, key=lambda o: o.cost)
    deepest = depth_of(full)
    if depth != "auto":
        if depth >= deepest:
            raise NotApplicable(
                f"no tree is deeper than {deepest} levels", key="prune.depth", value=depth
            )
        return _option(limited(full, depth), rows, bar, depth=depth)
    best = None
    for levels in range(deepest - 1, 0, -1):
        option = _option(limited(full, levels), rows, bar, depth=levels)
        if not bar.reached(option.quality):
            break
        best = option
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
    rows, leaves = context.validation, sum(full.leaves())
    if bar.config.alpha != "auto":
        option = _option(simplified(full, bar.config.alpha), rows, bar, alpha=bar.config.alpha)
        if sum(option.ensemble.leaves()) == leaves:
            raise NotApplicable(
                "no branch gains so little", key="prune.alpha", value=bar.config.alpha,
                mend=f"the branches go between {alphas(full)[0]:.3g} and {alphas(full)[-1]:.3g}",
            )  # fmt: skip
        return option
    best = None
    for alpha in alphas(full):
        option = _option(simplified(full, alpha), rows, bar, alpha=alpha)
        if not bar.reached(option.quality):
            break
        best = option
    if best is None:
        raise _all_needed("without the branches that gain the least", bar)
    return best


def _all_needed(without: str, bar: _Bar) -> NotApplicable:
    loss = f" or its log loss by more than {bar.config.max_loss_rise:.0%}" if bar.loss else ""
    return NotApplicable(
        f"{without} the model gets worse by more than "
        f"{bar.measure.describe(bar.config.tolerance)}{loss} on the validation rows",
        key="prune.tolerance",
        mend="raise it, or say how much to remove",
    )


def _option(
    ensemble: Ensemble,
    rows: Dataset,
    bar: _Bar,
    *,
    depth: int | None = None,
    alpha: float | None = None,
) -> _Option:
    (scores,) = ensemble.staged(rows, [ensemble.size])
    return _Option(ensemble, ensemble.size, bar.quality(scores), depth, alpha)


def grid(size: int) -> list[int]:
    """Ascending sizes from 1 to `size`, each about 1.15 times the one before."""
    sizes, current = {size}, float(size)
    while current > 1:
        current /= 1.15
        sizes.add(max(1, round(current)))
    return sorted(sizes)


def _shrunk(ensemble: Ensemble, rows: Dataset, bar: _Bar, depth: int | None) -> _Option:
    """The ensemble with the explicit share removed, or with as few trees as are enough."""
    if isinstance(ensemble, Forest) and bar.config.order == "greedy":
        ensemble = ensemble.reordered(ensemble.greedy_order(rows))
    if bar.config.amount != "auto":
        size = max(1, round(ensemble.size * (1 - bar.config.amount)))
        (scores,) = ensemble.staged(rows, [size])
        return _Option(ensemble, size, bar.quality(scores), depth)
    sizes = grid(ensemble.size)
    qualities = [bar.quality(scores) for scores in ensemble.staged(rows, sizes)]
    chosen = len(sizes) - 1
    # All larger sizes must be good enough too, so that one lucky point decides nothing.
    while chosen > 0 and bar.reached(qualities[chosen - 1]):
        chosen -= 1
    return _Option(ensemble, sizes[chosen], qualities[chosen], depth)


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
