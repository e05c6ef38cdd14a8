"""Scikit-learn models that look at fewer columns of the same table."""

from collections.abc import Sequence
from typing import Any

from trimgate.errors import NotApplicable
from trimgate.training import ABOUT_COLUMNS, refuse_column_parameters, seeded_clone

STEP = "select_features"
_MEND = "select the features in your own training"


def narrowed(
    model: Any, columns: Sequence[str], kept: Sequence[str], frame: bool, seed: int
) -> Any:
    """An unfitted copy of a model that takes the same table and looks at fewer columns.

    A pipeline that begins with a ColumnTransformer gets shorter lists of columns; before any
    other model stands a new step that passes on the kept columns, in the order of the table.

    Args:
        model: The fitted model.
        columns: All columns of its table, in order.
        kept: Those that it may look at.
        frame: Whether the table is a DataFrame with strings.
        seed: For random states that the user left to chance.

    Raises:
        NotApplicable: A part of the model refers to columns in a way that cannot be mended.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    steps = list(model.steps) if isinstance(model, Pipeline) else [("model", model)]
    clone = seeded_clone(model, seed)
    fresh = list(clone.steps) if isinstance(model, Pipeline) else [("model", clone)]
    keep = [position for position, name in enumerate(columns) if name in set(kept)]
    if isinstance(steps[0][1], ColumnTransformer):
        _check_steps(fresh[1:])
        first = _shorter(steps[0][1], fresh[0][1], keep)
        return Pipeline([(fresh[0][0], first), *fresh[1:]])
    _check_steps(fresh)
    pick = ColumnTransformer(
        [("kept", "passthrough", keep)], remainder="drop", verbose_feature_names_out=False
    )
    if frame:
        pick.set_output(transform="pandas")
    return Pipeline([(STEP, pick), *fresh])


def _shorter(fitted: Any, fresh: Any, keep: Sequence[int]) -> Any:
    """A ColumnTransformer without the columns that are not kept.

    Columns that were chosen by a rule (a type, the remainder) are listed, as the rule may choose
    others once some are gone.
    """
    wanted = set(keep)
    unfitted = {name: transformer for name, transformer, _ in fresh.transformers}
    unfitted["remainder"] = fresh.remainder
    parts = []
    for name, _, listed in fitted.transformers_:
        positions = list(fitted._transformer_to_input_indices[name])
        stay = [place for place, position in enumerate(positions) if position in wanted]
        transformer = unfitted[name]
        if not stay or transformer == "drop":
            continue
        if len(stay) < len(positions):
            transformer = _fewer_categories(transformer, stay, len(positions))
        if isinstance(listed, str):
            chosen: Any = listed
        elif _all_names(listed, len(positions)):
            chosen = [list(listed)[place] for place in stay]
        else:
            chosen = [int(positions[place]) for place in stay]
        parts.append(("rest" if name == "remainder" else name, transformer, chosen))
    if not parts:
        raise NotApplicable("none of the kept features reaches the model")
    return fresh.set_params(transformers=parts, remainder="drop", transformer_weights=(
        {k: v for k, v in fresh.transformer_weights.items() if k in {p[0] for p in parts}}
        if fresh.transformer_weights else None
    ))  # fmt: skip


def _all_names(listed: Any, count: int) -> bool:
    """Whether columns are given one by one as names."""
    if isinstance(listed, slice):
        return False
    items = list(listed)
    return len(items) == count and all(isinstance(item, str) for item in items)


def _fewer_categories(transformer: Any, stay: Sequence[int], count: int) -> Any:
    """Shortens the lists that a transformer has for each of its columns."""
    if isinstance(transformer, str):
        return transformer
    changes: dict[str, Any] = {}
    for name, value in transformer.get_params(deep=True).items():
        own = name.rpartition("__")[2]
        per_column = isinstance(value, (list, tuple)) and len(value) == count
        if own in ("categories", "drop") and per_column:
            changes[name] = [value[place] for place in stay]
        elif own == "transformers" or (own in ABOUT_COLUMNS and value not in ABOUT_COLUMNS[own]):
            raise NotApplicable(
                f"the pipeline's parameter {name} refers to columns by their position",
                mend=_MEND,
            )
    return transformer.set_params(**changes)


def _check_steps(steps: Sequence[tuple[str, Any]]) -> None:
    """Refuses steps whose parameters would mean other columns once some are gone."""
    refuse_column_parameters(steps, _MEND)
    for step, transformer in steps:
        if not hasattr(transformer, "get_params"):
            continue
        for name, value in {"": transformer, **transformer.get_params(deep=True)}.items():
            if type(value).__name__ == "ColumnTransformer":
                raise NotApplicable(
                    f"the ColumnTransformer {'.'.join(filter(None, (step, name)))} is not the "
                    "first step",
                    mend="let the pipeline begin with it",
                )
