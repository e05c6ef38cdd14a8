"""The quality metrics: plain NumPy, equal to scikit-learn's, and weighable for resampling.

Names: `accuracy`, `balanced_accuracy`, `f1`, `precision`, `recall`, `log_loss`, `brier`, `roc_auc`,
`average_precision`, `ece` and (with a cost matrix) `cost` for classifiers; `f1_at_point`,
`precision_at_point` and `recall_at_point` for binary ones with an operating point; `rmse`, `mae`,
`r2` for regressors. In a binary task the second class is the positive one; with more classes `f1`,
`precision`, `recall`, `roc_auc` (one against the rest) and `average_precision` are the plain mean
over the classes.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import InvalidInput
from trimgate.judge._metrics import METRICS, Spec
from trimgate.judge._view import View

Task = Literal["binary", "multiclass", "regression"]
Array = NDArray[Any]

IMBALANCED = 0.05
_LISTED: dict[str, tuple[str, ...]] = {
    "binary": (
        "accuracy",
        "balanced_accuracy",
        "f1",
        "roc_auc",
        "average_precision",
        "log_loss",
        "brier",
        "ece",
    ),
    "multiclass": ("accuracy", "balanced_accuracy", "f1", "log_loss", "brier", "ece"),
    "regression": ("rmse", "mae", "r2"),
}


def spec(name: str) -> Spec:
    """What is known of a metric.

    Raises:
        InvalidInput: There is no such metric.
    """
    if name not in METRICS:
        raise InvalidInput(
            "there is no such metric", key="metric", value=name, mend=f"use one of {names()}"
        )
    return METRICS[name]


def names(task: Task | None = None) -> list[str]:
    """All metrics, or those that suit a task."""
    return [n for n, s in METRICS.items() if task is None or _suits(s, task)]


def _suits(known: Spec, task: Task) -> bool:
    if known.needs == "point":
        return task == "binary"
    return (task == "regression") == known.regression


def default_metrics(task: Task, *, point: bool = False, costs: bool = False) -> tuple[str, ...]:
    """The metrics that an evaluation computes when none are asked for.

    Args:
        task: What the model does.
        point: An operating point is set: those at it are computed too.
        costs: Costs are set: so is their mean.
    """
    at_point = [n for n, s in METRICS.items() if s.needs == "point" and point and task == "binary"]
    return (*_LISTED[task], *at_point, *(("cost",) if costs and task != "regression" else ()))


def higher_is_better(name: str) -> bool:
    """Whether more of it is better."""
    return spec(name).higher_is_better


def default_metric(task: Task, labels: Sequence[Any] | Array) -> str:
    """The primary metric for a task when the user names none.

    - `average_precision` for a binary task whose rarer class has less than 5 % of the rows:
      accuracy and ROC AUC hardly move there when the positives are lost.
    - `accuracy` for other classifiers: it judges the decisions that are served. ROC AUC would
      pass a candidate whose scores have shifted across the threshold. Its paired interval is
      closed-form.
    - `rmse` for regression.
    """
    if task == "regression":
        return "rmse"
    if task == "binary":
        _, counts = np.unique(np.asarray(labels), return_counts=True)
        if len(counts) == 2 and counts.min() < IMBALANCED * counts.sum():
            return "average_precision"
    return "accuracy"


def compute(
    name: str, labels: Sequence[Any] | Array, scores: Array, classes: Sequence[Any] = ()
) -> float:
    """One metric of one model.

    Args:
        name: The metric.
        labels: `(rows,)`: class labels, or values for regression.
        scores: `(rows, classes)` probabilities in the order of `classes`, or `(rows,)` values,
            as `Session.predict` returns them.
        classes: The class labels (`ModelInfo.labels`); empty for regression.

    Raises:
        InvalidInput: The metric does not exist or does not suit the task; the shapes differ; a
            score is NaN or infinite; a label is none of the classes; there is one class only
            and the metric ranks.
    """
    known = spec(name)
    scores = np.asarray(scores)
    floor = float(np.finfo(scores.dtype).eps) if scores.dtype.kind == "f" else 2.0**-52
    view = View(np.asarray(labels), scores, tuple(classes), floor=floor)
    check(known, view)
    return known.function(view)


def check_metric(name: str, task: Task, *, key: str = "metric") -> None:
    """Refuses a metric that does not exist or does not suit the task.

    Args:
        name: The metric.
        task: What the model does.
        key: The config key that the message names.

    Raises:
        InvalidInput: It names the metrics that do.
    """
    if name not in names(task):
        raise InvalidInput(
            f"is no metric for {task}", key=key, value=name, mend=f"use one of {names(task)}"
        )


def check(known: Spec, view: View) -> None:
    """Refuses a metric that cannot be computed for these labels.

    Raises:
        InvalidInput: It does not suit the task, or needs rows of every class.
    """
    if known.regression == bool(view.classes):
        task = "a classifier" if view.classes else "a regressor"
        raise InvalidInput(f"the metric {known.name} is not for {task}", key="metric")
    if known.needs == "point" and view.threshold is None:
        raise InvalidInput(
            f"the metric {known.name} needs an operating point of a binary model",
            key="metric",
            mend="set evaluation.operating_point",
        )
    if known.needs == "costs" and view.costs is None:
        raise InvalidInput("the metric cost needs costs", key="metric", mend="set evaluation.costs")
    if known.name.startswith("recall") and len(view.classes) == 2 and view.class_counts[1] == 0:
        raise InvalidInput(
            f"the metric {known.name} needs rows of the class {view.classes[1]!r}", key="labels"
        )
    if known.kind == "rank" and view.class_counts.min() == 0:
        absent = view.classes[int(view.class_counts.argmin())]
        raise InvalidInput(
            f"the metric {known.name} needs rows of every class, but none has the label {absent!r}",
            key="labels",
            mend="use a split that holds every class",
        )
    if known.name == "r2" and view.rows < 2:
        raise InvalidInput("the metric r2 needs at least two rows", key="labels")
