"""Reads and mends the graph of a foreign ONNX model."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.models._inputs import MISSING_TEXT
from trimgate.models.directory import Family, TensorSpec
from trimgate.models.source import ModelSource

_PASSING = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}
_STRING = 8
_FLOATS = {1, 10, 11}
# From this version of the format on initializers need not be inputs too.
_APART = 4
# So many operators may stand between a softmax and the products before and after it.
_NEAR = 5


def graph_inputs(graph: Any) -> list[Any]:
    """Inputs that are not initializers."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def match_inputs(graph: Any, sample: Dataset, file: Path) -> tuple[TensorSpec, ...]:
    """Finds out which features each input is made of.

    One input takes all numeric features as a matrix, or the only array feature; several inputs
    take one feature each, by name.

    Raises:
        InvalidInput: Inputs and features do not fit; the message names what lacks.
    """
    values = graph_inputs(graph)
    names = list(sample.features)
    if len(values) == 1 and len(names) > 0:
        only = values[0]
        if not sample.is_table:
            if len(names) > 1:
                raise InvalidInput(
                    f"the model takes one array, and the data has {', '.join(names)}", file=file
                )
            return (_array_spec(only, names[0], sample.features[names[0]], file),)
        if len(names) > 1 or _rank(only) == 2:
            return (_matrix_spec(only, sample, file),)
    return tuple(
        _column_spec(value, feature, sample, file) for value, feature in _pair(values, names, file)
    )


def exported_name(name: str) -> str:
    """A column's name as exporters write it: other signs than letters and digits as underscores."""
    return re.sub(r"[^\w+]", "_", name)


def _pair(values: list[Any], names: list[str], file: Path) -> list[tuple[Any, str]]:
    written = {exported_name(name): name for name in names}
    pairs = []
    for value in values:
        feature = value.name if value.name in names else written.get(value.name)
        pairs.append((value, feature))
    missing = [value.name for value, feature in pairs if feature is None]
    used = {feature for _, feature in pairs}
    extra = [name for name in names if name not in used]
    if missing or extra:
        words = []
        if missing:
            words.append(f"the data lacks {', '.join(missing[:10])}")
        if extra:
            words.append(f"the model does not know {', '.join(extra[:10])}")
        raise InvalidInput(
            f"model and data have different features: {', and '.join(words)}", file=file
        )
    return [(value, feature) for value, feature in pairs if feature is not None]


def _rank(value: Any) -> int:
    return len(value.type.tensor_type.shape.dim)


def _dtype(value: Any) -> str:
    from onnx import helper

    kind = value.type.tensor_type.elem_type
    return "string" if kind == _STRING else str(np.dtype(helper.tensor_dtype_to_np_dtype(kind)))


def _shape(value: Any) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    return (-1, *(d.dim_value if d.dim_value > 0 else -1 for d in dims[1:]))


def _array_spec(value: Any, name: str, array: Any, file: Path) -> TensorSpec:
    shape = _shape(value)
    given = array.shape[1:]
    fits = len(given) == len(shape) - 1 and all(
        d in (-1, g) for d, g in zip(shape[1:], given, strict=True)
    )
    if not fits:
        raise InvalidInput(
            f"the model takes rows of shape {shape[1:]}, and the data has {given}",
            file=file,
            key=value.name,
        )
    return TensorSpec(name=value.name, dtype=_dtype(value), shape=shape, features=(name,))


def _matrix_spec(value: Any, sample: Dataset, file: Path) -> TensorSpec:
    names, shape, dtype = tuple(sample.features), _shape(value), _dtype(value)
    if len(shape) != 2:
        raise InvalidInput(
            f"the model takes rows of shape {shape[1:]}, and the data is a table of "
            f"{len(names)} columns",
            file=file,
            key=value.name,
        )
    if shape[1] not in (-1, len(names)):
        raise InvalidInput(
            f"model and data have different features: the model takes {shape[1]} columns, and the "
            f"data has {len(names)} ({', '.join(names[:10])})",
            file=file,
            key=value.name,
        )
    text = [name for name in names if sample.features[name].dtype == object]
    wrong = [n for n in names if n not in text] if dtype == "string" else text
    if wrong:
        kind = "text" if dtype == "string" else "numbers"
        raise InvalidInput(
            f"the model takes {kind} only, and these columns are not: {', '.join(wrong[:10])}",
            file=file,
            key=value.name,
        )
    missing = MISSING_TEXT if dtype == "string" else None
    return TensorSpec(
        name=value.name, dtype=dtype, shape=(-1, len(names)), features=names, missing=missing
    )


def _column_spec(value: Any, feature: str, sample: Dataset, file: Path) -> TensorSpec:
    column, dtype, shape = sample.features[feature], _dtype(value), _shape(value)
    if column.ndim > 1:
        return _array_spec(value, feature, column, file)
    if len(shape) != 2 or shape[1] not in (-1, 1):
        raise InvalidInput(
            f"the model takes rows of shape {shape[1:]}, and the data has one value a row",
            file=file,
            key=value.name,
            mend="export it with inputs of shape (rows, 1)",
        )
    if (dtype == "string") != (column.dtype == object):
        raise InvalidInput(
            f"the model takes {'text' if dtype == 'string' else 'numbers'}, and the data has "
            f"{'text' if column.dtype == object else 'numbers'}",
            file=file,
            key=feature,
        )
    return TensorSpec(
        name=value.name,
        dtype=dtype,
        shape=(-1, 1),
        features=(feature,),
        missing=MISSING_TEXT if dtype == "string" else None,
    )


def find_scores(proto: Any, source: ModelSource, classes: int) -> tuple[str, str]:
    """Finds the output that holds the scores, and makes it the only one.

    ZipMaps are cut off. A float output comes before one of labels; of several float ones the
    one that has a column per class.

    Returns:
        Its name, and the type of the node that ends it.

    Raises:
        InvalidInput: There is no such output, or several.
    """
    graph = proto.graph
    _cut_zipmaps(graph)
    outputs = [o for o in graph.output if o.type.HasField("tensor_type")]
    names = [o.name for o in outputs]
    if source.score_output is not None:
        if source.score_output not in names:
            raise InvalidInput(
                "is no output of the model",
                file=source.path,
                key="model.score_output",
                value=source.score_output,
                mend=f"it has {', '.join(names)}",
            )
        chosen = [o for o in outputs if o.name == source.score_output]
    else:
        floats = [o for o in outputs if o.type.tensor_type.elem_type in _FLOATS]
        chosen = floats or outputs
        if len(chosen) > 1:
            chosen = [o for o in chosen if _rank(o) == 2 and _shape(o)[1] == classes]
        if len(chosen) != 1:
            raise InvalidInput(
                f"it is not clear which output holds the scores: {', '.join(names) or 'none'}",
                file=source.path,
                key="model.score_output",
                mend="name it",
            )
    from trimgate.models.export._graph import drop_unused

    kept = chosen[0]
    del graph.output[:]
    graph.output.append(kept)
    operator = last_operator(graph, kept.name)
    drop_unused(graph)
    return str(kept.name), operator


def _cut_zipmaps(graph: Any) -> None:
    from onnx import TensorProto, helper

    for node in [n for n in graph.node if n.op_type == "ZipMap"]:
        keys = {a.name: a for a in node.attribute}
        count = len(keys["classlabels_strings"].strings) if "classlabels_strings" in keys else 0
        if "classlabels_int64s" in keys:
            count = max(count, len(keys["classlabels_int64s"].ints))
        kept = [o for o in graph.output if o.name != node.output[0]]
        value = helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, ["rows", count])
        del graph.output[:]
        graph.output.extend(kept)
        if node.input[0] not in {o.name for o in kept}:
            graph.output.append(value)
        graph.node.remove(node)


def last_operator(graph: Any, output: str) -> str:
    """Type of the node that makes a tensor, seen through those that only reshape it."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in _PASSING and node.input[0] in makers:
        node = makers[node.input[0]]
    return str(node.op_type) if node is not None else ""


def class_labels(graph: Any) -> tuple[Any, ...]:
    """Class labels that the graph itself knows: of a ZipMap first, else of a classifier."""
    for zipmap in (True, False):
        for node in graph.node:
            if (node.op_type == "ZipMap") != zipmap:
                continue
            for attribute in node.attribute:
                if attribute.name == "classlabels_strings" and attribute.strings:
                    return tuple(s.decode() for s in attribute.strings)
                if attribute.name in ("classlabels_int64s", "classlabels_ints") and attribute.ints:
                    return tuple(attribute.ints)
    return ()


def _attends(graph: Any) -> bool:
    """Whether a softmax of products of two activations weighs a third one, as attention does."""
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = {tensor.name for tensor in graph.initializer}

    def multiplies(node: Any) -> bool:
        return node.op_type in ("MatMul", "Einsum") and not constants & set(node.input)

    def before(name: str) -> bool:
        for _ in range(_NEAR):
            node = makers.get(name)
            if node is None or multiplies(node):
                return node is not None
            inner = [part for part in node.input if part in makers]
            # a mask may stand first or second
            name = next((p for p in inner if multiplies(makers[p])), inner[0] if inner else "")
        return False

    def after(name: str) -> bool:
        for _ in range(_NEAR):
            users = readers.get(name, [])
            if any(map(multiplies, users)):
                return True
            if not users:
                return False
            name = users[-1].output[0]
        return False

    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    return any(before(node.input[0]) and after(node.output[0]) for node in softmaxes)


def free_batch(proto: Any) -> int | None:
    """Makes the batch dimension of inputs and outputs dynamic.

    Returns:
        The fixed number of rows that was there, if any.
    """
    fixed = None
    for value in [*graph_inputs(proto.graph), *proto.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if dims:
            if dims[0].dim_value > 0:
                fixed = dims[0].dim_value
            dims[0].dim_param = "rows"
    del proto.graph.value_info[:]
    if fixed is not None:
        _free_reshapes(proto.graph, fixed)
    return fixed


def _free_reshapes(graph: Any, fixed: int) -> None:
    """Where a shape begins with the fixed number of rows, lets it follow the input instead.

    Whether that is what was meant, the caller sees by running the model.
    """
    from onnx import numpy_helper

    shapes = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        tensor = shapes.get(node.input[1]) if node.op_type == "Reshape" else None
        if tensor is None:
            continue
        shape = np.array(numpy_helper.to_array(tensor))
        if shape.size > 1 and shape[0] == fixed:
            shape[0] = 0 if -1 in shape else -1
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


def settle(proto: Any) -> None:
    """Writes in one way what exporters write in several, in place; what it computes stays.

    Functions of a model's own are written out, constants become initializers, and initializers
    are no inputs (in old files a caller could overwrite them).
    """
    from onnx import inliner

    if proto.functions:
        proto.CopyFrom(inliner.inline_local_functions(proto))
    graph = proto.graph
    kept = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and node.domain == "" and value is not None:
            graph.initializer.add().CopyFrom(value)
            graph.initializer[-1].name = node.output[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    inputs = graph_inputs(graph)
    del graph.input[:]
    graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, _APART)


def family_of(graph: Any) -> Family:
    """Family by the operators."""
    kinds = {node.op_type for node in graph.node}
    if any(kind.startswith("TreeEnsemble") for kind in kinds):
        return "trees"
    if kinds & {"Attention", "MultiHeadAttention"} or _attends(graph):
        return "transformer"
    if any("Conv" in kind for kind in kinds):
        return "cnn"
    if kinds & {"LSTM", "GRU", "RNN", "Loop", "Scan"}:
        return "other"
    if kinds & {"LinearClassifier", "LinearRegressor"}:
        return "linear"
    products = sum(node.op_type in ("Gemm", "MatMul") for node in graph.node)
    if products:
        return "linear" if products == 1 else "mlp"
    return "other"
