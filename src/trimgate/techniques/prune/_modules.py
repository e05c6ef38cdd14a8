"""Pruning a torch module and recovering its accuracy."""

import copy
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs, sample_rows
from trimgate.models.directory import ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.prune._channels import LayerCut, macs, parameters, prune_channels
from trimgate.techniques.prune._config import PruneConfig
from trimgate.techniques.prune._rebuild import BUILDER, make_plan
from trimgate.training import Measure, finetune, label_loss, module_scores, training_labels

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("trimgate.techniques.prune")

_TAYLOR_ROWS = 512
_HELD = 8  # one row in so many tells the best epoch of a fine-tuning


def prune_module(
    module: "torch.nn.Module", info: ModelInfo, config: PruneConfig, context: Context
) -> "tuple[torch.nn.Module, dict[str, Any], dict[str, Any]]":
    """Removes channels and fine-tunes what is left, with the unpruned module as the teacher.

    Args:
        module: The user's module in evaluation mode.
        info: Its record.
        config: The parameters of the step.
        context: Training rows, validation rows and the primary metric.

    Returns:
        The smaller module, the arguments with which `rebuild` makes it, and the notes.

    Raises:
        NotApplicable: The module cannot be pruned, or no share of `amounts` is good enough.
    """
    import torch

    measure = Measure.of(context.metric, info, context.validation)
    inputs = build_inputs(info, context.validation.features)
    threads = context.target.threads

    def score(candidate: "torch.nn.Module") -> float:
        return measure(module_scores(candidate, inputs, info, threads=threads))

    example = [torch.from_numpy(np.array(inputs[spec.name][:1])) for spec in info.inputs]
    reference = score(module)
    if config.importance == "taylor":
        _accumulate_gradients(module, info, context)
    amounts = config.amounts if config.amount == "auto" else (config.amount,)
    for amount in sorted(amounts, reverse=True):
        small, cuts = prune_channels(
            module, example, amount,
            scope=config.scope, importance=config.importance, round_to=config.round_to,
        )  # fmt: skip
        untrained = score(small)
        tuned = _finetune(small, module, info, config, context)
        after = score(small)
        _log.info("without %.0f %% of the channels: %.4f", 100 * amount, after)
        good = measure.acceptable(after, reference, config.tolerance)
        if config.amount != "auto" or good:
            break
    else:
        raise NotApplicable(
            f"without {min(amounts):.0%} of its channels the module gets worse by more than "
            f"{config.tolerance} {context.metric} on the validation rows",
            key="prune.tolerance",
            mend="raise it, train for more epochs, or give an amount",
        )
    notes = {
        "method": "channels",
        "amount": amount,
        "parameters_before": parameters(module),
        "parameters_after": parameters(small),
        "macs_before": macs(module, example),
        "macs_after": macs(small, example),
        "layers": [_describe(cut) for cut in cuts],
        "metric": context.metric,
        "metric_before": reference,
        "metric_untrained": untrained,
        "metric_after": after,
        "epochs": tuned["epochs"],
        "best_epoch": tuned["best_epoch"],
    }
    return small, _builder_arguments(module, small, info), notes


def _finetune(
    small: "torch.nn.Module",
    teacher: "torch.nn.Module",
    info: ModelInfo,
    config: PruneConfig,
    context: Context,
) -> dict[str, Any]:
    """Trains on most of the training rows; the best epoch is the one on the rest of them.

    Not on the validation rows: the best of many epochs there would look better than it is, and
    these rows are to rank the candidates.
    """
    rows, held = _hold_out(context.train, context.seed)
    # Log loss tells epochs apart on few rows, where many of them have the same accuracy.
    measure = Measure.of("log_loss" if info.labels else context.metric, info, held)
    inputs, watched = build_inputs(info, rows.features), build_inputs(info, held.features)
    threads = context.target.threads
    report = finetune(
        small,
        [inputs[spec.name] for spec in info.inputs],
        training_labels(info, rows.labels),
        config.finetune,
        kind="value" if info.task == "regression" else info.score_kind,
        validate=lambda m: measure(module_scores(m, watched, info, threads=threads)),
        higher_is_better=measure.higher_is_better,
        teacher=teacher,
        seed=context.seed,
        threads=threads,
    )
    return {
        "epochs": len(report.losses),
        "best_epoch": report.best_epoch,
    }


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


def _accumulate_gradients(module: "torch.nn.Module", info: ModelInfo, context: Context) -> None:
    """Leaves the gradients of the loss on some training rows in the module's parameters."""
    import torch

    rows: Dataset = sample_rows(context.train, _TAYLOR_ROWS)
    inputs = build_inputs(info, rows.features)
    module.zero_grad()
    output = module(*(torch.from_numpy(np.array(inputs[spec.name])) for spec in info.inputs))
    targets = torch.from_numpy(training_labels(info, rows.labels))
    kind = "value" if info.task == "regression" else info.score_kind
    label_loss(output, targets, kind).backward()  # type: ignore[no-untyped-call]


def _builder_arguments(
    module: "torch.nn.Module", small: "torch.nn.Module", info: ModelInfo
) -> dict[str, Any]:
    """What `rebuild` needs; a module that was pruned before goes back to the user's builder."""
    if info.builder != BUILDER:
        return {
            "builder": info.builder,
            "arguments": copy.deepcopy(info.builder_arguments),
            "plan": make_plan(module, small),
        }
    plan = copy.deepcopy(info.builder_arguments["plan"])
    for name, changes in make_plan(module, small).items():
        merged = plan.setdefault(name, {"sizes": {}, "shapes": {}})
        merged["sizes"].update(changes["sizes"])
        merged["shapes"].update(changes["shapes"])
    return {**info.builder_arguments, "plan": plan}


def _describe(cut: LayerCut) -> dict[str, Any]:
    return {
        "layer": cut.layer,
        "before": cut.before,
        "after": cut.after,
        "round_to": cut.round_to,
    }
