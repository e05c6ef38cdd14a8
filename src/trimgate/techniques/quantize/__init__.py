"""Quantize the ONNX form: INT8 arithmetic, or weights of 16 bits."""

from trimgate.techniques.quantize._config import QuantizeConfig
from trimgate.techniques.quantize._technique import QuantizeTechnique

__all__ = ["TECHNIQUE", "QuantizeConfig", "QuantizeTechnique"]

TECHNIQUE = QuantizeTechnique()
