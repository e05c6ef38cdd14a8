"""Fusion of transformer encoders into ONNX Runtime's own operators."""

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from trimgate.techniques.optimize_graph._attention import MICROSOFT, declare, fuse_attention

_SPECIAL = {"bart": "bart", "clip": "clip", "swin": "swin", "t5": "t5", "vit": "vit"}
_FUSED = ("LayerNormalization", "Gelu")


def fuse_transformer(
    model: Any, builder_arguments: Mapping[str, Any], *, attention: bool = True
) -> tuple[Any, dict[str, int]]:
    """Fuses attention, normalization with its residual, and GELU with its bias.

    Args:
        model: An `onnx.ModelProto`; changed.
        builder_arguments: Those of the module; a `config` in it names the architecture.
        attention: Whether attention is fused too.

    Returns:
        The model, and how many of each fused operator stand in it.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    if attention:
        fuse_attention(model)
    config = builder_arguments.get("config")
    named = str(config.get("model_type", "")) if isinstance(config, Mapping) else ""
    kind = _SPECIAL.get(named, "bert")
    options = FusionOptions(kind)
    options.enable_attention = attention
    # that fusion expects a bias, which newer architectures leave out
    biased = [len(n.input) > 2 for n in model.graph.node if n.op_type == "LayerNormalization"]
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = all(biased)
    with _silent():
        # number of heads and width are read off the graph
        fused = optimizer.optimize_by_fusion(model, kind, 0, 0, options).model
    declare(fused)
    # the tools fill in what made the file; equal input shall give equal bytes
    fused.producer_name, fused.producer_version = model.producer_name, ""
    return fused, fused_counts(fused)


def fused_counts(model: Any) -> dict[str, int]:
    """How many fused operators stand in a graph, by type."""
    counts = Counter(
        node.op_type
        for node in model.graph.node
        if node.domain == MICROSOFT or node.op_type in _FUSED
    )
    return dict(sorted(counts.items()))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps the messages of the fusion's many modules away."""
    names = ("fusion_", "onnx_model", "onnxruntime.transformers", "shape_infer")
    loggers = [logging.getLogger(name) for name in sys.modules if name.startswith(names)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
