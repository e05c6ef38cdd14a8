"""INT8 with ONNX Runtime's quantizer.

Unsigned activations with signed weights (U8S8) are what the INT8 instructions of x86 CPUs
multiply; the quantizer's own default is several times slower. Operators that only carry values
along stay in 8 bits between two quantized ones, but none before the first: features of very
different size must not share one scale. What leaves the quantized part stays in float32, because
scores of 8 bits have ties, and a regression would know 256 values only.
"""

import contextlib
import io
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from trimgate.errors import NotApplicable

Array = NDArray[Any]

_STATIC = ("Conv", "MatMul", "Gemm")
_CARRIERS = ("MaxPool", "Relu", "Clip", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
_DYNAMIC = ("MatMul", "Gemm", "Attention", "LSTM")
_WAS = {
    "MatMulInteger": "MatMul",
    "DynamicQuantizeMatMul": "MatMul",
    "MatMulIntegerToFloat": "MatMul",
    "QAttention": "Attention",
    "DynamicQuantizeLSTM": "LSTM",
}
_BATCH = 32
# Scales of single channels came with operator set 13.
_OPSET = 13
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Settings:
    """What both kinds of INT8 have in common (see `QuantizeConfig`)."""

    per_channel: bool
    reduce_range: bool
    exclude: tuple[str, ...]


@dataclass(frozen=True)
class Calibration:
    """Rows to measure ranges on: input tensors by name, and the method."""

    inputs: dict[str, Array]
    method: str
    percentile: float

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.inputs.values())))


def static(
    source: Path, target: Path, scratch: Path, settings: Settings, calibration: Calibration
) -> dict[str, Any]:
    """Quantizes to QDQ form, with ranges measured beforehand.

    Args:
        source: The ONNX file.
        target: The file to write.
        scratch: A private directory: the quantizer leaves files beside its input.
        settings: See `QuantizeConfig`.
        calibration: See `QuantizeConfig`.

    Returns:
        What was done, for the card.

    Raises:
        NotApplicable: There is nothing to quantize.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with _quiet():
        prepared = _prepare(source, scratch, _STATIC, settings.exclude)
        quantized = scratch / "quantized.onnx"
        quantize_static(
            str(prepared),
            str(quantized),
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[*_STATIC, *_CARRIERS],
            nodes_to_exclude=_excluded(prepared, settings.exclude),
            per_channel=settings.per_channel,
            reduce_range=settings.reduce_range,
            calibrate_method={
                "minmax": CalibrationMethod.MinMax,
                "entropy": CalibrationMethod.Entropy,
                "percentile": CalibrationMethod.Percentile,
            }[calibration.method],
            extra_options={
                "ActivationSymmetric": False,
                "WeightSymmetric": True,
                # One batch at a time, else all activations of all rows are in memory together.
                "CalibStridedMinMax": 1,
                "CalibPercentile": calibration.percentile,
            },
        )
        _widen_results(prepared, quantized, target)
    return {
        "scheme": "static-int8",
        "nodes": _count(target),
        "method": calibration.method,
        "calibration_rows": calibration.rows,
        "per_channel": settings.per_channel,
        "reduce_range": settings.reduce_range,
    }


def dynamic(source: Path, target: Path, scratch: Path, settings: Settings) -> dict[str, Any]:
    """Quantizes weights; activations are quantized in every call. Arguments as in `static`."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        prepared = _prepare(source, scratch, _DYNAMIC, settings.exclude)
        quantize_dynamic(
            str(prepared),
            str(target),
            op_types_to_quantize=list(_DYNAMIC),
            nodes_to_exclude=_excluded(prepared, settings.exclude),
            per_channel=settings.per_channel,
            reduce_range=settings.reduce_range,
            weight_type=QuantType.QInt8,
            # For tensors whose type shape inference cannot tell (fused operators).
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    return {
        "scheme": "dynamic-int8",
        "nodes": _count(target),
        "per_channel": settings.per_channel,
        "reduce_range": settings.reduce_range,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantizer's prints and the engine's warnings about its own graphs away.

    Both belong to the whole process, so one thread quantizes at a time.
    """
    import onnxruntime

    with _ONE_AT_A_TIME, contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.set_default_logger_severity(3)
        try:
            yield
        finally:
            onnxruntime.set_default_logger_severity(2)


class _Reader:
    """Gives the calibration rows batch by batch, as ONNX Runtime's calibrators ask for them."""

    def __init__(self, calibration: Calibration) -> None:
        self._inputs = calibration.inputs
        self._batches = -(-calibration.rows // _BATCH)
        self.set_range(0, self._batches)

    def __len__(self) -> int:
        return self._batches

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, Array] | None:
        if self._next >= self._end:
            return None
        rows = slice(self._next * _BATCH, (self._next + 1) * _BATCH)
        self._next += 1
        return {name: values[rows] for name, values in self._inputs.items()}


def _prepare(source: Path, scratch: Path, types: tuple[str, ...], exclude: tuple[str, ...]) -> Path:
    """Cleans the graph and writes the type of every tensor into it."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(source)
    # Exporters' shapes may contradict what shape inference finds later on.
    del model.graph.value_info[:]
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), _OPSET)
    if opset < _OPSET:
        model = onnx.version_converter.convert_version(model, _OPSET)
    _name_nodes(model.graph)
    plain, prepared = scratch / "plain.onnx", scratch / "prepared.onnx"
    onnx.save(model, plain)
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    model = onnx.load(prepared)
    weights = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    if not any(
        node.op_type in types
        and weights.intersection(node.input)
        and not {node.name, node.op_type}.intersection(exclude)
        for node in model.graph.node
    ):
        held = sorted({node.op_type for node in model.graph.node})
        raise NotApplicable(
            f"the graph has nothing to quantize: no {', '.join(types)} with float32 weights, "
            f"only {', '.join(held[:8])}",
            file=source,
        )
    _annotate(model)
    onnx.save(model, prepared)
    return prepared


def _annotate(model: Any) -> None:
    """Declares the type of every tensor.

    The quantizer silently skips what it does not know the type of, and ONNX's own inference
    stops at the operators of ai.onnx.ml that scikit-learn models begin with. ONNX Runtime knows.
    """
    import onnx
    import onnxruntime as ort

    graph = model.graph
    declared = {value.name for value in (*graph.value_info, *graph.output, *graph.input)}
    wanted = [o for node in graph.node for o in node.output if o and o not in declared]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for value in session.get_outputs():
        if value.name in declared or value.type != "tensor(float)":
            continue
        shape = value.shape if value.shape else None
        graph.value_info.append(
            onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape)
        )


def _count(quantized: Path) -> dict[str, int]:
    """Quantized operators by type, as they were called before."""
    import onnx

    graph = onnx.load(quantized, load_external_data=False).graph
    narrow = {o for n in graph.node if n.op_type == "DequantizeLinear" for o in n.output}
    found = Counter(
        _WAS.get(node.op_type, node.op_type)
        for node in graph.node
        if node.op_type in _WAS
        or (node.op_type in _STATIC and len(narrow.intersection(node.input)) > 1)
    )
    if not found:
        raise NotApplicable("the quantizer left every operator as it was")
    return dict(sorted(found.items()))


def _excluded(prepared: Path, exclude: tuple[str, ...]) -> list[str]:
    """Nodes that stay in float32: those left out by name or type, and carriers that come first."""
    import onnx

    quantized: set[str] = set()
    names = []
    for node in onnx.load(prepared, load_external_data=False).graph.node:
        left_out = node.name in exclude or node.op_type in exclude
        if left_out or (node.op_type in _CARRIERS and not quantized.intersection(node.input)):
            names.append(node.name)
        elif node.op_type in (*_STATIC, *_DYNAMIC, *_CARRIERS):
            quantized.update(node.output)
    return names


def _widen_results(prepared: Path, quantized: Path, target: Path) -> None:
    """Drops the rounding to 8 bits of results that no quantized operator reads."""
    import onnx

    before = onnx.load(prepared, load_external_data=False).graph
    clipped = {x for node in before.node if node.op_type in ("Relu", "Clip") for x in node.input}
    # The quantizer folds an activation into the rounding after it, which then has to stay.
    folded = {node.name for node in before.node if clipped.intersection(node.output)}
    model = onnx.load(quantized)
    graph = model.graph
    makers = {out: node for node in graph.node for out in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    dropped = []
    for narrow in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        maker = makers.get(narrow.input[0])
        widened = readers.get(narrow.output[0], [])
        if (
            maker is None
            or maker.op_type not in ("MatMul", "Gemm")  # a convolution would turn to float32
            or maker.name in folded
            or len(readers[narrow.input[0]]) > 1
        ):
            continue
        after = [n for wide in widened for n in readers.get(wide.output[0], [])]
        if any(node.op_type in (*_STATIC, *_CARRIERS) for node in after) or len(widened) != 1:
            continue
        position = list(maker.output).index(narrow.input[0])
        maker.output[position] = widened[0].output[0]
        dropped += [narrow.name, widened[0].name]
    kept = [node for node in graph.node if node.name not in dropped]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]
    onnx.save(model, target)


def _name_nodes(graph: Any) -> None:
    """The quantizer tells nodes apart by name, and some exporters give none."""
    taken = {node.name for node in graph.node}
    for number, node in enumerate(graph.node):
        if not node.name:
            name = f"{node.op_type}_{number}"
            node.name = name if name not in taken else f"{name}_unnamed"
