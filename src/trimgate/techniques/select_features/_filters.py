"""What the rows alone say of features: filters."""

from collections.abc import Callable, Sequence

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.models import sample_rows
from trimgate.models.directory import ModelInfo
from trimgate.training import encoded, numbers

_ROWS = 10_000


def mutual_information(
    info: ModelInfo, rows: Dataset, names: Sequence[str], seed: int
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

    rows = sample_rows(rows, _ROWS)
    discrete = np.array([rows.features[name].dtype.kind in "Ob" for name in names])
    matrix = np.column_stack([numbers(rows.features[name]) for name in names])
    estimate = mutual_info_regression if info.task == "regression" else mutual_info_classif
    values = estimate(matrix, _target(info, rows), discrete_features=discrete, random_state=seed)
    return dict(zip(names, (float(value) for value in values), strict=True))


def anova(info: ModelInfo, rows: Dataset, names: Sequence[str]) -> dict[str, float]:
    """F value of each feature: between the classes, or of the line through the labels.

    A feature of strings gets the largest F of its frequent values. A feature that never varies
    gets 0.

    Args:
        info: The model's record, for the task.
        rows: Training rows; at most 10,000 of them are used.
        names: The features to look at.
    """
    from sklearn.feature_selection import f_classif, f_regression

    rows = sample_rows(rows, _ROWS)
    matrix, owners = encoded(rows, names)
    test = f_regression if info.task == "regression" else f_classif
    varies = matrix.any(axis=0)
    values = np.zeros(matrix.shape[1])
    values[varies] = test(matrix[:, varies], _target(info, rows))[0]
    # a feature that gives the classes away has an infinite F, which JSON has no number for
    values = np.nan_to_num(values, nan=0.0, posinf=float(np.finfo(np.float32).max))
    return {name: float(values[owners == i].max()) for i, name in enumerate(names)}


def variance(rows: Dataset, names: Sequence[str]) -> dict[str, float]:
    """How much each feature varies, on a scale of its own.

    Numbers and truth values: the variance after scaling to [0, 1], at most 0.25. Strings: half
    the chance that two rows differ, which for two values is the variance of a 0/1 column.

    Args:
        rows: Training rows; at most 10,000 of them are used.
        names: The features to look at.
    """
    rows = sample_rows(rows, _ROWS)
    found = {}
    for name in names:
        values = numbers(rows.features[name])
        if rows.features[name].dtype == object:
            shares = np.unique(values, return_counts=True)[1] / len(values)
            found[name] = float((1 - (shares**2).sum()) / 2)
            continue
        spread = float(np.ptp(values))
        found[name] = float(((values - values.min()) / spread).var()) if spread > 0 else 0.0
    return found


def associations(rows: Dataset, names: Sequence[str]) -> Array:
    """How much of one feature another one says, whatever the types.

    Two columns of numbers: absolute rank correlation (Spearman), which also sees bent
    relations as long as they are monotone. Two columns of strings: Cramér's V with Bergsma's
    correction (2013, doi:10.1016/j.jkss.2012.10.002). A string and a number: the correlation
    ratio of the ranks (the root of epsilon squared).

    Args:
        rows: Training rows; at most 10,000 of them are used.
        names: The features to look at.

    Returns:
        `(features, features)` from 0 to 1, symmetric, with zeros on the diagonal.
    """
    rows = sample_rows(rows, _ROWS)
    texts = [rows.features[name].dtype == object for name in names]
    columns = [numbers(rows.features[name]) for name in names]
    # a column that never varies has no correlation with anything
    ranks = np.column_stack([_ranks(column) for column in columns])
    ranks -= ranks.mean(axis=0)
    length = np.sqrt((ranks**2).sum(axis=0))
    ranks /= np.where(length > 0, length, 1.0)
    found = np.abs(ranks.T @ ranks)
    for i, is_text in enumerate(texts):
        if not is_text:
            continue
        codes = np.unique(columns[i], return_inverse=True)[1]
        for j in range(len(names)):
            if not texts[j]:
                found[i, j] = found[j, i] = _correlation_ratio(codes, ranks[:, j])
            elif j > i:
                other = np.unique(columns[j], return_inverse=True)[1]
                found[i, j] = found[j, i] = _cramers_v(codes, other)
    np.fill_diagonal(found, 0.0)
    return np.asarray(np.clip(found, 0.0, 1.0))


def _ranks(column: Array) -> Array:
    """Ranks of a column; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def redundant(found: Array, worth: Callable[[int], tuple[float, ...]], limit: float) -> list[int]:
    """Features to drop until no two are associated more than `limit`, in that order.

    Of the most associated pair the one that is worth less goes, again and again.

    Args:
        found: What `associations` gave.
        worth: By position.
        limit: The association that is still allowed.
    """
    found = found.copy()
    gone: list[int] = []
    while found.size and found.max() > limit:
        left, right = divmod(int(found.argmax()), len(found))
        loser = left if worth(left) < worth(right) else right
        found[loser], found[:, loser] = 0.0, 0.0
        gone.append(loser)
    return gone


def _correlation_ratio(codes: Array, centred: Array) -> float:
    total = float((centred**2).sum())
    groups = int(codes.max()) + 1
    if total <= 0 or groups < 2 or len(codes) <= groups:
        return 0.0
    counts = np.bincount(codes)
    means = np.bincount(codes, weights=centred) / counts
    within = 1 - float((counts * means**2).sum()) / total
    return float(np.sqrt(max(0.0, 1 - within * (len(codes) - 1) / (len(codes) - groups))))


def _cramers_v(left: Array, right: Array) -> float:
    rows, height, width = len(left), int(left.max()) + 1, int(right.max()) + 1
    if min(height, width) < 2:
        return 0.0
    table = np.bincount(left * width + right, minlength=height * width).reshape(height, width)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / rows
    squared = float(((table - expected) ** 2 / expected).sum()) / rows
    squared = max(0.0, squared - (height - 1) * (width - 1) / (rows - 1))
    sides = (n - (n - 1) ** 2 / (rows - 1) for n in (height, width))
    return float(np.sqrt(squared / max(min(sides) - 1, 1e-12)))


def _target(info: ModelInfo, rows: Dataset) -> Array:
    if info.task == "regression":
        return rows.labels.astype(np.float64)
    return np.asarray(np.unique(rows.labels, return_inverse=True)[1])
