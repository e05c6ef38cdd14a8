"""Whether a model and the data fit: features, labels, task."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.models._inputs import MATRIX
from trimgate.models.directory import Task, TensorSpec
from trimgate.models.source import ModelSource


def array_inputs(sample: Dataset, dtype: str) -> tuple[TensorSpec, ...]:
    """One input per array feature; a single one is called `input`."""
    names = list(sample.features)
    return tuple(
        TensorSpec(
            name=MATRIX if len(names) == 1 else name,
            dtype="int64" if values.dtype == np.int64 else dtype,
            shape=(-1, *values.shape[1:]),
            features=(name,),
        )
        for name, values in sample.features.items()
    )


def feature_names(source: ModelSource, columns: Collection[str] = ()) -> list[str] | None:
    """The features that a user's model knows by name, or None where it knows none.

    Args:
        source: The model's file.
        columns: Names in the data; a feature whose name an ONNX exporter wrote otherwise is
            given by its name in the data.

    Raises:
        InvalidInput: The file cannot be read.
    """
    from trimgate.models._load import load_user_model

    suffix = source.path.suffix.lower()
    if suffix in (".safetensors", ".pt", ".pth"):
        return None
    model = load_user_model(source)
    if suffix == ".onnx":
        from trimgate.models._foreign_graph import exported_name, graph_inputs

        written = {exported_name(name): name for name in columns} | {n: n for n in columns}
        names = [tensor.name for tensor in graph_inputs(model.graph)]
        return [written.get(name, name) for name in names] if len(names) > 1 else None
    kind = f"{type(model).__module__.split('.')[0]}.{type(model).__name__}"
    if kind in ("xgboost.Booster", "lightgbm.Booster"):
        return booster_names(model)
    named: Any = getattr(model, "feature_names_in_", None)
    return None if named is None else [str(name) for name in named]


def booster_names(booster: Any) -> list[str] | None:
    """Names that an XGBoost or LightGBM booster was trained with, or None if it numbers them."""
    if hasattr(booster, "feature_name"):
        names, prefix = list(booster.feature_name()), "Column_"
    else:
        names, prefix = list(booster.feature_names or []), "f"
    return None if names == [f"{prefix}{i}" for i in range(len(names))] else names


def match_features(
    sample: Dataset, names: list[str] | None, count: int | None, source: ModelSource
) -> list[str]:
    """The data's features in the model's order.

    Args:
        sample: The data.
        names: The model's own names, if it knows them.
        count: How many features the model takes, if it knows.
        source: For the message.

    Raises:
        InvalidInput: They differ; the message names what is missing and what is too much.
    """
    given = list(sample.features)
    if not sample.is_table:
        columns = sum(int(np.prod(v.shape[1:])) for v in sample.features.values())
        if len(given) > 1 or (count is not None and columns != count):
            raise InvalidInput(
                f"the model takes {count} numbers a row, and the data has {columns}",
                file=source.path,
            )
        return given
    if names is not None:
        names = [str(name) for name in names]
        missing = [name for name in names if name not in sample.features]
        extra = [name for name in given if name not in names]
        if missing or extra:
            words = []
            if missing:
                words.append(f"the data lacks {some(missing)}")
            if extra:
                words.append(f"the model does not know {some(extra)}")
            raise InvalidInput(
                f"model and data have different features: {', and '.join(words)}",
                file=source.path,
                mend="bring every column that the model takes, and name the others under data.drop",
            )
        return names
    if count is not None and count != len(given):
        raise InvalidInput(
            f"model and data have different features: the model takes {count}, and the data has "
            f"{len(given)} ({some(given)})",
            file=source.path,
            mend="name the others under data.drop; the order of the columns is that of training",
        )
    return given


def task_of(sample: Dataset) -> Task:
    """The task that the labels tell of."""
    if sample.labels.dtype.kind == "f":
        return "regression"
    return "binary" if len(sample_labels(sample)) == 2 else "multiclass"


def sample_labels(sample: Dataset) -> tuple[Any, ...]:
    """Sorted unique labels as Python values."""
    return tuple(sorted(set(sample.labels.tolist())))


def labels_of(
    task: Task, count: int, labels: tuple[Any, ...] | None, sample: Dataset, source: ModelSource
) -> tuple[Any, ...]:
    if task == "regression":
        return ()
    if labels:
        return labels
    found = sample_labels(sample)
    if len(found) != count:
        raise InvalidInput(
            f"the model gives {count} classes, and the data has {len(found)}: {some(found)}",
            file=source.path,
            mend="give the label column that the model was trained on",
        )
    return found


def some(values: Iterable[Any]) -> str:
    """The first ten values as text, and how many more there are."""
    listed = [str(value) for value in values]
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} more" if len(listed) > 10 else "")
