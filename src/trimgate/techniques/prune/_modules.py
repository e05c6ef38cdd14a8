"""Pruning a torch module and recovering its accuracy."""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs
from trimgate.models.directory import ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.prune._channels import cut_channels, macs, parameters
from trimgate.techniques.prune._config import PruneConfig
from trimgate.techniques.prune._cut import Cut, Order, TrainingLoss, settle_norms
from trimgate.techniques.prune._layers import cut_layers
from trimgate.techniques.prune._rebuild import Stage
from trimgate.techniques.prune._weights import cut_weights, hold, sparsity_notes
from trimgate.techniques.prune._width import cut_heads, cut_heads_and_neurons, cut_neurons
from trimgate.training import (
    FinetuneReport,
    Measure,
    Proof,
    finetune,
    mask_position,
    module_scores,
    training_labels,
)

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("trimgate.techniques.prune")

_HELD = 8  # one row in so many tells the best epoch of a fine-tuning

_CUTS: "dict[str, Callable[[torch.nn.Module, Order], Cut]]" = {
    "channels": cut_channels,
    "weights": cut_weights,
    "heads": cut_heads,
    "ffn": cut_neurons,
    "heads_and_ffn": cut_heads_and_neurons,
    "layers": cut_layers,
}


@dataclass(frozen=True)
class _Pruned:
    """A module after all of the cuts and the training.

    Attributes:
        cut: The last cut; its module is trained.
        before: By the name of each part, how many channels, heads, ... there were at first.
        stages: How `rebuild` makes it.
        untrained: The metric after the last cut, before the last training.
        reports: Of each training.
    """

    cut: Cut
    before: dict[str, int]
    stages: list[Stage]
    untrained: float
    reports: list[FinetuneReport]


def prune_module(
    module: "torch.nn.Module", info: ModelInfo, config: PruneConfig, context: Context
) -> "tuple[torch.nn.Module, list[Stage], dict[str, Any]]":
    """Makes a module smaller and fine-tunes it, with the unpruned module as the teacher.

    Args:
        module: The user's module in evaluation mode.
        info: Its record.
        config: The parameters of the step; its method is not `auto`.
        context: Training rows, validation rows and the primary metric.

    Returns:
        The smaller module, how `rebuild` makes it, and the notes.

    Raises:
        NotApplicable: The module cannot be pruned, or no share of `amounts` is good enough.
    """
    import torch

    rows, threads = context.validation, context.target.threads
    inputs = build_inputs(info, rows.features)
    proof = Proof(
        info, rows, module_scores(module, inputs, info, threads=threads), context.metric,
        config.tolerance, config.confidence, context.seed,
    )  # fmt: skip

    def score(candidate: "torch.nn.Module") -> float:
        return proof.measure(module_scores(candidate, inputs, info, threads=threads))

    one = build_inputs(info, context.validation.take(slice(0, 1)).features)
    example = [torch.from_numpy(np.array(one[spec.name])) for spec in info.inputs]
    loss = functools.cache(lambda: TrainingLoss.of(info, context))
    amounts, explicit = _amounts(config)
    for amount in amounts:
        order = Order(amount, config, example, loss, context.seed)
        made = _prune(module, order, info, context, score)
        small = made.cut.module
        judged = proof(module_scores(small, inputs, info, threads=threads))
        _log.info("%s without %.0f %%: %.4f", config.method, 100 * amount, judged.value)
        if explicit or judged.good:
            break
    else:
        raise NotApplicable(
            proof.failure(f"without {min(amounts):.0%} of its {_noun(config)}"),
            key="prune.tolerance",
            mend="raise it, train for more epochs, give more validation rows, or give an amount",
        )
    notes: dict[str, Any] = {
        "method": config.method,
        "amount": amount,
        "importance": order.importance,
        "parameters_before": parameters(module),
        "parameters_after": parameters(small),
        "macs_before": macs(module, example),
        "macs_after": macs(small, example),
        "layers": [
            {**part.describe(), "before": made.before.get(part.layer, part.before)}
            for part in made.cut.parts
        ],
        "metric": context.metric,
        "metric_before": proof.reference_value,
        "metric_untrained": made.untrained,
        "metric_after": judged.value,
        "metric_at_worst": judged.worst,
        "confidence": config.confidence,
        "epochs": sum(len(report.losses) for report in made.reports),
        "best_epoch": made.reports[-1].best_epoch,
    }
    if made.cut.masks:
        notes |= sparsity_notes(module, small, made.cut)
    return small, made.stages, notes


def _amounts(config: PruneConfig) -> tuple[list[float], bool]:
    """The shares to try, the largest first; and whether the user said how much."""
    if config.pattern:
        kept, group = config.kept_of
        return [1 - kept / group], True
    if config.amount != "auto":
        return [config.amount], True
    if config.ratios:
        return [0.0], True
    return sorted(config.amounts, reverse=True), False


def _prune(
    module: "torch.nn.Module",
    order: Order,
    info: ModelInfo,
    context: Context,
    score: "Callable[[torch.nn.Module], float]",
) -> _Pruned:
    """Cuts at once, or in the steps of a schedule, and trains after each cut."""
    config = order.config
    steps = config.schedule.shares(1.0) if config.schedule else [1.0]
    small, before, stages, reports = module, dict[str, int](), list[Stage](), []
    for number, progress in enumerate(steps):
        last = number == len(steps) - 1
        current = Order(
            order.amount, config, order.example, order.loss, order.seed, progress, before
        )
        cut = _CUTS[config.method](small, current)
        small = cut.module
        stages += cut.stages
        if last and all(part.after >= before.get(part.layer, part.before) for part in cut.parts):
            raise NotApplicable(
                f"no layer has {_noun(config)} of which the share {order.amount:g} could be "
                "removed",
                key="prune.amount",
                mend="raise it, or prune something else",
            )
        before = before or {part.layer: part.before for part in cut.parts}
        settle_norms(small, order.loss())
        untrained = score(small)
        epochs = config.finetune.epochs if last or not config.schedule else config.schedule.epochs
        name = f"finetune-{order.amount:g}-{number}.pt"
        reports.append(_finetune(cut, module, info, config, context, epochs, name))
    return _Pruned(cut, before, stages, untrained, reports)


def _finetune(
    cut: Cut,
    teacher: "torch.nn.Module",
    info: ModelInfo,
    config: PruneConfig,
    context: Context,
    epochs: int,
    name: str,
) -> FinetuneReport:
    """Trains on most of the training rows; the best epoch is the one on the rest of them.

    Not on the validation rows: the best of many epochs there would look better than it is, and
    these rows are to rank the candidates.
    """
    rows, held = _hold_out(context.train, context.seed)
    # Log loss tells epochs apart on few rows, where many of them have the same accuracy.
    measure = Measure.of("log_loss" if info.labels else context.metric, info, held)
    inputs, watched = build_inputs(info, rows.features), build_inputs(info, held.features)
    threads = context.target.threads
    return finetune(
        cut.module,
        [inputs[spec.name] for spec in info.inputs],
        training_labels(info, rows.labels),
        config.finetune.model_copy(update={"epochs": context.share_of(epochs)}),
        kind="value" if info.task == "regression" else info.score_kind,
        validate=lambda m: measure(module_scores(m, watched, info, threads=threads)),
        higher_is_better=measure.higher_is_better,
        teacher=teacher,
        seed=context.seed,
        threads=threads,
        after_step=(lambda: hold(cut.module, cut.masks)) if cut.masks else None,
        checkpoint=context.work / name if context.work else None,
        mask=mask_position(info),
    )


def _hold_out(train: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """The training rows without every eighth, and these; both with the same mix of labels."""
    if len(train) < 16 * _HELD:
        return train, train
    shuffled = np.random.default_rng(seed).permutation(len(train))
    labels = train.labels[shuffled]
    order = shuffled[
        np.argsort(labels.astype(str) if labels.dtype == object else labels, kind="stable")
    ]
    held = np.zeros(len(train), dtype=bool)
    held[order[_HELD // 2 :: _HELD]] = True
    return train.take(~held), train.take(held)


def _noun(config: PruneConfig) -> str:
    nouns = {"ffn": "neurons", "heads_and_ffn": "heads and neurons"}
    return nouns.get(config.method, config.method)
