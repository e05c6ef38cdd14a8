"""What distillation added: the student beside the same student trained on labels alone."""

import logging
from dataclasses import dataclass
from typing import Any

from trimgate.data.dataset import Array
from trimgate.judge.evaluation import evaluate
from trimgate.models.directory import ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.distill._config import DistillConfig
from trimgate.training import Measure

_log = logging.getLogger("trimgate.techniques.distill")


@dataclass(frozen=True)
class Comparison:
    """The outcome on the validation rows.

    Attributes:
        keeps_student: Whether the student is the one to keep; else the control.
        notes: What the card says of it, as JSON values.
    """

    keeps_student: bool
    notes: dict[str, Any]


def compare(
    teacher: Array,
    student: Array,
    control: Array,
    info: ModelInfo,
    config: DistillConfig,
    context: Context,
) -> Comparison:
    """Values teacher, student and control with the primary metric on the validation rows.

    Args:
        teacher: Its scores, `(rows, classes)` or `(rows,)`.
        student: The student's.
        control: The control's.
        info: The model's record.
        config: Says which of the two is kept.
        context: The validation rows, the metric and the seed.
    """
    rows = context.validation
    measure = Measure.of(context.metric, info, rows)
    judged = evaluate(
        rows.labels,
        student,
        info.labels,
        name="student",
        model="",
        split="validation",
        data="",
        task=info.task,
        primary=context.metric,
        metrics=(context.metric,),
        baseline_scores=control,
        seed=context.seed,
    )
    difference = judged.differences[context.metric]
    gain = measure.gain(measure(student), measure(control))
    keeps_student = config.keep == "student" or gain >= 0
    notes = {
        "metric": context.metric,
        "higher_is_better": measure.higher_is_better,
        "rows": len(rows),
        "teacher": measure(teacher),
        "student": measure(student),
        "control": measure(control),
        "added": difference.model_dump(mode="json", include={"value", "low", "high", "confidence"}),
        "kept": "student" if keeps_student else "control",
    }
    _log.info(
        "%s: teacher %.4f, student %.4f, the same on labels alone %.4f; distillation added %+.4f "
        "[%+.4f, %+.4f]",
        context.metric, notes["teacher"], notes["student"], notes["control"], difference.value,
        difference.low, difference.high,
    )  # fmt: skip
    return Comparison(keeps_student, notes)
