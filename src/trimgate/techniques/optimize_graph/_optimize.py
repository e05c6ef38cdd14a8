"""Rewriting of ONNX files ahead of time."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from trimgate.errors import NotApplicable

_log = logging.getLogger("trimgate.techniques")

Level = Literal["none", "basic", "extended", "transformer"]

EXTERNAL = ".data"
"""What follows the name of an ONNX file in the name of the file that holds its weights."""

# Smaller tensors stay in the graph, where shape inference looks at them.
_LEAST_BYTES = 1024
_MOST_BYTES = 2**31 - 1
_LAYOUT = "com.microsoft.nchwc"


def optimize_file(source: Path, out: Path, level: Level) -> None:
    """Writes an optimized copy of an ONNX file.

    Constants are folded, and nodes that do nothing or do the same are merged. Equal input gives
    equal bytes.

    Args:
        source: The file to read.
        out: The file to write; weights that lie outside the source come into it.
        level: `none` copies; `basic` leaves only operators of the ONNX standard; `extended` also
            fuses operators into ONNX Runtime's own, which no other engine can read;
            `transformer` is `basic` here, and `fuse_transformer` follows.

    Raises:
        NotApplicable: ONNX Runtime cannot read the graph, or it is larger than 2 GiB.
    """
    if level == "none":
        write(load(source), out)
        return
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    extended = level == "extended"
    _save_session(source, out, levels.ORT_ENABLE_EXTENDED if extended else levels.ORT_ENABLE_BASIC)
    model = load(out)
    tidy(model)
    _flatten_biases(model.graph)
    before = len(load(source).graph.node)
    _log.info("graph optimization (%s): %d nodes become %d", level, before, len(model.graph.node))
    write(model, out)


def save_offline(source: Path, out: Path, *, blocked: bool, external: bool) -> dict[str, Any]:
    """Writes the graph that ONNX Runtime would make of a file at load on this very CPU.

    Args:
        source: The file to read.
        out: The file to write.
        blocked: Whether convolutions get the layout that this CPU reads in blocks (NCHWc).
        external: Put the weights beside the graph in the layout in which the kernels multiply
            them, so that loading maps them into memory and copies nothing.

    Returns:
        What was done: nodes before and after, those in blocked layout, and fused ones.

    Raises:
        NotApplicable: ONNX Runtime cannot read the graph.
    """
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    entries = {}
    if external:
        prefix = "session.optimized_model_external_initializers"
        entries = {
            f"{prefix}_file_name": out.name + EXTERNAL,
            f"{prefix}_min_size_in_bytes": str(_LEAST_BYTES),
            "session.save_external_prepacked_constant_initializers": "1",
        }
    level = levels.ORT_ENABLE_ALL if blocked else levels.ORT_ENABLE_EXTENDED
    _save_session(source, out, level, entries)
    if not external:
        model = load(out)
        write(model, out)
    graph = _graph(out)
    counts = Counter(node.op_type for node in graph.node if node.domain.startswith("com.micro"))
    return {
        "nodes": [len(_graph(source).node), len(graph.node)],
        "blocked": sum(node.domain == _LAYOUT for node in graph.node),
        "fused": dict(sorted(counts.items())),
    }


def convert_opset(model: Any, opset: int) -> Any:
    """The same graph in another version of the default operator set.

    Args:
        model: An `onnx.ModelProto`.
        opset: The version.

    Raises:
        NotApplicable: An operator has no such form.
    """
    from onnx import version_converter

    if opset_of(model) == opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    # the converter knows many ways to fail and has no error of its own
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise NotApplicable(
            f"the graph cannot be written in operator set {opset}: {line}"
        ) from error


def opset_of(model: Any) -> int:
    """The version of the default operator set."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def load(path: Path) -> Any:
    """An `onnx.ModelProto` with all its weights, also those that lie outside the file."""
    import onnx

    return onnx.load(path)


def write(model: Any, out: Path, *, external: bool = False) -> None:
    """Writes a model; equal models give equal bytes.

    Args:
        model: An `onnx.ModelProto`; changed when `external`.
        out: The file.
        external: Put the weights into a file beside it.

    Raises:
        NotApplicable: It is too large for one file.
    """
    from onnx import external_data_helper

    if external:
        external_data_helper.convert_model_to_external_data(
            model, location=out.name + EXTERNAL, size_threshold=_LEAST_BYTES
        )
        model = external_data_helper.write_external_data_tensors(model, str(out.parent))
    elif model.ByteSize() > _MOST_BYTES:
        raise NotApplicable(
            "the model takes more than 2 GiB, which is too much for one ONNX file",
            key="external_data",
            value=False,
            mend="set external_data: true",
        )
    out.write_bytes(model.SerializeToString(deterministic=True))


def tidy(model: Any) -> None:
    """Drops shapes that a tool noted, and operator sets that no node uses, in place.

    ONNX Runtime declares all domains that it knows, and some readers refuse those.
    """
    used = {node.domain for node in _nodes(model.graph)}
    kept = [o for o in model.opset_import if o.domain in used or o.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(sorted(kept, key=lambda o: str(o.domain)))
    del model.graph.value_info[:]


def _flatten_biases(graph: Any) -> None:
    """Makes `(n,)` of biases `(1, n)`, which quantizers by channel stumble over, in place."""
    readers: dict[str, set[tuple[str, int]]] = {}
    for node in _nodes(graph):
        for place, name in enumerate(node.input):
            readers.setdefault(name, set()).add((node.op_type, place))
    for tensor in graph.initializer:
        dims = list(tensor.dims)
        if readers.get(tensor.name) == {("Gemm", 2)} and len(dims) == 2 and dims[0] == 1:
            del tensor.dims[0]


def _save_session(
    source: Path, out: Path, level: Any, entries: dict[str, str] | None = None
) -> None:
    """Has ONNX Runtime write what it makes of a graph at load."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(out)
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    try:
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    # its exceptions have no base of their own
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        raise NotApplicable(f"ONNX Runtime cannot read the graph: {line}") from error


def _graph(path: Path) -> Any:
    import onnx

    return onnx.load(path, load_external_data=False).graph


def _nodes(graph: Any) -> list[Any]:
    """The nodes of a graph and of the graphs inside it."""
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                found.extend(_nodes(inner))
    return found
