"""Weights of 16 bits.

On a CPU the weights are stored in 16 bits and widened once when the model is loaded; inputs,
outputs and all arithmetic of the graph stay `float32` (an engine that computes in bfloat16 does
so by its own precision). On a GPU the whole graph computes in float16.
"""

from pathlib import Path
from typing import Any

import numpy as np

from trimgate.errors import NotApplicable

_TYPES = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Gather")
# Smaller tensors (biases, scales) are not worth the rounding.
_MIN_ELEMENTS = 64
_LARGEST_FP16 = 65504.0


def store_in_half(
    source: Path, target: Path, kind: str, exclude: tuple[str, ...]
) -> dict[str, Any]:
    """Stores the weights of products and convolutions in 16 bits.

    Args:
        source: The ONNX file.
        target: The file to write.
        kind: `fp16` or `bf16`.
        exclude: Names of nodes or types of operators that stay as they are.

    Returns:
        What was done, for the card.

    Raises:
        NotApplicable: There is no such weight, or one is not finite or does not fit into float16.
    """
    import ml_dtypes
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    dtype = np.dtype(np.float16 if kind == "fp16" else ml_dtypes.bfloat16)
    model = onnx.load(source)
    graph = model.graph
    used = {
        name
        for node in graph.node
        if node.op_type in _TYPES and not {node.name, node.op_type} & set(exclude)
        for name in node.input
    }
    casts = []
    for tensor in graph.initializer:
        if tensor.name not in used or tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _MIN_ELEMENTS:
            continue
        if not np.isfinite(values).all():
            raise NotApplicable(
                f"the weight {tensor.name} holds values that are not finite", file=source
            )
        if kind == "fp16" and np.abs(values).max() > _LARGEST_FP16:
            raise NotApplicable(
                f"the weight {tensor.name} has values beyond what float16 holds", file=source
            )
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), f"{name}.{kind}"))
        casts.append(
            helper.make_node(
                "Cast", [f"{name}.{kind}"], [name], name=f"{name}.widen", to=TensorProto.FLOAT
            )
        )
    if not casts:
        raise NotApplicable(
            f"the graph has no float32 weights to store in {kind} (it has "
            f"{', '.join(sorted({node.op_type for node in graph.node})[:8])})",
            file=source,
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, target)
    return {"scheme": kind, "weights": len(casts)}


def compute_in_half(source: Path, target: Path, exclude: tuple[str, ...]) -> dict[str, Any]:
    """Turns the whole graph to float16, inputs and outputs apart. Arguments as above."""
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = onnx.load(source)
    left_out = [n.name for n in model.graph.node if {n.name, n.op_type} & set(exclude)]
    # Operators of ai.onnx.ml (scalers, encoders, trees) know no float16.
    classic = {n.op_type for n in model.graph.node if n.domain == "ai.onnx.ml"}
    converted = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=sorted({*DEFAULT_OP_BLOCK_LIST, *classic}),
        node_block_list=left_out,
    )
    onnx.save(converted, target)
    return {"scheme": "fp16", "computes": "float16"}
