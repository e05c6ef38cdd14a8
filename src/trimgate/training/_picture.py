"""A picture of rows for people: neighbours in many dimensions drawn as neighbours in two."""

from typing import Any

import numpy as np

from trimgate.data.dataset import Array
from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo

PICTURE_ROWS = 500
_PERPLEXITY = 30.0
_EXTENT = 1000
_LEAST = 8
_QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
_CHANGED = 0.1


def picture_rows(rows: int, seed: int) -> Array:
    """Positions of the at most 500 rows that a picture shows, drawn by the seed, ascending."""
    chosen = np.random.default_rng(seed).permutation(rows)[:PICTURE_ROWS]
    return np.sort(chosen)


def picture(
    matrix: Array, info: ModelInfo, labels: Array, before: Array, after: Array, seed: int
) -> dict[str, Any]:
    """Places rows in the plane by t-SNE, for the notes of a step.

    t-SNE has no formula for a new row: it looks at all rows at once. So it is a picture and
    never a stage of a served model (van der Maaten and Hinton, "Visualizing data using t-SNE",
    JMLR 9, 2008; scikit-learn's implementation, started from the principal components).

    Args:
        matrix: `(rows, columns)` numbers on like scales; at most 500 rows, see `picture_rows`.
        info: The model's record, for the classes.
        labels: `(rows,)`, as in the data set.
        before: Scores of the model before the step, `(rows, classes)` or `(rows,)`.
        after: Those of the model after it.
        seed: Makes it reproducible.

    Returns:
        JSON values: `x` and `y` (0 to 1000), `group` (the position of each row's class in
        `groups`; quarters of the label for regression), and `changed`: 1 where both models give
        another class (or values that differ by more than a tenth of the labels' standard
        deviation). Nothing of the rows themselves.

    Raises:
        NotApplicable: There are fewer than 8 rows.
    """
    from sklearn.manifold import TSNE

    if len(matrix) < _LEAST:
        raise NotApplicable(
            f"a picture needs at least {_LEAST} validation rows, and there are {len(matrix)}",
            key="picture",
            mend="leave it out",
        )
    perplexity = min(_PERPLEXITY, (len(matrix) - 1) / 3)
    # the start from the principal components needs two of them
    wide = matrix if matrix.shape[1] > 1 else np.column_stack([matrix, np.zeros(len(matrix))])
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        np.asarray(wide, dtype=np.float64)
    )
    low = places.min(axis=0)
    spread = float((places.max(axis=0) - low).max()) or 1.0
    places = np.round((places - low) / spread * _EXTENT).astype(np.int64)
    group, groups, changed = _meaning(info, labels, before, after)
    return {
        "method": "t-SNE",
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "group": group.tolist(),
        "groups": list(groups),
        "changed": changed.astype(np.int64).tolist(),
    }


def _meaning(
    info: ModelInfo, labels: Array, before: Array, after: Array
) -> tuple[Array, tuple[str, ...], Array]:
    if info.task == "regression":
        values = labels.astype(np.float64)
        quarters = np.searchsorted(np.quantile(values, [0.25, 0.5, 0.75]), values, side="left")
        gap = np.abs(before.astype(np.float64) - after)
        return quarters, _QUARTERS, gap > _CHANGED * float(values.std())
    positions = {label: position for position, label in enumerate(info.labels)}
    index = np.array([positions[label] for label in labels.tolist()], dtype=np.int64)
    return index, tuple(map(str, info.labels)), before.argmax(axis=1) != after.argmax(axis=1)
