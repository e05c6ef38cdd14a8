"""Static INT8 by NNCF: biases are corrected, and outliers of transformers are moved.

The result is an ONNX file in QDQ form, which ONNX Runtime and OpenVINO both read; an OpenVINO IR
would be tied to one of them.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.data.dataset import Array
from trimgate.errors import MissingExtra, NotApplicable
from trimgate.runtimes import preload_tbb
from trimgate.techniques.quantize._calibrate import Calibration
from trimgate.techniques.quantize._config import QuantizeConfig
from trimgate.techniques.quantize._graph import STATIC, prepare
from trimgate.techniques.quantize._int8 import Types, reduces_range

_TELEMETRY = "openvino_telemetry"


def quantize(
    source: Path,
    target: Path,
    scratch: Path,
    config: QuantizeConfig,
    calibration: Calibration,
    types: Types,
) -> dict[str, Any]:
    """Quantizes to QDQ form.

    Args:
        source: The ONNX file.
        target: The file to write.
        scratch: A private directory.
        config: The step's parameters.
        calibration: Rows to measure on; they are taken one by one, so that nothing is padded.
        types: Of activations and weights.

    Returns:
        What was done, for the card.

    Raises:
        MissingExtra: NNCF is not installed.
        NotApplicable: There is nothing to quantize, or NNCF cannot do it.
    """
    import onnx

    prepared = prepare(source, scratch, STATIC, config.named)
    model = onnx.load(prepared.path)
    kinds = STATIC if config.embeddings else (*STATIC, "Gather")
    stay = [n.name for n in model.graph.node if n.op_type in kinds]
    stay = [name for name in stay if name not in prepared.layers]
    transformer = calibration.info.family == "transformer"
    preload_tbb()  # it imports OpenVINO, where that is installed
    with _without_telemetry(), _silent("nncf"):
        try:
            import nncf
            from nncf.common.quantization.structs import QuantizationScheme
            from nncf.quantization.advanced_parameters import QuantizationParameters
        except ImportError as error:
            raise MissingExtra("nncf", "nncf") from error
        fix = nncf.OverflowFix.ENABLE if reduces_range(config) else nncf.OverflowFix.DISABLE
        advanced = nncf.AdvancedQuantizationParameters(
            overflow_fix=fix,
            weights_quantization_params=QuantizationParameters(per_channel=config.per_channel),
        )
        # With zero points wherever values are signed, all can be unsigned. Depthwise convolutions
        # would get a scale for each input channel, which ONNX Runtime computes in float32.
        asymmetric = types.activations == "uint8"
        advanced.activations_quantization_params = QuantizationParameters(
            mode=QuantizationScheme.ASYMMETRIC if asymmetric else None, per_channel=False
        )
        if config.smooth_quant is not None:
            advanced.smooth_quant_alphas.matmul = config.smooth_quant
        try:
            quantized = nncf.quantize(
                model,
                nncf.Dataset(_Rows(calibration)),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                subset_size=len(calibration.rows),
                fast_bias_correction=config.bias_correction == "fast",
                ignored_scope=nncf.IgnoredScope(names=stay, validate=False),
                advanced_parameters=advanced,
            )
        # NNCF raises many kinds of errors on graphs that it does not know
        except Exception as error:
            line = " ".join(str(error).split())[:300] or type(error).__name__
            raise NotApplicable(f"nncf cannot quantize the graph: {line}", file=source) from error
    if types.activations == "uint8":
        _unsign(quantized.graph)
    onnx.save(quantized, target)
    return {
        "smooth_quant": config.smooth_quant,
        "bias_correction": config.bias_correction,
        "preset": "performance, asymmetric activations"
        if types.activations == "uint8"
        else "performance",
    }


def _unsign(graph: Any) -> None:
    """Makes signed activations unsigned by moving their zero points by 128, which is the same."""
    import onnx

    values = {tensor.name: tensor for tensor in graph.initializer}
    # weights have no QuantizeLinear: they are stored rounded
    moved = {
        node.output[0]
        for node in graph.node
        if node.op_type == "QuantizeLinear"
        and values[node.input[2]].data_type == onnx.TensorProto.INT8
    }
    unsigned: dict[str, str] = {}
    for node in graph.node:
        narrow = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or narrow not in moved:
            continue
        point = node.input[2]
        if point not in unsigned:
            shifted = onnx.numpy_helper.to_array(values[point]).astype(np.int16) + 128
            unsigned[point] = f"{point}.unsigned"
            graph.initializer.append(
                onnx.numpy_helper.from_array(shifted.astype(np.uint8), unsigned[point])
            )
        node.input[2] = unsigned[point]
    del graph.value_info[:]  # declares the old types
    used = {name for node in graph.node for name in node.input}
    for point in unsigned:
        if point not in used:
            graph.initializer.remove(values[point])


class _Rows:
    """Calibration rows one at a time, as often as NNCF asks for them."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration

    def __len__(self) -> int:
        return len(self._calibration.rows)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return self._calibration.batches(1)


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hides the package by which NNCF and OpenVINO report their use to Google Analytics.

    Both take a stub of their own then, which sends nothing.
    """
    hidden = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if hidden is not None:
            sys.modules[_TELEMETRY] = hidden


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
