"""Export of a trainable model to ONNX, with proof that both say the same."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models._inputs import SCORES, build_inputs, sample_rows
from trimgate.models._native import predict_native
from trimgate.models.directory import ModelInfo, TensorSpec
from trimgate.models.export._parity import (
    Parity,
    Tolerance,
    compare,
    open_session,
    run_onnx,
    run_session,
    scores_of,
)

__all__ = [
    "DEFAULT_OPSET",
    "PARITY_ROWS",
    "Parity",
    "Tolerance",
    "compare",
    "export_onnx",
    "open_session",
    "run_onnx",
    "run_session",
    "scores_of",
]

_log = logging.getLogger("trimgate.models")

DEFAULT_OPSET = 19
PARITY_ROWS = 2000
_DTYPES = {
    "sklearn": ("float32", "float64"),
    "lightgbm": ("float32", "float64"),
    "xgboost": ("float32",),
    "torch": ("float32",),
}


def export_onnx(
    model: Any,
    info: ModelInfo,
    sample: Dataset,
    path: Path,
    *,
    opset: int | None = None,
    tolerance: Tolerance | None = None,
) -> dict[str, Any]:
    """Writes the ONNX form of a trainable model.

    The numeric inputs get the narrowest type with which ONNX Runtime says what the model says on
    the sample: `float32`, else `float64`.

    Args:
        model: What `load_trainable` gave.
        info: Its record.
        sample: Rows to compare on; at most 2,000 of them are used.
        path: The file to write.
        opset: Version of the default ONNX operator set; 19 if None.
        tolerance: How close it must be.

    Returns:
        The fields of `ModelInfo` that change: `inputs`, `outputs`, `score_output`, and
        `notes["optimize_graph"]` with the parity that was seen.

    Raises:
        NotApplicable: A step has no ONNX form, or no type gives the same scores; nothing is left
            at `path`.
    """
    tolerance = tolerance or Tolerance()
    rows = sample_rows(sample, PARITY_ROWS)
    raw = predict_native(model, info, build_inputs(info, rows.features))
    expected = scores_of(raw, info)
    reasons: list[str] = []
    for dtype in _DTYPES[info.framework]:
        typed = info.model_copy(update={"inputs": _typed(info, dtype)})
        try:
            proto = _convert(model, typed, opset or DEFAULT_OPSET)
            path.write_bytes(proto.SerializeToString(deterministic=True))
            changes = _described(typed, proto)
            final = typed.model_copy(update=changes)
            found = run_onnx(path, final, build_inputs(final, rows.features))
        except NotApplicable as error:
            reasons.append(error.problem)
            _log.debug("export with %s inputs: %s", dtype, error)
            continue
        parity = compare(
            expected, scores_of(found, final), tolerance, regression=info.task == "regression"
        )
        if parity.holds(tolerance):
            note = {"parity": parity.as_dict(), "dtype": dtype, "opset": opset or DEFAULT_OPSET}
            return {**changes, "notes": {"optimize_graph": note}}
        reasons.append(
            f"with {dtype} inputs {1 - parity.close:.1%} of the rows get another score (by up to "
            f"{parity.max_difference:.2g}) and {1 - parity.agreement:.1%} another label"
        )
    path.unlink(missing_ok=True)
    raise NotApplicable(
        f"{info.name} cannot be exported to ONNX: {'; '.join(dict.fromkeys(reasons))}"
    )


def _convert(model: Any, info: ModelInfo, opset: int) -> Any:
    if info.framework == "sklearn":
        from trimgate.models.export._sklearn import convert
    elif info.framework == "torch":
        from trimgate.models.export._torch import convert
    else:
        from trimgate.models.export._boosters import convert
    return convert(model, info, opset)


def _typed(info: ModelInfo, dtype: str) -> tuple[TensorSpec, ...]:
    return tuple(
        spec.model_copy(update={"dtype": dtype}) if spec.dtype.startswith("float") else spec
        for spec in info.inputs
    )


def _described(info: ModelInfo, proto: Any) -> dict[str, Any]:
    """What the record says of the graph."""
    from onnx import helper

    scores = proto.graph.output[0]
    kind = scores.type.tensor_type.elem_type
    dims = scores.type.tensor_type.shape.dim
    dtype = "string" if kind == 8 else str(np.dtype(helper.tensor_dtype_to_np_dtype(kind)))
    shape = (-1, *(d.dim_value or -1 for d in dims[1:]))
    return {
        "inputs": info.inputs,
        "outputs": (TensorSpec(name=SCORES, dtype=dtype, shape=shape),),
        "score_output": SCORES,
    }
