"""Fewer and shallower trees, chosen on the validation rows."""

import logging
from dataclasses import dataclass
from typing import Any

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.prune._config import PruneConfig
from trimgate.techniques.prune._ensembles import Ensemble, Forest, find, last_step
from trimgate.training import Measure, fit, seeded_clone

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
        shrinks = info.task != "regression" and not isinstance(full, Forest)
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
    depth: int | None

    @property
    def cost(self) -> float:
        per_round = self.ensemble.cost() / self.ensemble.size
        return per_round * self.size


def prune_trees(
    model: Any, info: ModelInfo, config: PruneConfig, context: Context
) -> tuple[Any, dict[str, Any]]:
    """Cuts an ensemble to fewer trees, and tries shallower ones where the config says so.

    Args:
        model: The user's fitted model.
        info: Its record.
        config: The parameters of the step.
        context: Training rows (for `refit`), validation rows and the primary metric.

    Returns:
        The smaller model, and the notes for the card.

    Raises:
        NotApplicable: The model is no such ensemble, or every tree is needed.
    """
    full = find(model, info)
    bar = _Bar.of(full, info, config, context)
    options = [_shrunk(full, context.validation, bar, None)]
    if config.refit:
        for depth in config.depths:
            fitted = _refitted(model, info, context, depth)
            options.append(_shrunk(fitted, context.validation, bar, depth))
    good = [option for option in options if bar.reached(option.quality)]
    if good:
        best = min(good, key=lambda option: option.cost)
    else:
        best = max(options, key=lambda o: bar.measure.gain(o.quality.value, bar.reference.value))
    if best.depth is None and best.size == full.size:
        loss = f" or its log loss by more than {config.max_loss_rise:.0%}" if bar.loss else ""
        raise NotApplicable(
            f"with fewer of its {full.size} trees the model's {context.metric} gets worse by more "
            f"than {config.tolerance:g}{loss} on the validation rows",
            key="prune.tolerance",
            mend="raise it, or give an amount",
        )
    pruned = best.ensemble.cut(best.size)
    before, after = full.leaves(), find(pruned, info).leaves()
    _log.info("kept %d of %d trees", len(after), len(before))
    return pruned, {
        "method": "trees",
        "trees_before": len(before),
        "trees_after": len(after),
        "leaves_before": sum(before),
        "leaves_after": sum(after),
        "depth": best.depth,
        "metric": context.metric,
        "metric_before": bar.reference.value,
        "metric_after": best.quality.value,
        "log_loss_before": bar.reference.loss,
        "log_loss_after": best.quality.loss,
    }


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


def _refitted(model: Any, info: ModelInfo, context: Context, depth: int) -> Ensemble:
    """The same kind of model, trained with trees of at most `depth` levels."""
    if not hasattr(model, "get_params"):
        raise NotApplicable(
            "a booster without its estimator cannot be trained again, as its file does not say "
            "all hyper-parameters",
            key="prune.refit",
            mend="leave it out, or bring the XGBoost or LightGBM estimator",
        )
    clone = seeded_clone(model, context.seed)
    last_step(clone).set_params(max_depth=depth)
    _log.info("training trees of depth %d on %d rows", depth, len(context.train))
    return find(fit(clone, model, info, context.train), info)
