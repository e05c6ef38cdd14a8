"""Attention of a transformer as one operator.

ONNX Runtime's own fusion knows the graphs of older exporters only. What is looked for here is what
today's torch exporter writes for attention in plain operators (`eager`) and for
`scaled_dot_product_attention`: softmax of scaled products plus biases (masks, positions), times
the values, between the reshapes that part the heads and join them again.
"""

from typing import Any

from numpy.typing import NDArray

MICROSOFT = "com.microsoft"


class _Graph:
    """What makes and what reads each tensor."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper, shape_inference

        graph = model.graph
        self.maker = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.results = {value.name for value in graph.output}
        self._constants = {t.name: t for t in graph.initializer}
        self._values: dict[str, NDArray[Any]] = {}
        self._read = numpy_helper.to_array
        inferred = shape_inference.infer_shapes(model).graph.value_info
        self._dims = {v.name: v.type.tensor_type.shape.dim for v in inferred}

    def made_by(self, name: str, *operators: str) -> Any:
        """The node that makes a tensor if it is one of the operators."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type in operators else None

    def only_reader(self, name: str, operator: str) -> Any:
        """The only node that reads a tensor, if it is that operator."""
        readers = self.readers.get(name, [])
        fits = len(readers) == 1 and readers[0].op_type == operator and name not in self.results
        return readers[0] if fits else None

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of a constant."""
        if name not in self._constants:
            return None
        if name not in self._values:
            self._values[name] = self._read(self._constants[name])
        return self._values[name]

    def scalar(self, name: str) -> float | None:
        """The value of a constant with one element."""
        value = self.constant(name)
        return None if value is None or value.size != 1 else float(value.reshape(-1)[0])

    def last_dim(self, name: str) -> int:
        """The static size of the last axis of a tensor; 0 if it is not known."""
        dims = self._dims.get(name)
        return int(dims[-1].dim_value) if dims else 0


def fuse_attention(model: Any) -> int:
    """Replaces attention by `MultiHeadAttention` of ONNX Runtime, in place.

    Args:
        model: An `onnx.ModelProto`.

    Returns:
        How many were replaced.
    """
    from onnx import helper

    graph = _Graph(model)
    made: dict[str, list[Any]] = {}
    for softmax in [node for node in model.graph.node if node.op_type == "Softmax"]:
        found = _match(graph, softmax)
        if found is None:
            continue
        inputs, biases, heads, scale, last = found
        nodes = []
        for number, bias in enumerate(biases[1:]):
            total = f"{last.output[0]}_bias{number}"
            nodes.append(helper.make_node("Add", [biases[0], bias], [total], name=total))
            biases[0] = total
        tail = ["", "", biases[0]] if biases else []
        attention = helper.make_node(
            "MultiHeadAttention",
            [*inputs, *tail],
            [last.output[0]],
            domain=MICROSOFT,
            name=f"{last.output[0]}_attention",
            num_heads=heads,
            scale=scale,
        )
        made[last.output[0]] = [*nodes, attention]
    if made:
        _replace(model, made)
    return len(made)


def _replace(model: Any, made: dict[str, list[Any]]) -> None:
    from trimgate.models.export._graph import drop_unused

    nodes: list[Any] = []
    for node in model.graph.node:
        nodes += made.get(node.output[0], [node]) if node.output else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused(model.graph)
    declare(model)


def declare(model: Any) -> None:
    """Says in a model that it uses ONNX Runtime's own operators."""
    from onnx import helper

    if MICROSOFT not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


def _match(graph: _Graph, softmax: Any) -> tuple[list[str], list[str], int, float, Any] | None:
    """Query, key and value `(rows, length, width)`, biases, heads, scale, and the last node."""
    axis = next((a.i for a in softmax.attribute if a.name == "axis"), -1)
    weighted = _weighted(graph, softmax.output[0])
    if axis not in (-1, 3) or weighted is None:
        return None
    joined = graph.only_reader(weighted.output[0], "Transpose")
    last = graph.only_reader(joined.output[0], "Reshape") if joined is not None else None
    if last is None or _permutation(joined) != [0, 2, 1, 3]:
        return None
    scores, biases, scale = _scores(graph, softmax.input[0])
    product = graph.made_by(scores, "MatMul")
    if product is None:
        return None
    left, left_scale = _scaled(graph, product.input[0])
    right, right_scale = _scaled(graph, product.input[1])
    query = _heads(graph, left, [0, 2, 1, 3])
    key = _heads(graph, right, [0, 2, 3, 1]) or _heads(graph, _turned(graph, right), [0, 2, 1, 3])
    value = _heads(graph, weighted.input[1], [0, 2, 1, 3])
    if query is None or key is None or value is None or not query[1] == key[1] == value[1]:
        return None
    return (
        [query[0], key[0], value[0]],
        biases,
        query[1],
        scale * left_scale * right_scale,
        last,
    )


def _weighted(graph: _Graph, weights: str) -> Any:
    """The product of the weights and the values, past a guard against rows of NaN."""
    readers = graph.readers.get(weights, [])
    guard = next((node for node in readers if node.op_type == "Where"), None)
    if guard is not None and {node.op_type for node in readers} == {"Where", "IsNaN"}:
        # a row whose every position is masked: nothing asks for its result
        return graph.only_reader(guard.output[0], "MatMul")
    return graph.only_reader(weights, "MatMul")


def _scores(graph: _Graph, name: str) -> tuple[str, list[str], float]:
    """The products before biases were added and before they were scaled."""
    biases: list[str] = []
    while (added := graph.made_by(name, "Add")) is not None:
        inner = [_leads_to_product(graph, part) for part in added.input]
        if inner == [True, False]:
            name, bias = added.input
        elif inner == [False, True]:
            bias, name = added.input
        else:
            break
        biases.insert(0, bias)
    product, scale = _scaled(graph, name)
    return product, biases, scale


def _leads_to_product(graph: _Graph, name: str) -> bool:
    """Whether it is a product of two tensors, scaled or with something added."""
    for _ in range(4):
        node = graph.made_by(name, "Add", "Mul", "Div", "MatMul")
        if node is None:
            return False
        if node.op_type == "MatMul":
            return graph.constant(node.input[1]) is None
        name = node.input[0]
    return False


def _scaled(graph: _Graph, name: str) -> tuple[str, float]:
    """A tensor before it was multiplied by a constant, and that constant."""
    node = graph.made_by(name, "Mul", "Div")
    if node is None:
        return name, 1.0
    factor = graph.scalar(node.input[1])
    if factor is None:
        return name, 1.0
    return node.input[0], factor if node.op_type == "Mul" else 1.0 / factor


def _turned(graph: _Graph, name: str) -> str:
    """A tensor before its last two axes were swapped by way of three dimensions."""
    outer = graph.made_by(name, "Reshape")
    swap = graph.made_by(outer.input[0], "Transpose") if outer is not None else None
    inner = graph.made_by(swap.input[0], "Reshape") if swap is not None else None
    if inner is None or _permutation(swap) != [0, 2, 1]:
        return name
    return str(inner.input[0])


def _heads(graph: _Graph, name: str, permutation: list[int]) -> tuple[str, int] | None:
    """The tensor `(rows, length, width)` before its heads were parted, and their number."""
    turned = graph.made_by(name, "Transpose")
    if turned is None or _permutation(turned) != permutation:
        return None
    parted = graph.made_by(turned.input[0], "Reshape")
    shape = _shape(graph, parted.input[1]) if parted is not None else []
    if len(shape) != 4:
        return None
    heads, width = shape[2], shape[3]
    if heads < 1 and width > 0:
        heads = graph.last_dim(parted.input[0]) // width
    return (str(parted.input[0]), heads) if heads > 0 else None


def _shape(graph: _Graph, name: str) -> list[int]:
    """The sizes that a reshape asks for; -1 where they are not constant."""
    value = graph.constant(name)
    if value is not None:
        return [int(size) for size in value.reshape(-1)]
    parts = graph.made_by(name, "Concat")
    if parts is None:
        return []
    known = [graph.scalar(part) for part in parts.input]
    return [-1 if size is None else int(size) for size in known]


def _permutation(node: Any) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
