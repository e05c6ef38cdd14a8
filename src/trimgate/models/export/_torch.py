"""torch modules to ONNX."""

import contextlib
import io
import logging
import warnings
from typing import Any

from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo
from trimgate.models.export._graph import finish

_ROWS = 2


def convert(model: Any, info: ModelInfo, opset: int) -> Any:
    """Exports a module with any number of rows.

    Args:
        model: The `torch.nn.Module`, in eval mode.
        info: Its record.
        opset: Version of the default operator set.

    Returns:
        An `onnx.ModelProto` with the inputs of `info` and one output, `scores`.

    Raises:
        NotApplicable: The module cannot be exported.
    """
    import torch

    example = tuple(
        torch.zeros(_ROWS, *(abs(n) for n in spec.shape[1:]), dtype=getattr(torch, spec.dtype))
        for spec in info.inputs
    )
    rows = torch.export.Dim("rows")
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                example,
                dynamo=True,
                input_names=[spec.name for spec in info.inputs],
                dynamic_shapes=tuple({0: rows} for _ in info.inputs),
                opset_version=opset,
                verbose=False,
            )
    # the exporter fails in many ways on what it does not know
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise NotApplicable(f"torch cannot export the module: {lines[0][:300]}") from error
    finally:
        quiet.setLevel(level)
    if program is None:
        raise NotApplicable("torch cannot export the module")
    proto = program.model_proto
    if len(proto.graph.output) != 1:
        raise NotApplicable(f"the module gives {len(proto.graph.output)} outputs instead of one")
    _strip(proto)
    return finish(proto, proto.graph.output[0].name)


def _strip(proto: Any) -> None:
    """Drops what the exporter notes of the machine: source lines, stack traces."""
    for holder in [proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output]:
        if hasattr(holder, "metadata_props"):
            del holder.metadata_props[:]
        holder.doc_string = ""
