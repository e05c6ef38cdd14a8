"""torch modules to ONNX."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo, TensorSpec
from trimgate.models.export._graph import finish

_LOUD = ("onnx", "fx.experimental.symbolic_shapes")
_ROWS = 2
# Neither 1 nor a size that a model has elsewhere: those would be taken for the same.
_TOKENS = 19


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

    example = tuple(_example(spec) for spec in info.inputs)
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length")
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                example,
                dynamo=True,
                input_names=[spec.name for spec in info.inputs],
                dynamic_shapes=tuple(
                    {0: rows, 1: length} if info.tokenizer else {0: rows} for _ in info.inputs
                ),
                opset_version=opset,
                verbose=False,
            )
    # the exporter fails in many ways on what it does not know
    except Exception as error:
        # the exporter's own message only says in which of its stages it failed
        cause = error.__cause__ or error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise NotApplicable(f"torch cannot export the module: {lines[0][:300]}") from error
    if program is None:
        raise NotApplicable("torch cannot export the module")
    proto = program.model_proto
    if len(proto.graph.output) != 1:
        raise NotApplicable(f"the module gives {len(proto.graph.output)} outputs instead of one")
    _strip(proto)
    return finish(proto, proto.graph.output[0].name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps away what the exporter prints and logs: progress, and graphs that it gave up on."""
    loggers = [logging.getLogger(f"torch.{name}") for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _example(spec: TensorSpec) -> Any:
    import torch

    sizes = [_TOKENS if size == -1 else size for size in spec.shape[1:]]
    kind = getattr(torch, spec.dtype)
    # a mask of zeros hides everything from a transformer
    make = torch.ones if kind == torch.int64 and spec.shape[1:] == (-1,) else torch.zeros
    return make(_ROWS, *sizes, dtype=kind)


def _strip(proto: Any) -> None:
    """Drops what the exporter notes of the machine: source lines, stack traces."""
    for holder in [proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output]:
        if hasattr(holder, "metadata_props"):
            del holder.metadata_props[:]
        holder.doc_string = ""
