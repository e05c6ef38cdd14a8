"""Weights in 8 or 4 bits, arithmetic in floats; and tables of embeddings in integers."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.data.dataset import Array
from trimgate.techniques.quantize._config import QuantizeConfig
from trimgate.techniques.quantize._graph import Prepared, prepare, raise_opset, stay_in_float

# Activations are rounded to 8 bits in blocks for the product, where the CPU is faster so.
_ACCURACY_LEVEL = 4
# A smaller table is not worth the rounding.
_MIN_VALUES = 1024
# 4-bit tensors came with operator set 21.
_OPSET_INT4 = 21


@dataclass(frozen=True)
class WeightQuantizer:
    """Weights of matrix products in blocks with a scale each (`MatMulNBits`).

    ONNX Runtime and OpenVINO both read that operator.

    Attributes:
        prepared: The graph.
        bits: 4 or 8.
        block_size: So many weights of a column share a scale.
        symmetric: No zero points.
    """

    prepared: Prepared
    bits: int
    block_size: int
    symmetric: bool

    @classmethod
    def make(cls, source: Path, scratch: Path, config: QuantizeConfig) -> "WeightQuantizer":
        """Prepares the graph.

        Raises:
            NotApplicable: There is nothing to quantize, or a weight is not finite.
        """
        prepared = prepare(source, scratch, ("MatMul", "Gemm"), config.named)
        return cls(prepared, config.bits, config.block_size, config.symmetric)

    def write(self, keep: Sequence[str], target: Path) -> None:
        """See `Quantizer`."""
        with _root_logger_as_it_was():
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        import onnx

        model = onnx.load(self.prepared.path)
        quantizer = MatMulNBitsQuantizer(
            model,
            bits=self.bits,
            block_size=self.block_size,
            is_symmetric=self.symmetric,
            accuracy_level=_ACCURACY_LEVEL,
            nodes_to_exclude=stay_in_float(self.prepared, keep),
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(target))


def quantize_embeddings(path: Path, bits: int, block_size: int, exclude: Sequence[str]) -> int:
    """Stores the tables that rows are gathered from as integers, in place.

    With 8 bits the rows and their scales are gathered and multiplied by standard operators; with
    4 bits ONNX Runtime's own `GatherBlockQuantized` does it.

    Args:
        path: The ONNX file.
        bits: 8: a scale for each row. 4: a scale for each block of a row.
        block_size: See above.
        exclude: Names of nodes or types of operators that stay as they are.

    Returns:
        How many tables were stored so.
    """
    import onnx

    model = onnx.load(path)
    tables = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and len(tensor.dims) == 2
        and tensor.dims[0] * tensor.dims[1] >= _MIN_VALUES
    }
    found = [node for node in model.graph.node if _looks_up(node, tables, exclude)]
    names = {node.input[0] for node in found}
    # a table that something else reads too (tied weights) must stay
    shared = {name for n in model.graph.node if n not in found for name in n.input} & names
    found = [node for node in found if node.input[0] not in shared]
    if not found:
        return 0
    if bits == 4:
        _gather_blocks(model, [node.name for node in found], block_size)
    else:
        _gather_rows(model, found, tables)
    onnx.save(model, path)
    return len({node.input[0] for node in found})


def quantize_rows(table: Array) -> tuple[Array, Array]:
    """Rounds each row of a table to 8 bits.

    Args:
        table: `(rows, columns)` float32.

    Returns:
        `(rows, columns)` int8 and `(rows, 1)` float32; their product is at most half a scale
        away from the table.
    """
    scales = np.abs(table).max(axis=1, keepdims=True) / 127
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.clip(np.rint(table / scales), -127, 127).astype(np.int8), scales


def _looks_up(node: Any, tables: dict[str, Any], exclude: Sequence[str]) -> bool:
    if node.op_type != "Gather" or {node.name, node.op_type}.intersection(exclude):
        return False
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    return axis == 0 and node.input[0] in tables


def _gather_rows(model: Any, found: Sequence[Any], tables: dict[str, Any]) -> None:
    import onnx
    from onnx import helper, numpy_helper

    graph = model.graph
    for name in {node.input[0]: None for node in found}:
        rows, scales = quantize_rows(numpy_helper.to_array(tables[name]))
        graph.initializer.append(numpy_helper.from_array(rows, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scales"))
        graph.initializer.remove(tables[name])
    nodes = []
    for node in graph.node:
        if node not in found:
            nodes.append(node)
            continue
        table, indices = node.input
        label = node.output[0]
        nodes += [
            helper.make_node("Gather", [f"{table}.int8", indices], [f"{label}.int8"],
                             name=f"{node.name}.rows"),
            helper.make_node("Cast", [f"{label}.int8"], [f"{label}.wide"],
                             name=f"{node.name}.widen", to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", [f"{table}.scales", indices], [f"{label}.scales"],
                             name=f"{node.name}.scales"),
            helper.make_node("Mul", [f"{label}.wide", f"{label}.scales"], [label],
                             name=f"{node.name}.scaled"),
        ]  # fmt: skip
    del graph.node[:]
    graph.node.extend(nodes)


def _gather_blocks(model: Any, names: Sequence[str], block_size: int) -> None:
    with _root_logger_as_it_was():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    raise_opset(model, _OPSET_INT4)
    others = [n.name for n in model.graph.node if n.name not in names]
    quantizer = MatMulNBitsQuantizer(
        model,
        bits=4,
        block_size=block_size,
        is_symmetric=True,
        nodes_to_exclude=others,
        op_types_to_quantize=("Gather",),
    )
    quantizer.process()
    if quantizer.model.model is not model:
        model.CopyFrom(quantizer.model.model)


@contextmanager
def _root_logger_as_it_was() -> Iterator[None]:
    """The module sets up logging for the whole process when it is imported."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
