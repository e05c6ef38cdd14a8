"""The step `quantize`: its parameters, when it is refused, and the new model directory."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from trimgate import environment, runtimes
from trimgate.errors import NotApplicable
from trimgate.models.directory import ONNX_FILE, ModelInfo, RuntimeChoice, read, seal, writing
from trimgate.targets import Target
from trimgate.techniques._base import Context, StepConfig, Suggestion, Technique, child
from trimgate.techniques.quantize import _half, _int8

_CHECKED_ROWS = 32


class QuantizeConfig(StepConfig):
    """Parameters of the step `quantize`.

    Attributes:
        scheme: `static-int8`: INT8 arithmetic with ranges measured on training rows.
            `dynamic-int8`: ranges are measured in every call; matrix products only.
            `fp16`: half the size; on a CPU it is computed in float32 all the same.
            `bf16`: half the size, computed in bfloat16; needs the runtime openvino.
        method: How static ranges are chosen: the extremes (`minmax`), the least loss of
            information (`entropy`), or all but the rarest values (`percentile`).
        percentile: Share of values in percent that `percentile` keeps.
        rows: Training rows to calibrate on.
        per_channel: One scale for each output channel of a weight rather than one for all.
        reduce_range: Keep weights to 7 bits. None: when the CPU has no INT8 dot product (VNNI),
            because sums of 8-bit products saturate there.
        exclude: Names of nodes or types of operators that stay as they are.
    """

    technique: Literal["quantize"] = "quantize"
    scheme: Literal["static-int8", "dynamic-int8", "fp16", "bf16"] = "static-int8"
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    percentile: float = Field(default=99.99, gt=50, le=100)
    rows: int = Field(default=256, ge=8)
    per_channel: bool = True
    reduce_range: bool | None = None
    exclude: tuple[str, ...] = ()

    def title(self) -> str:
        """The scheme, and the calibration method where it is not the usual one."""
        words = self.scheme.replace("-", " ").replace("int8", "INT8")
        return words if self.method == "minmax" else f"{words} ({self.method})"


class QuantizeTechnique(Technique[QuantizeConfig]):
    """Quantizes matrix products and convolutions of the ONNX form.

    Notes:
        Whether INT8 is faster is not decided here: a model that answers in less than about
        50 µs usually gets slower, because converting to and from 8 bits costs more than the
        arithmetic saves. The benchmark decides.
    """

    name = "quantize"
    config = QuantizeConfig
    needs = "onnx"
    gives = "onnx"
    stage = "precision"

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """INT8: measured ranges for convolutions, and both ways for matrix products."""
        if info.family in ("trees", "linear"):
            return ()
        if info.family == "other" and info.framework == "sklearn":
            return ()  # neighbours, kernels, votes: no matrix products
        static = Suggestion({"technique": "quantize", "scheme": "static-int8"})
        if info.family == "cnn":
            return [static]
        return [Suggestion({"technique": "quantize", "scheme": "dynamic-int8"}), static]

    def refusal(self, info: ModelInfo, config: QuantizeConfig, target: Target) -> str | None:
        """Why it cannot be quantized so, in words; or None."""
        if info.family == "trees":
            return (
                "a tree ensemble has no matrix products or convolutions to quantize; "
                "prune it or choose another runtime"
            )
        if any(step.get("technique") == "quantize" for step in info.recipe):
            return "the model is quantized already"
        if target.device == "gpu" and config.scheme != "fp16":
            return f"{config.scheme} is for CPUs; on a GPU use fp16"
        if config.scheme == "bf16":
            if info.runtime.name != "openvino":
                return (
                    f"the runtime {info.runtime.name} has no bfloat16 arithmetic on the CPU; "
                    "put the step runtime with engine openvino and precision bf16 before"
                )
            if not environment.has_bfloat16():
                return (
                    f"this CPU ({environment.cpu_model()}) has no bfloat16 instructions "
                    "(avx512_bf16 or amx_bf16), so it would be emulated and slow"
                )
        if config.scheme == "dynamic-int8" and info.family == "cnn":
            return "dynamic INT8 makes convolutions several times slower; use static-int8"
        return None

    def apply(self, source: Path, out: Path, config: QuantizeConfig, context: Context) -> ModelInfo:
        """Makes the quantized model (see `Technique.apply`)."""
        parent = read(source)
        if not parent.has_onnx:
            raise NotApplicable(
                "the model has no ONNX form yet", file=source, mend="put optimize_graph before"
            )
        if reason := self.refusal(parent, config, context.target):
            raise NotApplicable(reason, file=source)
        # The trained form is left behind: it is not this model any more.
        changes: dict[str, Any] = {"framework": "onnx", "builder": None, "builder_arguments": {}}
        served = parent.runtime.name in ("onnxruntime", "openvino")
        runtime = parent.runtime if served else RuntimeChoice(name="onnxruntime")
        if config.scheme == "bf16":
            runtime = runtime.model_copy(update={"precision": "bf16"})
        with writing(out) as partial, tempfile.TemporaryDirectory() as scratch:
            target = partial / ONNX_FILE
            note = _convert(source / ONNX_FILE, target, Path(scratch), parent, config, context)
            info = child(parent, config, runtime=runtime, notes={"quantize": note}, **changes)
            info = seal(partial, info)
            _check(partial, context)
            return info


def _convert(
    source: Path,
    target: Path,
    scratch: Path,
    info: ModelInfo,
    config: QuantizeConfig,
    context: Context,
) -> dict[str, Any]:
    """Writes the converted graph and says what was done, for the card."""
    if config.scheme in ("fp16", "bf16"):
        if context.target.device == "gpu":
            return _half.compute_in_half(source, target, config.exclude)
        return _half.store_in_half(source, target, config.scheme, config.exclude)
    reduce = config.reduce_range
    if reduce is None:
        reduce = not environment.has_int8_dot_product()
    settings = _int8.Settings(config.per_channel, reduce, config.exclude)
    if config.scheme == "dynamic-int8":
        return _int8.dynamic(source, target, scratch, settings)
    from trimgate.models import build_inputs

    chosen = np.arange(len(context.train))
    if len(chosen) > config.rows:
        generator = np.random.default_rng(context.seed)
        chosen = np.sort(generator.choice(len(chosen), config.rows, replace=False))
    inputs = build_inputs(info, context.train.take(chosen).features)
    calibration = _int8.Calibration(inputs, config.method, config.percentile)
    return _int8.static(source, target, scratch, settings, calibration)


def _check(directory: Path, context: Context) -> None:
    """Loads the result with its runtime and looks at some scores."""
    from trimgate.models import build_inputs

    session = runtimes.load(directory, threads=context.target.threads)
    try:
        rows = context.validation.take(slice(0, _CHECKED_ROWS))
        scores = session.predict(build_inputs(session.info, rows.features))
    finally:
        session.close()
    if not np.isfinite(scores).all():
        raise NotApplicable("the quantized model gives scores that are not finite")
