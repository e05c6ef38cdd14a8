"""Fewer and shallower trees, chosen on the validation rows."""

import logging
from dataclasses import dataclass
from typing import Any

from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.prune._config import PruneConfig
from trimgate.techniques.prune._ensembles import Ensemble, Forest, find, last_step
from trimgate.training import Measure, fit, seeded_clone

_log = logging.getLogger("trimgate.techniques.prune")


@dataclass(frozen=True)
class _Option:
    """One ensemble and how many of its trees are enough."""

    ensemble: Ensemble
    size: int
    value: float
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
    measure = Measure.of(context.metric, info, context.validation)
    rows = context.validation
    full = find(model, info)
    (reference_scores,) = full.staged(rows, [full.size])
    reference = measure(reference_scores)

    options = [_shrunk(full, rows, measure, reference, config, None)]
    if config.refit:
        for depth in config.depths:
            fitted = _refitted(model, info, context, depth)
            options.append(_shrunk(fitted, rows, measure, reference, config, depth))
    good = [o for o in options if measure.acceptable(o.value, reference, config.tolerance)]
    if good:
        best = min(good, key=lambda option: option.cost)
    else:
        best = max(options, key=lambda option: measure.gain(option.value, reference))
    if best.depth is None and best.size == full.size:
        raise NotApplicable(
            f"with fewer of its {full.size} trees the model gets worse by more than "
            f"{config.tolerance} {context.metric} on the validation rows",
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
        "metric_before": reference,
        "metric_after": best.value,
    }


def grid(size: int) -> list[int]:
    """Ascending sizes from 1 to `size`, each about 1.15 times the one before."""
    sizes, current = {size}, float(size)
    while current > 1:
        current /= 1.15
        sizes.add(max(1, round(current)))
    return sorted(sizes)


def _shrunk(
    ensemble: Ensemble,
    rows: Dataset,
    measure: Measure,
    reference: float,
    config: PruneConfig,
    depth: int | None,
) -> _Option:
    """The ensemble with the explicit share removed, or with as few trees as are enough."""
    if isinstance(ensemble, Forest) and config.order == "greedy":
        ensemble = ensemble.reordered(ensemble.greedy_order(rows))
    if config.amount != "auto":
        size = max(1, round(ensemble.size * (1 - config.amount)))
        (scores,) = ensemble.staged(rows, [size])
        return _Option(ensemble, size, measure(scores), depth)
    sizes = grid(ensemble.size)
    values = [measure(scores) for scores in ensemble.staged(rows, sizes)]
    chosen = len(sizes) - 1
    # All larger sizes must be good enough too, so that one lucky point decides nothing.
    while chosen > 0 and measure.acceptable(values[chosen - 1], reference, config.tolerance):
        chosen -= 1
    return _Option(ensemble, sizes[chosen], values[chosen], depth)


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
