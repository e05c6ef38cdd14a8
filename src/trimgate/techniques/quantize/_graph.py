"""The ONNX graph before and after quantization: cleaning, types, layers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.errors import NotApplicable

STATIC = ("Conv", "MatMul", "Gemm")
DYNAMIC = ("MatMul", "Gemm", "Attention", "LSTM")
CARRIERS = ("MaxPool", "Relu", "Clip", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
"""Operators that stay in 8 bits between two quantized ones."""

# Scales of single channels came with operator set 13.
_OPSET = 13
_MOST_BYTES = 2**31 - 1
_FUSED = "com.microsoft"
_WAS = {
    "MatMulInteger": "MatMul",
    "DynamicQuantizeMatMul": "MatMul",
    "MatMulIntegerToFloat": "MatMul",
    "MatMulNBits": "MatMul",
    "QAttention": "Attention",
    "DynamicQuantizeLSTM": "LSTM",
}
_NARROW = {
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "MatMulNBits",
    "QAttention",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
}


@dataclass(frozen=True)
class Prepared:
    """A cleaned graph, ready for a quantizer.

    Attributes:
        path: The ONNX file; every tensor's type is written in it.
        layers: Names of the operators with float32 weights that may be quantized, in order.
        products: Names of the matrix products of two activations, which stay in float32:
            attention gains little from 8 bits and loses most.
    """

    path: Path
    layers: tuple[str, ...]
    products: tuple[str, ...]


def prepare(
    source: Path, scratch: Path, types: Sequence[str], exclude: Sequence[str] = ()
) -> Prepared:
    """Cleans the graph and writes the type of every tensor into it.

    Args:
        source: The ONNX file; its weights may lie outside it.
        scratch: A private directory: the tools leave files beside their input.
        types: Types of operators to quantize.
        exclude: Names of nodes or types of operators that stay as they are.

    Raises:
        NotApplicable: It has no such operator, or weights that are not finite.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = load(source)
    if done := _NARROW.intersection(node.op_type for node in model.graph.node):
        raise NotApplicable(
            f"the graph is quantized already (it has {', '.join(sorted(done))})", file=source
        )
    # Exporters' shapes may contradict what shape inference finds later on.
    del model.graph.value_info[:]
    raise_opset(model, _OPSET)
    _name_nodes(model.graph)
    kinds = _weight_types(model.graph, types)
    plain, prepared = scratch / "plain.onnx", scratch / "prepared.onnx"
    onnx.save(model, plain)
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    model = onnx.load(prepared)
    plain_gemms(model.graph)
    split = split_gemm(model) if "Conv" not in types else {}
    layers, products = _layers(model.graph, types, exclude, split)
    if not layers:
        raise _nothing(model.graph, types, kinds, source)
    _check_finite(model.graph, layers, source)
    _annotate(model)
    onnx.save(model, prepared)
    return Prepared(prepared, layers, products)


def load(source: Path) -> Any:
    """An `onnx.ModelProto` with all its weights.

    Raises:
        NotApplicable: It is larger than one ONNX file may be.
    """
    import onnx

    model = onnx.load(source)
    if model.ByteSize() > _MOST_BYTES:
        raise NotApplicable(
            "the model is larger than 2 GiB, which the quantizers cannot take", file=source
        )
    return model


def raise_opset(model: Any, least: int) -> None:
    """Brings the default operator set to at least a version, in place."""
    import onnx

    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), least)
    if version < least:
        model.CopyFrom(onnx.version_converter.convert_version(model, least))


def plain_gemms(graph: Any) -> None:
    """Makes each Gemm with constant weights `x W + b` with `(n,)` of biases, in place.

    The quantizers stumble over factors, and over biases of another shape.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}

    def put(node: Any, place: int, values: Any) -> None:
        name = f"{node.name}_{'xwb'[place]}"
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        node.input[place] = name

    for node in graph.node:
        said = {a.name: a.i if a.name.startswith("trans") else a.f for a in node.attribute}
        biased = len(node.input) > 2 and node.input[2] != ""
        names = node.input[1 : 3 if biased else 2]
        if node.op_type != "Gemm" or not all(name in constants for name in names):
            continue
        weights, *biases = [numpy_helper.to_array(constants[name]) for name in names]
        if said.get("alpha", 1.0) != 1.0:
            put(node, 1, weights * weights.dtype.type(said["alpha"]))
        width = weights.shape[0 if said.get("transB") else 1]
        if biases and (biases[0].shape != (width,) or said.get("beta", 1.0) != 1.0):
            if biases[0].ndim > 1 and len(biases[0]) > 1:
                continue  # one for each row
            scaled = biases[0] * biases[0].dtype.type(said.get("beta", 1.0))
            put(node, 2, np.broadcast_to(scaled.reshape(-1), (width,)))
        kept = [a for a in node.attribute if a.name not in ("alpha", "beta")]
        del node.attribute[:]
        node.attribute.extend(kept)


def split_gemm(model: Any) -> dict[str, str]:
    """Turns each Gemm to a MatMul and an Add, in place.

    Quantizers of weights know MatMul only, and would do it themselves under names that are
    excluded nowhere.

    Returns:
        The name that each such MatMul had as Gemm.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel

    were = {f"{n.name}_MatMul": n.name for n in model.graph.node if n.op_type == "Gemm"}
    ONNXModel(model).replace_gemm_with_matmul()
    return were


def is_fused(source: Path) -> bool:
    """Whether operators of ONNX Runtime's own stand in it, as fused transformers have them."""
    import onnx

    graph = onnx.load(source, load_external_data=False).graph
    return any(node.domain == _FUSED for node in graph.node)


def stay_in_float(prepared: Prepared, keep: Sequence[str]) -> list[str]:
    """Nodes that the quantizer must leave alone.

    Besides what is asked for and products of two activations these are carriers that come
    first: features of very different size must not share one scale.

    Args:
        prepared: The graph.
        keep: Names of layers that stay in float32.
    """
    import onnx

    quantized: set[str] = set()
    names = []
    layers = set(prepared.layers) - set(keep)
    for node in onnx.load(prepared.path, load_external_data=False).graph.node:
        carries = node.op_type in CARRIERS and quantized.intersection(node.input)
        if carries or node.name in layers:
            quantized.update(node.output)
        else:
            names.append(node.name)
    return names


def widen_results(prepared: Path, quantized: Path, target: Path) -> None:
    """Drops the rounding to 8 bits of results that no quantized operator reads.

    Scores of 8 bits have ties, and a regression would know 256 values only.

    Args:
        prepared: The graph before it was quantized.
        quantized: After.
        target: The file to write.
    """
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
        if any(node.op_type in (*STATIC, *CARRIERS) for node in after) or len(widened) != 1:
            continue
        position = list(maker.output).index(narrow.input[0])
        maker.output[position] = widened[0].output[0]
        dropped += [narrow.name, widened[0].name]
    kept = [node for node in graph.node if node.name not in dropped]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]
    onnx.save(model, target)


def count_quantized(path: Path) -> dict[str, int]:
    """Quantized operators by type, as they were called before.

    Raises:
        NotApplicable: There is none.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    narrow: set[str] = set()
    for node in graph.node:
        # carriers may stand between the rounding and what it is for
        if node.op_type == "DequantizeLinear" or (
            node.op_type in CARRIERS and narrow.intersection(node.input)
        ):
            narrow.update(node.output)
    found = Counter(
        _WAS.get(node.op_type, node.op_type)
        for node in graph.node
        if node.op_type in _WAS
        or (node.op_type in STATIC and len(narrow.intersection(node.input)) > 1)
    )
    if not found:
        raise NotApplicable("the quantizer left every operator as it was")
    return dict(sorted(found.items()))


def _layers(
    graph: Any, types: Sequence[str], exclude: Sequence[str], split: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    import onnx

    weights = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    layers, products = [], []
    for node in graph.node:
        if node.op_type not in types:
            continue
        # the quantizers look for weights in this place only
        if node.input[1] not in weights:
            products.append(node.name)
            continue
        known_as = {node.name, node.op_type}
        if node.name in split:
            known_as |= {split[node.name], "Gemm"}
        if not known_as.intersection(exclude):
            layers.append(node.name)
    return tuple(layers), tuple(products)


def _weight_types(graph: Any, types: Sequence[str]) -> set[str]:
    """Of which types the constant weights of some operators are."""
    from onnx import helper

    kinds = {t.name: t.data_type for t in graph.initializer}
    used = {n.input[1] for n in graph.node if n.op_type in types} & set(kinds)
    return {helper.tensor_dtype_to_np_dtype(kinds[name]).name for name in used}


def _nothing(graph: Any, types: Sequence[str], kinds: set[str], source: Path) -> NotApplicable:
    """Why there is nothing to quantize in a graph whose weights were of those types."""
    if others := sorted(kinds - {"float32"}):
        return NotApplicable(
            f"only float32 weights are quantized, and these are {', '.join(others)}",
            file=source,
            mend="give the float32 model that it was made from",
        )
    held = sorted({node.op_type for node in graph.node})
    return NotApplicable(
        f"the graph has nothing to quantize: no {', '.join(types)} with float32 weights "
        f"that is not excluded, only {', '.join(held[:8])}",
        file=source,
    )


def _check_finite(graph: Any, layers: Sequence[str], source: Path) -> None:
    """A weight that is not a number would make its whole layer zero or nonsense."""
    import onnx

    used = {name for node in graph.node if node.name in layers for name in node.input}
    for tensor in graph.initializer:
        if tensor.name not in used or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        if not np.isfinite(onnx.numpy_helper.to_array(tensor)).all():
            raise NotApplicable(
                f"the weight {tensor.name} holds values that are not finite", file=source
            )


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


def _name_nodes(graph: Any) -> None:
    """The quantizer tells nodes apart by name, and some exporters give none."""
    taken = {node.name for node in graph.node}
    for number, node in enumerate(graph.node):
        if not node.name:
            name = f"{node.op_type}_{number}"
            node.name = name if name not in taken else f"{name}_unnamed"
