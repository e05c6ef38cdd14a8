"""The last touches to an ONNX graph that an exporter made."""

from typing import Any

import numpy as np

from trimgate.models._inputs import SCORES


def finish(proto: Any, output: str, *, last_column: bool = False) -> Any:
    """Makes `output` the only output, calls it `scores`, and drops what nobody needs.

    Args:
        proto: `onnx.ModelProto`, changed in place.
        output: The output to keep.
        last_column: Keep the last column only: of a binary decision function, which converters
            give as `[-score, score]`.

    Returns:
        The model.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    kept = next(o for o in graph.output if o.name == output)
    kind = kept.type.tensor_type.elem_type
    if last_column:
        graph.initializer.append(
            numpy_helper.from_array(np.array([-1], dtype=np.int64), "trimgate_last")
        )
        graph.node.append(
            helper.make_node("Gather", [output, "trimgate_last"], [SCORES], axis=1, name="scores")
        )
        shape: list[Any] = [None, 1]
    else:
        dims = kept.type.tensor_type.shape.dim
        shape = [None, *(d.dim_value if d.HasField("dim_value") else None for d in dims[1:])]
        rename(graph, output, SCORES)
    if kind == TensorProto.DOUBLE:
        # nobody needs more than float32 of a score
        rename(graph, SCORES, "trimgate_scores64")
        graph.node.append(
            helper.make_node(
                "Cast", ["trimgate_scores64"], [SCORES], to=TensorProto.FLOAT, name="scores32"
            )
        )
        kind = TensorProto.FLOAT
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(SCORES, kind, shape))
    drop_unused(graph)
    for value in graph.input:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "rows"
    graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows"
    del graph.value_info[:]
    proto.doc_string = graph.doc_string = ""
    return proto


def widen_mixed(proto: Any) -> Any:
    """Casts to float64 what a converter lets meet float64 as float32, which no engine takes.

    Args:
        proto: `onnx.ModelProto`, changed in place; its nodes stand in order.

    Returns:
        The model.
    """
    from onnx import TensorProto, defs, helper, shape_inference

    graph = proto.graph
    versions = {entry.domain: int(entry.version) for entry in proto.opset_import}
    types = {value.name: value.type for value in graph.input}
    types |= {t.name: helper.make_tensor_type_proto(t.data_type, t.dims) for t in graph.initializer}
    nodes, wide = [], dict[str, str]()
    for node in graph.node:
        schema = defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
        places: dict[str, list[int]] = {}
        for place in range(len(node.input)):
            formal = schema.inputs[min(place, len(schema.inputs) - 1)]
            places.setdefault(formal.type_str, []).append(place)
        for together in places.values():
            kinds = {p: _kind_of(types.get(node.input[p])) for p in together}
            if not {TensorProto.FLOAT, TensorProto.DOUBLE} <= set(kinds.values()):
                continue
            for place in (p for p, kind in kinds.items() if kind == TensorProto.FLOAT):
                name = node.input[place]
                if name not in wide:
                    wide[name] = f"{name}_wide"
                    cast = helper.make_node(
                        "Cast", [name], [wide[name]], name=wide[name], to=TensorProto.DOUBLE
                    )
                    nodes.append(cast)
                    types[wide[name]] = helper.make_tensor_type_proto(TensorProto.DOUBLE, None)
                node.input[place] = wide[name]
        nodes.append(node)
        known = {name: types[name] for name in node.input if name in types}
        try:
            types |= shape_inference.infer_node_outputs(
                schema, node, known, opset_imports=list(proto.opset_import)
            )
        except (shape_inference.InferenceError, RuntimeError):
            continue  # nothing is said of what such an operator gives
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    for value in graph.output:
        if kind := _kind_of(types.get(value.name)):
            value.type.tensor_type.elem_type = kind
    return proto


def _kind_of(value: Any) -> int:
    """The element type of a tensor; 0 where it is not known."""
    return int(value.tensor_type.elem_type) if value is not None else 0


def rename(graph: Any, old: str, new: str) -> None:
    """Renames a tensor wherever it is made or used."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in graph.output:
        if value.name == old:
            value.name = new


def rename_inputs(proto: Any, names: dict[str, str]) -> Any:
    """Gives the inputs their names; inner tensors of the same name make way.

    Args:
        proto: `onnx.ModelProto`, changed in place.
        names: New names by the old ones; an input that the graph does not use is added to it.

    Returns:
        The model.
    """
    graph = proto.graph
    taken = set(names.values())
    for tensor in graph.initializer:
        if tensor.name in taken:
            rename(graph, tensor.name, f"{tensor.name}_inner")
            tensor.name = f"{tensor.name}_inner"
    for name in {name for node in graph.node for name in node.output} & (taken - {SCORES}):
        rename(graph, name, f"{name}_inner")
    for old, new in names.items():
        rename(graph, old, new)
    for value in graph.input:
        value.name = names[value.name]
    return proto


def drop_unused(graph: Any) -> None:
    """Drops the nodes and initializers that no output needs, back to front."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
            # a subgraph may use tensors from outside
            for attribute in node.attribute:
                for inner in [attribute.g, *attribute.graphs]:
                    needed.update(name for n in inner.node for name in n.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    initializers = [t for t in graph.initializer if t.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
