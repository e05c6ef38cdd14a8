"""Outliers moved from activations to weights before static quantization.

A few columns of a transformer's hidden states are far larger than all others, which then share
what is left of 8 bits. Dividing each column by a factor, and multiplying the weights that read it
by the same, changes nothing in floats and evens them out (Xiao et al. 2023, arXiv:2211.10438).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.data.dataset import Array
from trimgate.techniques.quantize._calibrate import Calibration
from trimgate.techniques.quantize._graph import Prepared

# Few at a time, because whole activations are looked at.
_BATCH = 8
_USUAL = 0.85


def strength_of(asked: float | None, family: str) -> float:
    """The exponent that is used where none is asked for: none but for transformers."""
    if asked is not None:
        return asked
    return _USUAL if family == "transformer" else 0.0


def smooth(
    prepared: Prepared, scratch: Path, calibration: Calibration, strength: float
) -> Prepared:
    """Evens out the inputs of matrix products.

    Args:
        prepared: The graph.
        scratch: A private directory.
        calibration: Rows to see the activations on.
        strength: From 0 to 1: the exponent of the activations' extremes; the rest goes to those
            of the weights.

    Returns:
        A graph that computes the same, with a multiplication before such products.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(prepared.path)
    graph = model.graph
    weights = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    groups = _groups(graph, prepared, weights)
    largest = _largest(model, list(groups), calibration)
    nodes = list(graph.node)
    for tensor, readers in groups.items():
        tables = [numpy_helper.to_array(weights[node.input[1]]) for node in readers]
        # rows of a weight are what one column of the input is multiplied with
        rows = [w if _rows_first(n) else w.T for n, w in zip(readers, tables, strict=True)]
        heaviest = np.max([np.abs(w).max(axis=1) for w in rows], axis=0)
        factors = _factors(largest[tensor], heaviest, strength)
        even, scale = f"{tensor}.even", f"{tensor}.factors"
        graph.initializer.append(numpy_helper.from_array(1 / factors, scale))
        first = min(nodes.index(node) for node in readers)
        multiply = helper.make_node("Mul", [tensor, scale], [even], name=f"{tensor}.smooth")
        nodes.insert(first, multiply)
        graph.value_info.append(helper.make_tensor_value_info(even, onnx.TensorProto.FLOAT, None))
        for node, table in zip(readers, tables, strict=True):
            scaled = table * (factors[:, None] if _rows_first(node) else factors)
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(scaled, node.input[1]))
            node.input[0] = even
    del graph.node[:]
    graph.node.extend(nodes)
    path = scratch / "smooth.onnx"
    onnx.save(model, path)
    return replace(prepared, path=path)


def _groups(graph: Any, prepared: Prepared, weights: dict[str, Any]) -> dict[str, list[Any]]:
    """Layers by the tensor that they read; those whose weight nothing else reads."""
    read = [name for node in graph.node for name in node.input]
    # OpenVINO 2026.4 computes something else where a factor stands between a mean and a rounding
    means = {out for node in graph.node if node.op_type.startswith("Reduce") for out in node.output}
    groups: dict[str, list[Any]] = {}
    for node in graph.node:
        if node.name not in prepared.layers or node.op_type not in ("MatMul", "Gemm"):
            continue
        weight = weights.get(node.input[1])
        if weight is None or len(weight.dims) != 2 or read.count(node.input[1]) > 1:
            continue
        if node.input[0] in weights or node.input[0] in means or _attribute(node, "transA"):
            continue
        groups.setdefault(node.input[0], []).append(node)
    return groups


def _factors(largest: Array, heaviest: Array, strength: float) -> Array:
    """What each column is divided by; 1 where it, or its weights, are nothing."""
    usable = (largest > 0) & (heaviest > 0)
    safe = np.where(usable, largest, 1) ** strength
    factors = safe / np.where(usable, heaviest, 1) ** (1 - strength)
    return np.where(usable, np.clip(factors, 1e-5, 1e5), 1).astype(np.float32)


def _largest(model: Any, names: list[str], calibration: Calibration) -> dict[str, Array]:
    """The largest absolute value in each column of some tensors."""
    import onnx
    import onnxruntime as ort

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    found: dict[str, Array] = {}
    for batch in calibration.batches(_BATCH):
        for name, values in zip(names, session.run(names, batch), strict=True):
            extreme = np.abs(values.reshape(-1, values.shape[-1])).max(axis=0)
            found[name] = np.maximum(found[name], extreme) if name in found else extreme
    return found


def _rows_first(node: Any) -> bool:
    return not _attribute(node, "transB")


def _attribute(node: Any, name: str) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), 0)
