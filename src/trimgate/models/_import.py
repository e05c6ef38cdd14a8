"""From a user's model file to the baseline model directory."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput, TrimgateError
from trimgate.models import directory
from trimgate.models._describe import describe
from trimgate.models._inputs import build_inputs, sample_rows
from trimgate.models._load import load_user_model
from trimgate.models._native import predict_native
from trimgate.models._published import import_published, is_published
from trimgate.models._trainable import save_trainable
from trimgate.models.directory import ModelInfo, TensorSpec
from trimgate.models.scores import to_scores
from trimgate.models.source import ModelSource

_log = logging.getLogger("trimgate.models")

Array = NDArray[Any]
Predict = Callable[[Mapping[str, Array]], Array]

_SANITY_ROWS = 200


def import_model(source: ModelSource, sample: Dataset, out: str | Path) -> ModelInfo:
    """Makes the baseline model directory from a user's model file.

    The trainable form is saved again without pickle; a foreign ONNX file becomes the only form.

    Args:
        source: The file and what the user says about it.
        sample: Rows that the model shall work on; their labels must be known to it.
        out: Where the directory shall stand.

    Returns:
        The record that was written.

    Raises:
        InvalidInput: The file cannot be read, does not fit the data, or gives scores that are
            not finite. Nothing is left at `out`.
    """
    if is_published(source.path):
        return import_published(source, sample, Path(out))
    model = load_user_model(source)
    if len(sample) == 0:
        raise InvalidInput("the sample has no rows", file=source.path)
    if source.path.suffix.lower() == ".onnx" and source.path.is_file():
        from trimgate.models._foreign import import_onnx

        return import_onnx(model, source, sample, Path(out))
    model, info = describe(model, source, sample)
    rows = sample_rows(sample, _SANITY_ROWS)

    def predict(inputs: Mapping[str, Array]) -> Array:
        return predict_native(model, info, inputs)

    info = info.model_copy(update={"inputs": probe(info, rows, predict)})
    raw = run_checked(info, rows, predict, source)
    if info.framework == "torch" and info.tokenizer is None:
        from trimgate.models._torch import refine

        info = refine(model, info, raw, source)
    check_scores(raw, info, source)
    with directory.writing(out) as partial:
        save_trainable(model, partial, info)
        written = directory.seal(partial, info)
    _log.info("imported %s as %s", source.path, written.digest)
    return written


def run_checked(info: ModelInfo, rows: Dataset, predict: Predict, source: ModelSource) -> Array:
    """Predicts the sample; what the model says against it becomes one clear line."""
    inputs = build_inputs(info, rows.features)
    try:
        return predict(inputs)
    except TrimgateError:
        raise
    # whatever a user's model raises
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InvalidInput(
            f"the model fails on the data ({lines[0][:300]})",
            file=source.path,
            mend="check that the columns have the types that the model was trained on",
        ) from error


def check_scores(raw: Array, info: ModelInfo, source: ModelSource) -> None:
    """Refuses scores that are not finite or do not fit the labels."""
    if info.score_kind != "label":
        scores = to_scores(raw, info)
        if not np.isfinite(scores).all():
            raise InvalidInput("the model gives NaN or infinite scores", file=source.path)
        if info.task != "regression" and scores.shape[1] != len(info.labels):
            raise InvalidInput(
                f"the model gives {scores.shape[1]} scores a row, and the data has "
                f"{len(info.labels)} classes",
                file=source.path,
                mend="give the label column that the model was trained on",
            )
        if info.task == "regression" and raw.size != len(raw):
            raise InvalidInput("the model predicts several values at once", file=source.path)


def probe(info: ModelInfo, rows: Dataset, predict: Predict) -> tuple[TensorSpec, ...]:
    """Finds out which features may be NaN or infinite, by trying it on one row.

    Returns:
        The inputs with `no_nan` and `no_inf` filled in.
    """
    inputs = build_inputs(info, rows.take(slice(0, 1)).features)
    places = [
        (spec.name, column, feature)
        for spec in info.inputs
        if spec.dtype.startswith("float")
        for column, feature in enumerate(spec.features)
    ]

    def takes(block: list[tuple[str, int, str]], value: float) -> bool:
        changed = {name: tensor.copy() for name, tensor in inputs.items()}
        for name, column, _ in block:
            flat = changed[name].reshape(1, -1)
            flat[0, column] = value
        try:
            # what the model warns of on such a row is no news
            with np.errstate(all="ignore"):
                raw = predict(changed)
        # any failure says no
        except Exception:
            return False
        return raw.dtype.kind != "f" or bool(np.isfinite(raw).all())

    def refused(block: list[tuple[str, int, str]], value: float) -> set[tuple[str, str]]:
        if not block or takes(block, value):
            return set()
        if len(block) == 1:
            return {(block[0][0], block[0][2])}
        half = len(block) // 2
        return refused(block[:half], value) | refused(block[half:], value)

    no_nan, no_inf = refused(places, float("nan")), refused(places, float("inf"))
    return tuple(
        spec.model_copy(
            update={
                "no_nan": tuple(f for f in spec.features if (spec.name, f) in no_nan),
                "no_inf": tuple(f for f in spec.features if (spec.name, f) in no_inf),
            }
        )
        for spec in info.inputs
    )
