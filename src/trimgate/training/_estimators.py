"""Estimators, boosters and their rows."""

from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import build_inputs, predict_native, to_scores
from trimgate.models._native import table
from trimgate.models.directory import ModelInfo


def training_labels(info: ModelInfo, labels: Array) -> Array:
    """Labels as a torch loss takes them.

    Returns:
        `(rows,)`: `int64` positions in `info.labels`, or `float32` values for regression.

    Raises:
        InvalidInput: A label is not one of the model's.
    """
    if info.task == "regression":
        return np.asarray(labels, dtype=np.float32)
    positions = {label: position for position, label in enumerate(info.labels)}
    try:
        return np.array([positions[label] for label in labels.tolist()], dtype=np.int64)
    except KeyError as error:
        raise InvalidInput(
            "a label of the data is not one of the model's classes",
            key="label",
            value=error.args[0],
            mend=f"the model knows {list(info.labels)[:10]}",
        ) from error


def estimator_table(model: Any, info: ModelInfo, rows: Dataset) -> Any:
    """Rows as the native runtime gives them to an estimator or booster.

    A model that is fitted on this is asked in the same form when it is served.

    Args:
        model: Fitted.
        info: Its record.
        rows: With at least its features.

    Returns:
        A matrix `(rows, features)`, or a DataFrame where the model was trained on one.
    """
    inputs = build_inputs(info, rows.features)
    if info.framework == "sklearn":
        return table(model, info, inputs)
    return next(iter(inputs.values()))


def estimator_scores(model: Any, info: ModelInfo, rows: Dataset) -> Array:
    """Scores of an estimator or booster, as a session of the native runtime gives them.

    Returns:
        `(rows, classes)` probabilities or `(rows,)` values.
    """
    return to_scores(predict_native(model, info, build_inputs(info, rows.features)), info)


def seeded_clone(model: Any, seed: int) -> Any:
    """An unfitted copy with the same hyper-parameters, which can be fitted on rows alone.

    Every random state is fixed. Where early stopping on rows of the user's found the number of
    trees, the copy gets that number, as those rows are not at hand.

    Args:
        model: A fitted scikit-learn compatible estimator, steps of pipelines included.
        seed: For the random states that the user left to chance.
    """
    from sklearn.base import clone

    parameters = model.get_params(deep=True)
    changes: dict[str, Any] = {}
    for name, value in parameters.items():
        if name.rpartition("__")[2] == "random_state" and value is None:
            changes[name] = seed
        if name.rpartition("__")[2] == "early_stopping_rounds" and value is not None:
            changes[name] = None
    for name, part in {"": model, **parameters}.items():
        rounds = _stopped_at(part)
        if rounds:
            changes[f"{name}__n_estimators" if name else "n_estimators"] = rounds
    return clone(model).set_params(**changes)


def _stopped_at(estimator: Any) -> int:
    """Trees at which early stopping ended an XGBoost or LightGBM estimator, or 0."""
    if not hasattr(estimator, "get_params") or isinstance(estimator, type):
        return 0
    if hasattr(estimator, "best_iteration_"):
        return int(estimator.best_iteration_ or 0)
    if hasattr(estimator, "best_iteration"):
        return int(estimator.best_iteration) + 1
    return 0


def fit(model: Any, like: Any, info: ModelInfo, rows: Dataset) -> Any:
    """Fits an estimator in the form in which it will be asked.

    Args:
        model: Not fitted yet.
        like: The fitted model whose place it takes.
        info: The record of that.
        rows: To learn from.

    Returns:
        `model`.

    Raises:
        NotApplicable: A class of the model does not occur in the rows.
    """
    check_classes(info, rows)
    model.fit(estimator_table(like, info, rows), rows.labels)
    return model


def check_classes(info: ModelInfo, rows: Dataset) -> None:
    """Refuses rows to learn from that miss a class.

    Raises:
        NotApplicable: A class of the model does not occur in the rows.
    """
    absent = set(info.labels) - set(rows.labels.tolist())
    if absent:
        raise NotApplicable(
            f"the training rows hold no row of the class {sorted(absent, key=str)[0]!r}, so the "
            "model cannot be trained again",
            mend="give training rows of every class",
        )
