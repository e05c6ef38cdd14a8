"""INT8 with ONNX Runtime's quantizer.

Unsigned activations with signed weights (U8S8) are what the INT8 instructions of x86 CPUs
multiply; the quantizer's own default, signed with signed, is several times slower there. Operators
that only carry values along stay in 8 bits between two quantized ones.
"""

import contextlib
import io
import platform
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from trimgate import environment
from trimgate.models.directory import ModelInfo
from trimgate.techniques.quantize._calibrate import Calibration, measure_ranges
from trimgate.techniques.quantize._config import QuantizeConfig
from trimgate.techniques.quantize._graph import (
    CARRIERS,
    DYNAMIC,
    STATIC,
    Prepared,
    prepare,
    stay_in_float,
    widen_results,
)
from trimgate.techniques.quantize._smooth import smooth

_ONE_AT_A_TIME = threading.Lock()


class Types(NamedTuple):
    """Integer types of a static graph, and what they were chosen for."""

    activations: Literal["uint8", "int8"]
    weights: Literal["uint8", "int8"]
    reason: str


class Quantizer(Protocol):
    """Writes quantized versions of one graph, with some of its layers left alone."""

    @property
    def prepared(self) -> Prepared:
        """The graph that it works on."""

    def write(self, keep: Sequence[str], target: Path) -> None:
        """Writes the graph with all layers quantized but those of `keep`."""


def choose_types(config: QuantizeConfig, info: ModelInfo) -> Types:
    """The types that are multiplied fast where the model is served.

    On OpenVINO zero points cost transformers time where rows have few tokens; activations after a
    rectifier, as convolutional networks have them, are unsigned without one anyway.
    """
    if config.activation_type != "auto":
        activations, reason = config.activation_type, "as asked"
    elif platform.machine() not in ("x86_64", "AMD64"):
        activations, reason = "int8", f"{platform.machine()} multiplies signed by signed"
    elif info.runtime.name == "openvino" and info.family == "transformer":
        activations, reason = "int8", "OpenVINO is faster on short texts without zero points"
    else:
        activations, reason = "uint8", "x86 multiplies unsigned by signed (VNNI, AMX, AVX2)"
    weights = "int8" if config.weight_type == "auto" else config.weight_type
    return Types(activations, weights, reason)


def reduces_range(config: QuantizeConfig) -> bool:
    """Whether weights keep to 7 bits."""
    if config.reduce_range is None:
        return not environment.has_int8_dot_product()
    return config.reduce_range


@dataclass(frozen=True)
class StaticQuantizer:
    """QDQ form, with ranges measured beforehand.

    Attributes:
        prepared: The graph.
        ranges: What `measure_ranges` gave; measured once, however many versions are written.
        types: Of activations and weights.
        per_channel: One scale for each output channel of a weight.
        reduce_range: Weights keep to 7 bits.
    """

    prepared: Prepared
    ranges: Any
    types: Types
    per_channel: bool
    reduce_range: bool

    @classmethod
    def make(
        cls,
        source: Path,
        scratch: Path,
        config: QuantizeConfig,
        calibration: Calibration,
        smoothing: float = 0.0,
    ) -> "StaticQuantizer":
        """Prepares the graph and measures ranges.

        Args:
            source: The ONNX file.
            scratch: A private directory.
            config: The step's parameters.
            calibration: Rows to measure on, and how.
            smoothing: See `smooth`; 0 leaves the graph as it is.

        Raises:
            NotApplicable: There is nothing to quantize, or a value is not finite.
        """
        prepared = prepare(source, scratch, STATIC, config.named)
        if smoothing:
            prepared = smooth(prepared, scratch, calibration, smoothing)
        ranges = measure_ranges(prepared, scratch, calibration)
        types = choose_types(config, calibration.info)
        return cls(prepared, ranges, types, config.per_channel, reduces_range(config))

    def write(self, keep: Sequence[str], target: Path) -> None:
        """See `Quantizer`."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

        kinds = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
        quantizer = QDQQuantizer(
            load_model_with_shape_infer(self.prepared.path),
            self.per_channel,
            self.reduce_range,
            kinds[self.types.weights],
            kinds[self.types.activations],
            self.ranges,
            [],
            stay_in_float(self.prepared, keep),
            [*STATIC, *CARRIERS],
            {
                "ActivationSymmetric": self.types.activations == "int8",
                "WeightSymmetric": self.types.weights == "int8",
            },
        )
        quantizer.quantize_model()
        raw = target.with_suffix(".raw")
        quantizer.model.save_model_to_file(str(raw))
        widen_results(self.prepared.path, raw, target)
        raw.unlink()


@dataclass(frozen=True)
class DynamicQuantizer:
    """Integer weights; activations are quantized in every call."""

    prepared: Prepared
    per_channel: bool
    reduce_range: bool

    @classmethod
    def make(cls, source: Path, scratch: Path, config: QuantizeConfig) -> "DynamicQuantizer":
        """Prepares the graph.

        Raises:
            NotApplicable: There is nothing to quantize, or a weight is not finite.
        """
        prepared = prepare(source, scratch, DYNAMIC, config.named)
        return cls(prepared, config.per_channel, reduces_range(config))

    def write(self, keep: Sequence[str], target: Path) -> None:
        """See `Quantizer`."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            str(self.prepared.path),
            str(target),
            op_types_to_quantize=list(DYNAMIC),
            nodes_to_exclude=stay_in_float(self.prepared, keep),
            per_channel=self.per_channel,
            reduce_range=self.reduce_range,
            weight_type=QuantType.QInt8,
            # For tensors whose type shape inference cannot tell (fused operators).
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the quantizer's prints and the engine's warnings about its own graphs away.

    Both belong to the whole process, so one thread quantizes at a time.
    """
    import onnxruntime

    with _ONE_AT_A_TIME, contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.set_default_logger_severity(3)
        try:
            yield
        finally:
            onnxruntime.set_default_logger_severity(2)
