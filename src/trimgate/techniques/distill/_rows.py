"""Rows that only the teacher labels: a user's file, and rows made of the training rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trimgate.data import Dataset, read_columns
from trimgate.data.dataset import Array
from trimgate.errors import InvalidInput
from trimgate.models import build_inputs
from trimgate.models.directory import ModelInfo
from trimgate.techniques.distill._config import LossWeights
from trimgate.training import encoded

_KEY = "distill.unlabeled"
# MUNGE: the chance that a value is exchanged with the neighbour's, and by what the distance of
# the two is divided to give the standard deviation of the noise.
_EXCHANGE = 0.5
_SPREAD = 2.0
_NEIGHBOURHOOD = 20_000


def read_unlabeled(file: Path, info: ModelInfo, like: Dataset) -> Dataset:
    """Rows of a file in the types of the training rows; other columns are left out.

    Args:
        file: Parquet, CSV or `.npz`.
        info: The record of the model that shall label them.
        like: The training rows.

    Returns:
        The rows, with empty labels.

    Raises:
        InvalidInput: The file cannot be read, a feature is absent or of another type, or a value
            is one that the model cannot take.
    """
    columns = read_columns(file)
    needed = {feature for spec in info.inputs for feature in spec.features}
    found: dict[str, Array] = {}
    count = len(next(iter(columns.values())))
    for name, known in like.features.items():
        if name not in columns:
            if name in needed:
                raise InvalidInput(
                    f"the rows have no such column, which the model needs ({name!r})",
                    file=file,
                    key=_KEY,
                )
            continue
        values = columns[name]
        empty = values.dtype.kind == "f" and values.ndim == 1 and bool(np.isnan(values).all())
        if known.dtype == object and empty:
            values = np.full(count, None, dtype=object)
        if (known.dtype == object) != (values.dtype == object) or known.ndim != values.ndim:
            raise InvalidInput(
                f"the column {name!r} has another type than in the training rows "
                f"({_kind(values)} instead of {_kind(known)})",
                file=file,
                key=_KEY,
            )
        found[name] = values
    rows = Dataset(found, np.zeros(count))
    try:
        build_inputs(info, rows.take(slice(0, 1000)).features)
    except InvalidInput as error:
        raise InvalidInput(
            f"{error.key}: {error.problem}", file=file, key=_KEY, mend=error.mend
        ) from error
    return rows


def synthetic(rows: Dataset, names: Sequence[str], count: int, seed: int) -> Dataset:
    """Rows that look like those of a table, for a teacher to label.

    MUNGE (Bucila, Caruana and Niculescu-Mizil, 2006, "Model Compression"): a row and its nearest
    neighbour exchange values, each by chance; numbers are drawn around the neighbour's.

    Args:
        rows: A table; the neighbour is looked for among at most 20,000 of its rows.
        names: The features that the model looks at; the others stay as they are.
        count: How many rows to make.
        seed: Makes it reproducible.

    Returns:
        `count` rows, with empty labels.
    """
    from sklearn.neighbors import NearestNeighbors

    generator = np.random.default_rng(seed)
    pool = rows
    if len(rows) > _NEIGHBOURHOOD:
        pool = rows.take(np.sort(generator.choice(len(rows), _NEIGHBOURHOOD, replace=False)))
    matrix = encoded(pool, names)[0]
    nearest = NearestNeighbors(n_neighbors=min(2, len(pool))).fit(matrix)
    found = nearest.kneighbors(matrix, return_distance=False)
    # equal rows are each other's nearest, in any order
    own = np.arange(len(pool))
    neighbour = np.where(found[:, 0] != own, found[:, 0], found[:, -1])
    base = np.concatenate([generator.permutation(len(pool)) for _ in range(-(-count // len(pool)))])
    base = base[:count]
    features = {name: values[base] for name, values in pool.features.items()}
    for name in names:
        here, there = features[name], pool.features[name][neighbour[base]]
        exchanged = generator.random(count) < _EXCHANGE
        features[name] = np.where(exchanged, _around(there, here, generator), here)
    return Dataset(features, np.zeros(count))


def join(parts: Sequence[Dataset], names: Sequence[str]) -> Dataset:
    """Rows below each other, with the given features; the labels are those of the first."""
    features = {n: np.concatenate([part.features[n] for part in parts]) for n in names}
    first = parts[0].labels
    rest = sum(len(part) for part in parts[1:])
    # what stands there is never looked at
    return Dataset(features, np.concatenate([first, np.repeat(first[:1], rest)]))


def truth_of(info: ModelInfo, rows: Dataset) -> Array:
    """Labels as scores: `(rows, classes)` of 0 and 1, or the values."""
    if info.task == "regression":
        return rows.labels.astype(np.float64)
    return np.stack([rows.labels == label for label in info.labels], axis=1).astype(np.float64)


def mixed(answers: Array, truth: Array, weights: LossWeights) -> Array:
    """What a student is to say of labelled rows, by the weights of the teacher and the labels.

    Args:
        answers: The teacher's scores.
        truth: The labels as scores.
        weights: All that counts of the teacher's inside goes for its scores.
    """
    soft, hard = weights.logits + weights.hidden + weights.attention, weights.labels
    result: Array = (soft * answers + hard * truth) / (soft + hard)
    return result


def _around(values: Array, other: Array, generator: np.random.Generator) -> Array:
    """Numbers near `values`, as far as the other ones are; all else as it is."""
    if values.dtype.kind not in "fi":
        return values
    finite = np.isfinite(values) & np.isfinite(other)
    distance = np.where(finite, np.abs(np.where(finite, values - other, 0.0)), 0.0)
    drawn = values + generator.normal(size=len(values)) * distance / _SPREAD
    whole = values.dtype.kind == "i" or bool((values[finite] == np.round(values[finite])).all())
    return (np.round(drawn) if whole else drawn).astype(values.dtype)


def _kind(values: Array) -> str:
    if values.ndim > 1:
        return f"arrays of {values.ndim - 1} dimensions"
    return "text" if values.dtype == object else "numbers"
