"""ONNX graphs as other exporters write them, and rows for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trimgate.data.dataset import Dataset

FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
_rng = np.random.default_rng(0)
_node = helper.make_node

Value = tuple[str, int, Sequence[Any]]


def weights(*shape: int, dtype: Any = np.float32) -> Any:
    """Random, of a size that keeps activations as they are."""
    inputs = np.prod(shape[1:]) if len(shape) > 2 else shape[0]
    return (_rng.normal(0, 1, shape) / np.sqrt(inputs)).astype(dtype)


def graph(
    nodes: Sequence[Any], inputs: Sequence[Value], output: Value, held: Mapping[str, Any],
    *, opset: int = 17, ir: int = 8, as_inputs: bool = False, functions: Sequence[Any] = (),
) -> Any:  # fmt: skip
    """A checked model."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    values = [helper.make_tensor_value_info(*value) for value in inputs]
    if as_inputs:
        values += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    domains = sorted({"", *(node.domain for node in nodes)})
    versions = {"": opset, "ai.onnx.ml": 1}
    model = helper.make_model(
        helper.make_graph(
            list(nodes), "foreign", values, [helper.make_tensor_value_info(*output)], tensors
        ),
        opset_imports=[helper.make_opsetid(d, versions.get(d, 1)) for d in domains],
        ir_version=ir,
        producer_name="foreign",
        functions=list(functions),
    )
    onnx.checker.check_model(model)
    return model


def table(rows: int = 300) -> Dataset:
    """Eight columns of numbers."""
    values = np.random.default_rng(1).normal(size=(rows, 8))
    return Dataset({f"c{i}": values[:, i] for i in range(8)}, _labels(rows, 2))


def images(layout: str = "NCHW", dtype: str = "float32") -> Dataset:
    """Noise of 16 by 16."""
    values = np.random.default_rng(2).normal(size=(200, 3, 16, 16))
    if dtype == "uint8":
        values = np.clip(values * 40 + 128, 0, 255)
    values = values if layout == "NCHW" else values.transpose(0, 2, 3, 1)
    return Dataset({"image": np.ascontiguousarray(values.astype(dtype))}, _labels(200, 3))


def sequences() -> Dataset:
    """Ten steps of four values."""
    values = np.random.default_rng(3).normal(size=(200, 10, 4)).astype(np.float32)
    return Dataset({"steps": values}, _labels(200, 2))


def tokens() -> Dataset:
    """Twelve numbers of words."""
    ids = np.random.default_rng(4).integers(0, 50, (200, 12))
    return Dataset({"ids": ids.astype(np.int64)}, _labels(200, 2))


def images_and_ages() -> Dataset:
    """Two inputs of different kinds."""
    given = images()
    ages = np.random.default_rng(5).normal(size=len(given))
    return Dataset({**given.features, "age": ages}, given.labels)


def _labels(rows: int, classes: int) -> Any:
    return (np.arange(rows) % classes).astype(np.int64)


def mlp(kind: int = FLOAT, dtype: Any = np.float32, **said: Any) -> Any:
    """Three dense layers and a softmax."""
    held = {
        "w1": weights(8, 32, dtype=dtype), "b1": weights(32, dtype=dtype),
        "w2": weights(32, 16, dtype=dtype), "w3": weights(16, 2, dtype=dtype),
    }  # fmt: skip
    nodes = [
        _node("MatMul", ["x", "w1"], ["a"]), _node("Add", ["a", "b1"], ["b"]),
        _node("Relu", ["b"], ["c"]), _node("MatMul", ["c", "w2"], ["d"]),
        _node("Relu", ["d"], ["e"]), _node("MatMul", ["e", "w3"], ["f"]),
        _node("Softmax", ["f"], ["y"], axis=1),
    ]  # fmt: skip
    return graph(nodes, [("x", kind, ["N", 8])], ("y", kind, ["N", 2]), held, **said)


def constants() -> Any:
    """Weights as nodes, as the exporters of TensorFlow write them."""
    model = mlp()
    nodes = [_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    del model.graph.initializer[:]
    nodes += list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def functions() -> Any:
    """Layers as functions of the model's own, as torch and ONNX Script may write them."""
    body = [
        _node("MatMul", ["x", "w"], ["p"]), _node("Add", ["p", "b"], ["s"]),
        _node("Relu", ["s"], ["y"]),
    ]  # fmt: skip
    dense = helper.make_function(
        "acme", "Dense", ["x", "w", "b"], ["y"], body, [helper.make_opsetid("", 17)]
    )
    held = {"w1": weights(8, 32), "b1": weights(32), "w2": weights(32, 2), "b2": weights(2)}
    nodes = [
        _node("Dense", ["x", "w1", "b1"], ["a"], domain="acme"),
        _node("Gemm", ["a", "w2", "b2"], ["y"]),
    ]
    value = [("x", FLOAT, ["N", 8])]
    return graph(nodes, value, ("y", FLOAT, ["N", 2]), held, functions=[dense])


def odd_gemms() -> Any:
    """Factors, transposed weights, and biases of all shapes."""
    held = {"w1": weights(32, 8), "b1": weights(1, 32), "w2": weights(32, 2), "b2": weights(1)}
    nodes = [
        _node("Gemm", ["x", "w1", "b1"], ["a"], transB=1, beta=0.5),
        _node("LeakyRelu", ["a"], ["b"]),
        _node("Gemm", ["b", "w2", "b2"], ["y"], alpha=2.0),
    ]
    return graph(nodes, [("x", FLOAT, ["N", 8])], ("y", FLOAT, ["N", 2]), held, opset=11, ir=6)


def weights_first() -> Any:
    """Products with the weights on the left."""
    nodes = [
        _node("Transpose", ["x"], ["t"], perm=[1, 0]), _node("MatMul", ["w1", "t"], ["a"]),
        _node("Relu", ["a"], ["b"]), _node("MatMul", ["w2", "b"], ["c"]),
        _node("Transpose", ["c"], ["y"], perm=[1, 0]),
    ]  # fmt: skip
    held = {"w1": weights(32, 8), "w2": weights(2, 32)}
    return graph(nodes, [("x", FLOAT, ["N", 8])], ("y", FLOAT, ["N", 2]), held)


def trees_as_products() -> Any:
    """Decision trees as matrix products, as Hummingbird writes them."""
    trees, inner, leaves = 4, 7, 8
    columns = np.zeros((8, trees * inner), np.float32)
    columns[_rng.integers(0, 8, trees * inner), np.arange(trees * inner)] = 1
    paths = np.zeros((trees * inner, trees * leaves), np.float32)
    lefts = np.zeros(trees * leaves, np.float32)
    for tree in range(trees):
        for leaf in range(leaves):
            node, place = 0, tree * leaves + leaf
            for level in (2, 1, 0):
                right = leaf >> level & 1
                paths[tree * inner + node, place] = -1 if right else 1
                lefts[place] += 1 - right
                node = 2 * node + 1 + right
    nodes = [
        _node("MatMul", ["x", "columns"], ["a"]), _node("Less", ["a", "thresholds"], ["b"]),
        _node("Cast", ["b"], ["c"], to=FLOAT), _node("MatMul", ["c", "paths"], ["d"]),
        _node("Equal", ["d", "lefts"], ["e"]), _node("Cast", ["e"], ["f"], to=FLOAT),
        _node("MatMul", ["f", "values"], ["y"]),
    ]  # fmt: skip
    held = {
        "columns": columns, "thresholds": weights(trees * inner) * np.float32(2), "paths": paths,
        "lefts": lefts, "values": weights(trees * leaves, 2),
    }  # fmt: skip
    return graph(nodes, [("x", FLOAT, ["N", 8])], ("y", FLOAT, ["N", 2]), held, opset=13)


def tree_ensemble() -> Any:
    """Trees as an operator."""
    said = {
        "nodes_treeids": [0, 0, 0, 1, 1, 1], "nodes_nodeids": [0, 1, 2, 0, 1, 2],
        "nodes_featureids": [0, 0, 0, 1, 0, 0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
        "nodes_values": [0.1, 0.0, 0.0, -0.2, 0.0, 0.0], "nodes_truenodeids": [1, 0, 0, 1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0, 2, 0, 0], "class_treeids": [0, 0, 1, 1],
        "class_nodeids": [1, 2, 1, 2], "class_ids": [0, 0, 0, 0],
        "class_weights": [-1.0, 1.0, 0.5, -0.5], "classlabels_int64s": [0, 1],
        "post_transform": "LOGISTIC", "base_values": [0.1],
    }  # fmt: skip
    node = _node("TreeEnsembleClassifier", ["x"], ["label", "y"], domain="ai.onnx.ml", **said)
    return graph([node], [("x", FLOAT, ["N", 8])], ("y", FLOAT, ["N", 2]), {})


def columns() -> Any:
    """One input for each column."""
    names = [f"c{i}" for i in range(8)]
    nodes = [
        _node("Concat", names, ["x"], axis=1), _node("Gemm", ["x", "w1"], ["a"]),
        _node("Relu", ["a"], ["b"]), _node("Gemm", ["b", "w2"], ["s"]),
        _node("Sigmoid", ["s"], ["y"]),
    ]  # fmt: skip
    held = {"w1": weights(8, 32), "w2": weights(32, 1)}
    values: list[Value] = [(name, FLOAT, ["N", 1]) for name in names]
    return graph(nodes, values, ("y", FLOAT, ["N", 1]), held, opset=12)


def cnn(
    *, rows: Any = "N", layout: str = "NCHW", flat: Sequence[int] = (), given: int = FLOAT,
    dtype: Any = np.float32, old: bool = False, **said: Any,
) -> Any:  # fmt: skip
    """Convolutions, one of them by channel with a shortcut, and a dense layer."""
    wide = {np.float16: HALF}.get(dtype, FLOAT)
    held = {
        "k1": weights(8, 3, 3, 3, dtype=dtype), "k2": weights(16, 8, 3, 3, dtype=dtype),
        "k3": weights(16, 1, 3, 3, dtype=dtype), "w": weights(256, 3, dtype=dtype),
        "bias": weights(3, dtype=dtype),
    }  # fmt: skip
    nodes, x = [], "image"
    if given != wide:
        nodes.append(_node("Cast", [x], ["wide"], to=wide))
        x = "wide"
    if layout == "NHWC":
        nodes.append(_node("Transpose", [x], ["turned"], perm=[0, 3, 1, 2], name="conv/turn:0"))
        x = "turned"
    nodes += [
        _node("Conv", [x, "k1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        _node("Relu", ["a"], ["b"]),
        _node("Conv", ["b", "k2"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        _node("Clip", ["c"], ["d"], min=0.0, max=6.0) if old else _node("Relu", ["c"], ["d"]),
        _node("Conv", ["d", "k3"], ["e"], pads=[1, 1, 1, 1], group=16),
        _node("Add", ["e", "d"], ["f"]),
    ]
    if flat:
        held["shape"] = np.array(flat, np.int64)
        nodes.append(_node("Reshape", ["f", "shape"], ["g"]))
    else:
        nodes.append(_node("Flatten", ["f"], ["g"], axis=1))
    nodes.append(_node("Gemm", ["g", "w", "bias"], ["y"]))
    shape = [rows, 3, 16, 16] if layout == "NCHW" else [rows, 16, 16, 3]
    return graph(nodes, [("image", given, shape)], ("y", wide, [rows, 3]), held, **said)


def two_inputs() -> Any:
    """An image and a number."""
    nodes = [
        _node("Flatten", ["image"], ["a"]), _node("MatMul", ["a", "w1"], ["b"]),
        _node("MatMul", ["age", "w2"], ["c"]), _node("Add", ["b", "c"], ["d"]),
        _node("Relu", ["d"], ["e"]), _node("Gemm", ["e", "w3"], ["y"]),
    ]  # fmt: skip
    held = {"w1": weights(768, 16), "w2": weights(1, 16), "w3": weights(16, 3)}
    values: list[Value] = [("image", FLOAT, ["N", 3, 16, 16]), ("age", FLOAT, ["N", 1])]
    return graph(nodes, values, ("y", FLOAT, ["N", 3]), held)


def lstm() -> Any:
    """A recurrent network."""
    nodes = [
        _node("Transpose", ["steps"], ["a"], perm=[1, 0, 2]),
        _node("LSTM", ["a", "w", "r"], ["", "h"], hidden_size=16),
        _node("Squeeze", ["h", "axis"], ["b"]),
        _node("Gemm", ["b", "w2"], ["y"]),
    ]
    held = {
        "w": weights(1, 64, 4), "r": weights(1, 64, 16), "axis": np.array([0], np.int64),
        "w2": weights(16, 2),
    }  # fmt: skip
    return graph(nodes, [("steps", FLOAT, ["N", 10, 4])], ("y", FLOAT, ["N", 2]), held)


def transformer(opset: int = 11) -> Any:
    """Two layers, the normalization in its parts, as exporters wrote it up to opset 16."""
    width, heads = 32, 2
    held = {
        "words": weights(50, width), "two": np.float32(2), "tiny": np.float32(1e-5),
        "root": np.float32(4), "part": np.array([0, 0, heads, width // heads], np.int64),
        "join": np.array([0, 0, width], np.int64), "head": weights(width, 2),
    }  # fmt: skip
    nodes, x = [_node("Gather", ["words", "ids"], ["x"])], "x"
    for layer in range(2):

        def add(operator: str, inputs: Sequence[str], name: str, **said: Any) -> str:
            nodes.append(_node(operator, list(inputs), [f"{layer}.{name}"], **said))  # noqa: B023
            return f"{layer}.{name}"  # noqa: B023

        def hold(name: str, value: Any) -> str:
            held[f"{layer}.{name}"] = value  # noqa: B023
            return f"{layer}.{name}"  # noqa: B023

        turned = []
        for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            made = add("MatMul", [x, hold(f"w{name}", weights(width, width))], f"{name}1")
            made = add("Add", [made, hold(f"b{name}", weights(width))], f"{name}2")
            made = add("Reshape", [made, "part"], f"{name}3")
            turned.append(add("Transpose", [made], f"{name}4", perm=order))
        scaled = add("Div", [add("MatMul", turned[:2], "products"), "root"], "scaled")
        seen = add("MatMul", [add("Softmax", [scaled], "looks", axis=3), turned[2]], "seen")
        joined = add("Reshape", [add("Transpose", [seen], "turn", perm=[0, 2, 1, 3]), "join"], "j")
        total = add(
            "Add", [add("MatMul", [joined, hold("wo", weights(width, width))], "o"), x], "s"
        )
        centred = add("Sub", [total, add("ReduceMean", [total], "mean", axes=[-1])], "centred")
        square = add("ReduceMean", [add("Pow", [centred, "two"], "pow")], "square", axes=[-1])
        size = add("Sqrt", [add("Add", [square, "tiny"], "safe")], "size")
        normal = add("Mul", [add("Div", [centred, size], "normal"),
                             hold("gamma", np.ones(width, np.float32))], "times")  # fmt: skip
        normal = add("Add", [normal, hold("beta", np.zeros(width, np.float32))], "plus")
        up = add("Relu", [add("MatMul", [normal, hold("up", weights(width, 64))], "u")], "r")
        x = add("Add", [add("MatMul", [up, hold("down", weights(64, width))], "d"), normal], "out")
    nodes += [
        _node("ReduceMean", [x], ["pooled"], axes=[1], keepdims=0),
        _node("MatMul", ["pooled", "head"], ["y"]),
    ]
    value = [("ids", TensorProto.INT64, ["N", "L"])]
    return graph(nodes, value, ("y", FLOAT, ["N", 2]), held, opset=opset, ir=6)


def quantized() -> Any:
    """A dense layer in QDQ form."""
    held = {
        "w": _rng.integers(-127, 127, (8, 2)).astype(np.int8), "ws": np.float32(0.01),
        "xs": np.float32(0.03), "wz": np.int8(0), "xz": np.uint8(128),
    }  # fmt: skip
    nodes = [
        _node("QuantizeLinear", ["x", "xs", "xz"], ["a"]),
        _node("DequantizeLinear", ["a", "xs", "xz"], ["b"]),
        _node("DequantizeLinear", ["w", "ws", "wz"], ["c"]),
        _node("MatMul", ["b", "c"], ["y"]),
    ]
    return graph(nodes, [("x", FLOAT, ["N", 8])], ("y", FLOAT, ["N", 2]), held)


# By name: the model, and the rows.
GRAPHS: dict[str, tuple[Callable[[], Any], Callable[[], Dataset]]] = {
    "MLP": (mlp, table),
    "MLP, opset 9": (lambda: mlp(opset=9, ir=4), table),
    "MLP, weights as Constant nodes": (constants, table),
    "MLP, layers as model functions": (functions, table),
    "MLP, float64": (lambda: mlp(DOUBLE, np.float64), table),
    "MLP, float16": (lambda: mlp(HALF, np.float16), table),
    "MLP, Gemm with alpha, beta, odd biases": (odd_gemms, table),
    "MLP, weights on the left": (weights_first, table),
    "MLP, one input per column": (columns, table),
    "trees as matrix products": (trees_as_products, table),
    "TreeEnsembleClassifier": (tree_ensemble, table),
    "CNN": (cnn, images),
    "CNN, opset 22": (lambda: cnn(opset=22, ir=10), images),
    "CNN, opset 9, initializers as inputs": (
        lambda: cnn(opset=9, ir=3, as_inputs=True, old=True), images
    ),
    "CNN, NHWC": (lambda: cnn(layout="NHWC"), lambda: images("NHWC")),
    "CNN, batch fixed to 1": (lambda: cnn(rows=1, flat=(1, -1)), images),
    "CNN, batch fixed to 8": (lambda: cnn(rows=8, flat=(8, 256)), images),
    "CNN, uint8 pixels": (lambda: cnn(given=TensorProto.UINT8), lambda: images(dtype="uint8")),
    "CNN, float16": (lambda: cnn(given=HALF, dtype=np.float16), images),
    "image and number": (two_inputs, images_and_ages),
    "LSTM": (lstm, sequences),
    "transformer, opset 11": (transformer, tokens),
    "quantized already (QDQ)": (quantized, table),
}  # fmt: skip
