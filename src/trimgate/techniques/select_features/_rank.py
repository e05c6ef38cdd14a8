"""How much each original feature matters."""

from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import NotApplicable
from trimgate.models import sample_rows
from trimgate.models.directory import ModelInfo
from trimgate.training import estimator_scores

_ROWS = 20_000
_CELLS = 2_000_000
_REPEATS = 2
_MUTUAL_INFORMATION_ROWS = 10_000


def permutation_importance(
    model: Any, info: ModelInfo, rows: Dataset, names: tuple[str, ...], seed: int
) -> dict[str, float]:
    """Rise of the loss when the values of one feature are shuffled among the rows.

    The loss is log loss, or squared error for regression; unlike accuracy it moves with every
    row, so that small data sets rank features too (Breiman, 2001, doi:10.1023/A:1010933404324).

    Args:
        model: An estimator or booster.
        info: Its record.
        rows: Validation rows; at most 20,000 of them, fewer for wide tables, are used.
        names: The features to look at.
        seed: Of the shuffling.

    Returns:
        By feature; 0 or less means that the model does as well without it.
    """
    rows = sample_rows(rows, min(_ROWS, max(2_000, _CELLS // max(1, len(names)))))
    generator = np.random.default_rng(seed)
    base = _loss(info, rows.labels, estimator_scores(model, info, rows))
    importance = {}
    for name in names:
        rises = []
        for _ in range(_REPEATS):
            shuffled = rows.features[name][generator.permutation(len(rows))]
            changed = Dataset({**rows.features, name: shuffled}, rows.labels)
            rises.append(_loss(info, rows.labels, estimator_scores(model, info, changed)) - base)
        importance[name] = float(np.mean(rises))
    return importance


def model_importance(model: Any, info: ModelInfo, names: tuple[str, ...]) -> dict[str, float]:
    """The model's own importances: total gain of boosters, `feature_importances_`, or the
    absolute coefficients, averaged over the classes.

    Raises:
        NotApplicable: The model has none, or they are not about the original features.
    """  # noqa: D205
    columns = [feature for spec in info.inputs for feature in spec.features]
    if info.framework == "xgboost":
        known = model.feature_names or [f"f{i}" for i in range(len(columns))]
        gains = model.get_score(importance_type="total_gain")
        values = np.array([gains.get(name, 0.0) for name in known])
    elif info.framework == "lightgbm":
        values = np.asarray(model.feature_importance("gain"))
    elif hasattr(model, "feature_importances_"):
        values = np.asarray(model.feature_importances_)
    elif hasattr(model, "coef_"):
        values = np.abs(np.atleast_2d(model.coef_)).mean(axis=0)
    else:
        raise NotApplicable(
            f"{type(model).__name__} has no importances of the original features",
            key="select_features.importance",
            value="model",
            mend="use permutation",
        )
    found = dict(zip(columns, values.tolist(), strict=True))
    return {name: float(found[name]) for name in names}


def mutual_information(
    info: ModelInfo, rows: Dataset, names: tuple[str, ...], seed: int
) -> dict[str, float]:
    """Mutual information of each feature with the label, in nats.

    Estimated from nearest neighbours (Kraskov, Stoegbauer and Grassberger, 2004,
    doi:10.1103/PhysRevE.69.066138; scikit-learn's implementation). Missing numbers are replaced
    by the median, missing strings are a value of their own.

    Args:
        info: The model's record, for the task.
        rows: Training rows; at most 10,000 of them are used.
        names: The features to look at.
        seed: Of the noise that breaks ties.
    """
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    rows = sample_rows(rows, _MUTUAL_INFORMATION_ROWS)
    discrete = np.array([rows.features[name].dtype.kind in "Ob" for name in names])
    matrix = np.column_stack([_numbers(rows.features[name]) for name in names])
    if info.task == "regression":
        estimate, labels = mutual_info_regression, rows.labels
    else:
        estimate, labels = mutual_info_classif, np.unique(rows.labels, return_inverse=True)[1]
    values = estimate(matrix, labels, discrete_features=discrete, random_state=seed)
    return dict(zip(names, (float(value) for value in values), strict=True))


def _numbers(column: Array) -> Array:
    if column.dtype == object:
        texts = np.array(["\0" if v is None or v != v else str(v) for v in column], dtype=str)
        return np.unique(texts, return_inverse=True)[1].astype(np.float64)
    numbers = column.astype(np.float64)
    finite = np.isfinite(numbers)
    numbers[~finite] = np.median(numbers[finite]) if finite.any() else 0.0
    return numbers


def _loss(info: ModelInfo, labels: Array, scores: Array) -> float:
    if info.task == "regression":
        return float(np.mean((scores - labels.astype(np.float64)) ** 2))
    positions = {label: position for position, label in enumerate(info.labels)}
    index = np.array([positions[label] for label in labels.tolist()])
    chosen = scores[np.arange(len(index)), index].astype(np.float64)
    return float(-np.log(np.clip(chosen, 1e-7, 1.0)).mean())
