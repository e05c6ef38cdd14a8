"""What ONNX Runtime really computes with integers.

A quantized file is a wish: whether integers are multiplied shows only in the graph that the
engine makes of it for this CPU.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

_INTEGER = {
    "ConvInteger",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QAttention",
    "QGemm",
    "QLinearConv",
    "QLinearConvTranspose",
    "QLinearMatMul",
}
_PACKED = {"MatMulNBits", "GatherBlockQuantized"}
_FLOAT = {
    "Attention",
    "Conv",
    "ConvTranspose",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "Gemm",
    "LSTM",
    "MatMul",
    "MultiHeadAttention",
}


class Kernels(NamedTuple):
    """Products and convolutions of an optimized graph, by operator.

    Attributes:
        integer: Computed with integers.
        packed: Computed in float32 or with activations of 8 bits, from weights of 4 or 8 bits.
        float: Computed in float32.
    """

    integer: dict[str, int]
    packed: dict[str, int]
    float: dict[str, int]


def count_kernels(path: Path, scratch: Path) -> Kernels:
    """Lets ONNX Runtime optimize a graph for this CPU and counts its operators.

    Args:
        path: The ONNX file.
        scratch: A private directory.
    """
    import onnx
    import onnxruntime as ort

    optimized = scratch / "optimized.onnx"
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(optimized, load_external_data=False).graph
    optimized.unlink()
    found = Counter(node.op_type for node in graph.node)

    def of(kinds: set[str]) -> dict[str, int]:
        return {kind: number for kind, number in sorted(found.items()) if kind in kinds}

    return Kernels(of(_INTEGER), of(_PACKED), of(_FLOAT))
