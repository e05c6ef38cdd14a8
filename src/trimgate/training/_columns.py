"""Tables as numbers for methods that know numbers only, and parameters that name columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import NotApplicable

_CATEGORIES = 20

# Parameters that name columns of the matrix that an estimator gets, with what says "none".
ABOUT_COLUMNS = {
    "categorical_features": (None, "from_dtype"),
    "monotonic_cst": (None,),
    "interaction_cst": (None,),
    "monotone_constraints": (None,),
    "interaction_constraints": (None,),
    "feature_types": (None,),
    "feature_weights": (None,),
}


def refuse_column_parameters(steps: Sequence[tuple[str, Any]], mend: str) -> None:
    """Refuses steps whose parameters would mean other columns once their table is another one.

    Args:
        steps: Names and estimators, as in a pipeline.
        mend: What the user can do about it.

    Raises:
        NotApplicable: It names the parameter.
    """
    for step, transformer in steps:
        if not hasattr(transformer, "get_params"):
            continue
        for name, value in transformer.get_params(deep=True).items():
            neutral = ABOUT_COLUMNS.get(name.rpartition("__")[2])
            if neutral is not None and not any(value is n or value == n for n in neutral):
                raise NotApplicable(
                    f"the model's parameter {step}.{name} refers to columns by their position, "
                    "which changes",
                    mend=mend,
                )


def numbers(column: Array) -> Array:
    """A column of a table as `(rows,)` float64 without gaps.

    Missing and infinite numbers become the median; strings become the position of their sorted
    value, a missing one counting as a value of its own.
    """
    if column.dtype == object:
        return np.unique(_texts(column), return_inverse=True)[1].astype(np.float64)
    values = column.astype(np.float64)
    finite = np.isfinite(values)
    values[~finite] = np.median(values[finite]) if finite.any() else 0.0
    return values


def encoded(rows: Dataset, names: Sequence[str]) -> tuple[Array, Array]:
    """A table as standardized numbers.

    Numbers are filled with their median; of strings the 20 most frequent values (a missing one
    is one of them) become a column each. Every column then has mean 0 and standard deviation 1,
    or is 0 where it is constant.

    Args:
        rows: A table.
        names: The features to take.

    Returns:
        The matrix `(rows, columns)` float64, and for each column the position in `names` of the
        feature that it tells of.
    """
    columns: list[Array] = []
    owners: list[int] = []
    for position, name in enumerate(names):
        column = rows.features[name]
        parts = [numbers(column)]
        if column.dtype == object:
            values, counts = np.unique(_texts(column), return_counts=True)
            frequent = values[np.argsort(-counts, kind="stable")[:_CATEGORIES]]
            parts = [(_texts(column) == value).astype(np.float64) for value in frequent]
        columns += parts
        owners += [position] * len(parts)
    matrix = np.column_stack(columns)
    spread = matrix.std(axis=0)
    constant = spread <= 1e-12 * np.maximum(1.0, np.abs(matrix).max(axis=0))
    matrix = (matrix - matrix.mean(axis=0)) / np.where(constant, 1.0, spread)
    matrix[:, constant] = 0.0
    return matrix, np.array(owners, dtype=np.int64)


def _texts(column: Array) -> Array:
    return np.array(["\0" if v is None or v != v else str(v) for v in column], dtype=str)
