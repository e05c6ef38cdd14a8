"""Operators of classic machine learning, as operators of the ONNX standard.

scikit-learn's exporter writes scalers and imputers as operators of the domain `ai.onnx.ml`.
OpenVINO has none of them, and quantization leaves everything that touches them in `float32`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

ML = "ai.onnx.ml"


def rewrite(model: Any) -> dict[str, int]:
    """Replaces scalers, normalizers, imputers and binarizers in place.

    Args:
        model: An `onnx.ModelProto`.

    Returns:
        How many of each operator were replaced, by its type.
    """
    from onnx import TensorProto, shape_inference

    present = {node.op_type for node in model.graph.node if node.domain == ML}
    if not present & set(_WRITERS):
        return {}
    inferred = shape_inference.infer_shapes(model).graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in [*inferred.input, *inferred.value_info, *inferred.output]
    }
    kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    counts: dict[str, int] = {}
    nodes: list[Any] = []
    for node in model.graph.node:
        write = _WRITERS.get(node.op_type) if node.domain == ML else None
        part = _Part(model, node, kinds.get(node.input[0], 0))
        if write is None or not write(part):
            nodes.append(node)
            continue
        nodes += part.nodes
        kinds[node.output[0]] = TensorProto.FLOAT
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return counts


class _Part:
    """The nodes that take the place of one node."""

    def __init__(self, model: Any, node: Any, kind: int) -> None:
        from onnx import helper

        self.node = node
        self.kind = kind
        self.nodes: list[Any] = []
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._graph = model.graph

    def add(self, operator: str, inputs: list[str], output: str | None = None, **more: Any) -> str:
        """Adds a node; gives the name of its output."""
        from onnx import helper

        name = output or f"{self.node.output[0]}_{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **more))
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Adds a constant; gives its name."""
        from onnx import numpy_helper

        name = f"{self.node.output[0]}_constant{len(self._graph.initializer)}"
        tensor = numpy_helper.from_array(np.asarray(values, dtype=dtype), name)
        self._graph.initializer.append(tensor)
        return name

    def floats(self) -> str:
        """The input as `float32`, in which these operators compute and answer."""
        from onnx import TensorProto

        if self.kind == TensorProto.FLOAT:
            return str(self.node.input[0])
        return self.add("Cast", [self.node.input[0]], to=TensorProto.FLOAT)

    def end(self, operator: str, inputs: list[str], **more: Any) -> bool:
        """Adds the node that gives the output."""
        self.add(operator, inputs, self.node.output[0], **more)
        return True


def _scaler(part: _Part) -> bool:
    offset, scale = part.attributes.get("offset"), part.attributes.get("scale")
    centred = part.floats()
    if offset is not None and np.any(np.asarray(offset) != 0):
        centred = part.add("Sub", [centred, part.constant(offset)])
    return part.end("Mul", [centred, part.constant(1.0 if scale is None else scale)])


def _normalizer(part: _Part) -> bool:
    from onnx import TensorProto

    if part.kind != TensorProto.FLOAT:
        return False
    norm, rows = part.attributes.get("norm", b"MAX"), part.floats()
    if norm == b"MAX":
        return False
    terms = part.add("Abs", [rows]) if norm == b"L1" else part.add("Mul", [rows, rows])
    size = part.add("ReduceSum", [terms, part.constant([1], np.int64)], keepdims=1)
    size = size if norm == b"L1" else part.add("Sqrt", [size])
    # a row of zeros stays one
    empty = part.add("Equal", [size, part.constant(0.0)])
    return part.end("Div", [rows, part.add("Where", [empty, part.constant(1.0), size])])


def _imputer(part: _Part) -> bool:
    from onnx import TensorProto

    values = part.attributes.get("imputed_value_floats")
    if values is None or part.kind != TensorProto.FLOAT:
        return False
    rows = part.floats()
    replaced = part.attributes.get("replaced_value_float", 0.0)
    if np.isnan(replaced):
        absent = part.add("IsNaN", [rows])
    else:
        absent = part.add("Equal", [rows, part.constant(replaced)])
    return part.end("Where", [absent, part.constant(values), rows])


def _binarizer(part: _Part) -> bool:
    from onnx import TensorProto

    if part.kind != TensorProto.FLOAT:
        return False
    limit = part.constant(part.attributes.get("threshold", 0.0))
    above = part.add("Greater", [part.floats(), limit])
    return part.end("Cast", [above], to=TensorProto.FLOAT)


_WRITERS: dict[str, Callable[[_Part], bool]] = {
    "Scaler": _scaler,
    "Normalizer": _normalizer,
    "Imputer": _imputer,
    "Binarizer": _binarizer,
}
