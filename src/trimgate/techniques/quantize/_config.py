"""The parameters of a quantize step."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trimgate.techniques._base import StepConfig
from trimgate.training import FinetuneConfig

Scheme = Literal["static-int8", "dynamic-int8", "weight-only", "qat-int8", "fp16", "bf16"]
_SEARCHED = ("static-int8", "dynamic-int8", "weight-only")


class QuantizeConfig(StepConfig):
    """Parameters of the step `quantize`.

    Attributes:
        scheme: `static-int8`: INT8 arithmetic with ranges measured on training rows.
            `dynamic-int8`: ranges are measured in every call; matrix products only.
            `weight-only`: the weights of matrix products in 8 or 4 bits and nothing else; for
            size and memory: on a CPU it is much less of a speed-up than INT8, if any.
            `qat-int8`: a torch model is fine-tuned with the rounding of INT8 in its way, then
            exported and quantized statically.
            `fp16`: half the size; on a CPU it is computed in float32 all the same.
            `bf16`: half the size, computed in bfloat16; needs the runtime openvino.
        quantizer: What makes static INT8: `onnxruntime`, or `nncf` (extra `nncf`), which also
            corrects biases and, in transformers, moves outliers from activations to weights.
            Both give one ONNX file that ONNX Runtime and OpenVINO read.
        method: How static ranges are chosen: the extremes (`minmax`), the least loss of
            information (`entropy`), or all but the rarest values (`percentile`).
        percentile: Share of values in percent that `percentile` keeps.
        rows: Training rows to calibrate on.
        activation_type: Type of static activations. `auto`: what the CPU and the runtime
            multiply fast: `uint8` on x86; `int8` on ARM, and for transformers on OpenVINO.
        weight_type: Type of static weights. `auto` is `int8`.
        per_channel: One scale for each output channel of a weight rather than one for all.
        reduce_range: Keep weights to 7 bits. None: when the CPU has no INT8 dot product (VNNI),
            because sums of 8-bit products saturate there.
        bits: Of weights under `weight-only`.
        block_size: Under `weight-only`: so many weights of a column share a scale.
        symmetric: Under `weight-only`: no zero points.
        embeddings: Also store the tables that words are looked up in as integers: 8 bits with a
            scale for each row, or 4 bits in blocks where `bits` is 4.
        exclude: Names of nodes or types of operators that stay as they are (under `qat-int8`:
            names of torch modules). `auto`: the layers that hurt most stay in float32, as few
            as bring the primary metric on the validation rows within `tolerance`.
        tolerance: With `exclude: auto`, by how much that metric may get worse: absolute, but a
            share of the metric for the errors of a regression.
        max_excluded: With `exclude: auto`, the largest share of the layers that may stay.
        smooth_quant: Under `static-int8`: how much of the outliers of activations is moved to
            the weights of matrix products, from 0 to 1. None: 0.85 for transformers (nncf: 0.95),
            else 0, which moves nothing.
        bias_correction: Under `nncf`: `fast` corrects each bias by statistics, `full` layer by
            layer (much slower).
        finetune: Under `qat-int8`: the training, with the unquantized module as the teacher. A
            learning rate of None is 5e-5 for transformers and else 2e-4.
    """

    technique: Literal["quantize"] = "quantize"
    scheme: Scheme = "static-int8"
    quantizer: Literal["onnxruntime", "nncf"] = "onnxruntime"
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    percentile: float = Field(default=99.99, gt=50, le=100)
    rows: int = Field(default=256, ge=8)
    activation_type: Literal["auto", "uint8", "int8"] = "auto"
    weight_type: Literal["auto", "int8", "uint8"] = "auto"
    per_channel: bool = True
    reduce_range: bool | None = None
    bits: Literal[4, 8] = 8
    block_size: Literal[16, 32, 64, 128, 256] = 32
    symmetric: bool = True
    embeddings: bool = False
    exclude: tuple[str, ...] | Literal["auto"] = ()
    tolerance: float = Field(default=0.005, ge=0)
    max_excluded: Annotated[float, Field(gt=0, le=1)] = 0.5
    smooth_quant: float | None = Field(default=None, ge=0, le=1)
    bias_correction: Literal["fast", "full"] = "fast"
    finetune: FinetuneConfig = FinetuneConfig(epochs=4, distill=0.7)

    @model_validator(mode="after")
    def _fits_together(self) -> "QuantizeConfig":
        if self.quantizer == "nncf" and self.scheme != "static-int8":
            raise ValueError("quantizer nncf is for the scheme static-int8")
        if self.quantizer == "nncf" and self.method != "minmax":
            raise ValueError("quantizer nncf has ways of its own to choose ranges; leave method")
        if self.exclude == "auto" and (self.scheme not in _SEARCHED or self.quantizer == "nncf"):
            raise ValueError(
                f"exclude: auto is for the schemes {', '.join(_SEARCHED)} and the quantizer "
                "onnxruntime; give names"
            )
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """What the user excludes by name."""
        return () if self.exclude == "auto" else self.exclude

    @property
    def needs_torch_image(self) -> bool:
        """NNCF is in that image."""
        return self.quantizer == "nncf"

    def title(self) -> str:
        """The scheme, and what is not usual about it."""
        if self.scheme == "weight-only":
            words = f"INT{self.bits} weights"
        else:
            words = self.scheme.replace("-", " ").replace("int8", "INT8").replace("qat", "QAT")
        unusual = [
            *([] if self.method == "minmax" else [self.method]),
            *([] if self.quantizer == "onnxruntime" else ["NNCF"]),
            *([] if self.activation_type == "auto" else [f"{self.activation_type} activations"]),
            *(["without layers that hurt"] if self.exclude == "auto" else []),
            *(["embeddings too"] if self.embeddings else []),
        ]
        return f"{words} ({', '.join(unusual)})" if unusual else words
