"""Graph optimization of an ONNX file with ONNX Runtime, ahead of time."""

import logging
from pathlib import Path
from typing import Any, Literal

from trimgate.errors import NotApplicable

_log = logging.getLogger("trimgate.techniques")

Level = Literal["none", "basic", "extended"]


def optimize_file(source: Path, out: Path, level: Level) -> None:
    """Writes an optimized copy of an ONNX file.

    Constants are folded, and nodes that do nothing or do the same are merged. Equal input gives
    equal bytes.

    Args:
        source: The file to read.
        out: The file to write.
        level: `none` copies; `basic` leaves only operators of the ONNX standard; `extended` also
            fuses operators into ONNX Runtime's own, which no other engine can read.

    Raises:
        NotApplicable: ONNX Runtime cannot read the graph.
    """
    if level == "none":
        out.write_bytes(source.read_bytes())
        return
    import onnx
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = {
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
    }[level]
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(out)
    try:
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    # its exceptions have no base of their own
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        raise NotApplicable(f"ONNX Runtime cannot read the graph: {line}") from error
    model = onnx.load(out)
    used = {node.domain for node in _nodes(model.graph)}
    # ONNX Runtime declares all domains that it knows, and some readers refuse those
    kept = [o for o in model.opset_import if o.domain in used or o.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(sorted(kept, key=lambda o: str(o.domain)))
    del model.graph.value_info[:]
    before = len(onnx.load(source).graph.node)
    _log.info("graph optimization (%s): %d nodes become %d", level, before, len(model.graph.node))
    out.write_bytes(model.SerializeToString(deterministic=True))


def _nodes(graph: Any) -> list[Any]:
    """The nodes of a graph and of the graphs inside it."""
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                found.extend(_nodes(inner))
    return found
