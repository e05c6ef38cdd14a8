"""Students of torch modules: encoders with fewer and narrower layers, and a user's own."""

import copy
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import ModelSource, build_inputs, sample_rows, to_scores
from trimgate.models._torch import refine
from trimgate.models._trainable import build_module
from trimgate.models.directory import ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.distill import _encoders, _inside
from trimgate.techniques.distill._compare import compare
from trimgate.techniques.distill._config import DistillConfig, LossWeights
from trimgate.techniques.distill._lesson import Lesson, pupil_of
from trimgate.techniques.distill._rows import join, mixed, read_unlabeled, synthetic, truth_of
from trimgate.training import (
    FinetuneConfig,
    FinetuneReport,
    finetune,
    folds,
    mask_position,
    module_output,
    module_scores,
    training_labels,
)

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("trimgate.techniques.distill")

_EXAMPLE = 64
_HELD = 8  # one labelled row in so many tells the best epoch
_ANEW = 5e-4  # learning rate of attention that does not begin with whole layers


def distill_module(
    teacher: "torch.nn.Module", info: ModelInfo, config: DistillConfig, context: Context
) -> "tuple[torch.nn.Module, ModelInfo, dict[str, Any]]":
    """Trains a student on the teacher, and its twin, the control, on labels alone.

    Both begin with the same weights, see the labelled rows in the same order, and take as many
    steps of the same size; with rows that only the teacher labels, the control sees the others
    more often. The best epoch of each is that which comes nearest, on held-out training rows, to
    what it learns: a student that follows a good teacher is far from labels that are wrong.

    Args:
        teacher: In evaluation mode.
        info: Its record.
        config: The step's parameters.
        context: Rows, metric, seed, threads.

    Returns:
        The student or the control, the record with what it changes, and the notes.

    Raises:
        NotApplicable: Student and teacher cannot be compared as is asked.
    """
    labelled, held = folds(context.train, _HELD, context.seed)[0]
    rows, notes = _all_rows(labelled, info, config, context)
    inputs = build_inputs(info, rows.features)
    example = _example(info, labelled)
    student, changed, start, made = _student(teacher, info, config, example, context.seed)
    _check_output(student, teacher, info, example)
    threads = context.target.threads
    answers = module_output(teacher, inputs, info, threads=threads)
    kind = "value" if info.task == "regression" else info.score_kind
    views = None
    if config.loss.inside and made is not None:
        views = _inside.of_encoders(made, attention=config.loss.attention > 0)
    elif config.loss.inside:
        views = _inside.of_layers(
            student, teacher, config.pairs, example, attention=config.loss.attention > 0
        )
    targets = training_labels(info, labelled.labels)
    names = [spec.name for spec in info.inputs]
    mask = mask_position(info)
    lesson = Lesson(config.loss, kind, targets, answers, config.temperature, teacher, views, mask)
    alone = LossWeights(logits=0, labels=config.loss.labels or 1.0)
    control = copy.deepcopy(student)
    watched = build_inputs(info, held.features)
    truth = truth_of(info, held)
    known = module_scores(teacher, watched, info, threads=threads)

    def trained(
        module: "torch.nn.Module", lesson: Lesson, count: int, more: float, name: str
    ) -> FinetuneReport:
        pupil = pupil_of(module, lesson, example)
        goal = mixed(known, truth, lesson.weights)
        epochs = round(context.share_of(config.epochs) * more)
        _log.info("%s: %d rows, %d epochs", name, count, epochs)
        return finetune(
            pupil,
            [inputs[name][:count] for name in names],
            np.arange(count),
            FinetuneConfig(
                epochs=epochs,
                learning_rate=config.learning_rate or _rate(student, config, start),
                batch_size=config.batch_size,
                weight_decay=config.weight_decay,
                patience=math.ceil(config.patience * more),
            ),
            kind=kind,
            validate=lambda m: _distance(module_scores(m, watched, info, threads=threads), goal),
            higher_is_better=False,
            seed=context.seed,
            threads=threads,
            checkpoint=context.work / f"{name}.ckpt" if context.work else None,
            objective=lesson,
            mask=mask,
        )

    report = trained(student, lesson, len(rows), 1.0, "student")
    hard = Lesson(alone, kind, targets, answers, 1.0, teacher, None, mask)
    plain = trained(control, hard, len(labelled), len(rows) / len(labelled), "control")
    shown = build_inputs(info, context.validation.features)
    first, second, third = (
        module_scores(m, shown, info, threads=threads) for m in (teacher, student, control)
    )
    judged = compare(first, second, third, info, config, context)
    kept = student if judged.keeps_student else control
    notes = {
        **notes,
        "start": start,
        "parameters_before": _parameters(teacher),
        "parameters_after": _parameters(kept),
        "epochs": len(report.losses),
        "best_epoch": report.best_epoch,
        "control_epochs": len(plain.losses),
        "control_best_epoch": plain.best_epoch,
        "losses": [round(loss, 6) for loss in report.losses],
        **judged.notes,
    }
    return kept, changed, notes


def _all_rows(
    labelled: Dataset, info: ModelInfo, config: DistillConfig, context: Context
) -> tuple[Dataset, dict[str, Any]]:
    """The rows to learn from, those with labels first."""
    used = list(dict.fromkeys(feature for spec in info.inputs for feature in spec.features))
    parts, notes = [labelled], {"unlabeled_rows": 0, "synthetic_rows": 0}
    if config.unlabeled is not None:
        parts.append(read_unlabeled(config.unlabeled, info, labelled))
        notes["unlabeled_rows"] = len(parts[-1])
    if config.augment:
        seen = [name for name in used if name not in info.unused_features]
        made = context.share_of(config.augment)
        parts.append(synthetic(labelled, seen, made, context.seed))
        notes["synthetic_rows"] = made
    return join(parts, used), notes


def _example(info: ModelInfo, rows: Dataset) -> "list[torch.Tensor]":
    import torch

    inputs = build_inputs(info, sample_rows(rows, _EXAMPLE).features)
    return [torch.from_numpy(np.array(inputs[spec.name])) for spec in info.inputs]


def _student(
    teacher: Any,
    info: ModelInfo,
    config: DistillConfig,
    example: "list[torch.Tensor]",
    seed: int,
) -> "tuple[torch.nn.Module, ModelInfo, str, _encoders.Plan | None]":
    """The student before training, its record, where its weights come from, and its plan."""
    wanted = config.student
    if wanted.kind == "module":
        arguments = dict(wanted.arguments)
        if wanted.builder in (None, info.builder):
            arguments = {**info.builder_arguments, **arguments}
        builder = wanted.builder or str(info.builder)
        module = _seeded(builder, arguments, seed)
        if wanted.start == "teacher":
            _copy_equal(module, teacher)
        changed = info.model_copy(update={"builder": builder, "builder_arguments": arguments})
        return module, _refined(module, changed, example), _start(config), None
    made = _encoders.plan(info.builder_arguments["config"], wanted)
    arguments = {**info.builder_arguments, "config": made.config}
    try:
        module = _seeded(str(info.builder), arguments, seed)
    except InvalidInput as error:
        raise NotApplicable(f"transformers cannot make the student ({error.problem})") from error
    start = _start(config)
    if start == "teacher":
        copied = _encoders.begin(module, teacher, made, example)
        _log.info("%d of %d tensors from the teacher", copied, len(module.state_dict()))
    return module, info.model_copy(update={"builder_arguments": arguments}), start, made


def _start(config: DistillConfig) -> str:
    usual = "random" if config.student.kind == "module" else "teacher"
    return usual if config.student.start == "auto" else config.student.start


def _seeded(builder: str, arguments: dict[str, Any], seed: int) -> Any:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_module(builder, arguments)


def _copy_equal(student: "torch.nn.Module", teacher: "torch.nn.Module") -> None:
    """Copies what has the same name and shape in both."""
    theirs = teacher.state_dict()
    mine = student.state_dict()
    student.load_state_dict(
        {n: theirs[n] if n in theirs and theirs[n].shape == t.shape else t for n, t in mine.items()}
    )


def _refined(
    module: "torch.nn.Module", info: ModelInfo, example: "list[torch.Tensor]"
) -> ModelInfo:
    """The record with the family of another module."""
    raw = module(*example).detach().numpy()
    source = ModelSource(path=Path("student.safetensors"), builder=info.builder)
    family = refine(module, info, raw, source).family
    return info.model_copy(update={"family": family})


def _check_output(
    student: "torch.nn.Module",
    teacher: "torch.nn.Module",
    info: ModelInfo,
    example: "list[torch.Tensor]",
) -> None:
    """Refuses a student whose output cannot be compared with the teacher's.

    Raises:
        NotApplicable: It says what the student puts out.
    """
    import torch

    with torch.no_grad():
        mine, theirs = student(*example), teacher(*example)
    if mine.shape != theirs.shape:
        raise NotApplicable(
            f"the student puts out {tuple(mine.shape[1:])} a row and the teacher "
            f"{tuple(theirs.shape[1:])}",
            key="distill.student",
        )
    if info.score_kind != "probability" or info.task == "regression":
        return
    scores = to_scores(mine.numpy(), info)
    if mine.min() < 0 or not np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        raise NotApplicable(
            "the teacher puts out probabilities and the student does not",
            key="distill.student",
            mend="end the student with a softmax too",
        )


def _distance(scores: Array, goal: Array) -> float:
    """Cross entropy of scores with wanted probabilities, or the squared error of values."""
    if scores.ndim == 1:
        return float(np.square(scores - goal).mean())
    return float(-(goal * np.log(np.maximum(scores, 1e-7))).sum(axis=1).mean())


def _rate(student: "torch.nn.Module", config: DistillConfig, start: str) -> float | None:
    """A learning rate for what the student begins with; None leaves it to the usual."""
    attention = any("Attention" in type(part).__name__ for part in student.modules())
    whole = start == "teacher" and config.student.width is None
    return _ANEW if attention and not whole else None


def _parameters(module: "torch.nn.Module") -> int:
    return sum(parameter.numel() for parameter in module.parameters())
