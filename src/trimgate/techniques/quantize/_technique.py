"""The step `quantize`: when it is refused, and the new model directory."""

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimgate import environment, runtimes
from trimgate.errors import NotApplicable
from trimgate.models.directory import ONNX_FILE, ModelInfo, RuntimeChoice, read, seal, writing
from trimgate.targets import Target
from trimgate.techniques._base import (
    Context,
    Form,
    StepConfig,
    Suggestion,
    Technique,
    child,
    did,
)
from trimgate.techniques.quantize._config import QuantizeConfig
from trimgate.techniques.quantize._convert import convert

_CHECKED_ROWS = 32
_STATIC = ("static-int8", "qat-int8")


class QuantizeTechnique(Technique[QuantizeConfig]):
    """Quantizes matrix products and convolutions.

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

    def form_needed(self, config: QuantizeConfig) -> Form:
        """`trainable` for training with rounding, else `onnx`."""
        return "trainable" if config.scheme == "qat-int8" else "onnx"

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """INT8: measured ranges for convolutions, and both ways for matrix products.

        A search also tries the other quantizer, training, weights only, and without the layers
        that hurt.
        """
        if info.family in ("trees", "linear"):
            return ()
        if info.family == "other" and info.framework == "sklearn":
            return ()  # neighbours, kernels, votes: no matrix products
        step: dict[str, Any] = {"technique": "quantize"}
        if target.device == "gpu":
            return [Suggestion({**step, "scheme": "fp16"})]
        if info.family == "transformer":
            # half of a small encoder's file are words; rounding them by rows costs nothing
            step["embeddings"] = True
        static = {**step, "scheme": "static-int8"}
        found = [Suggestion(static)]
        if info.family != "cnn":
            found.insert(0, Suggestion({**step, "scheme": "dynamic-int8"}))
        found.append(Suggestion({**static, "exclude": "auto"}, usual=False))
        if info.family in ("cnn", "transformer") and _has_nncf():
            found.append(Suggestion({**static, "quantizer": "nncf"}, usual=False))
        if info.family == "transformer":
            found.append(Suggestion({**step, "scheme": "weight-only"}, usual=False))
        if info.framework == "torch" and info.score_kind != "label":
            found.append(Suggestion({**step, "scheme": "qat-int8"}, usual=False))
        return found

    def order_problem(self, config: QuantizeConfig, before: Sequence[StepConfig]) -> str | None:
        """Quantized models are not quantized again, and fused graphs not statically."""
        if any(step.technique == "quantize" for step in before):
            return "the model would be quantized twice"
        if any(getattr(step, "offline", False) for step in before):
            return "optimize_graph with offline before it left a graph that is final; put it last"
        if any(getattr(step, "engine", None) == "auto" for step in before):
            return "the fastest engine of another model was measured before it; put runtime last"
        if config.scheme == "static-int8" and any(_fuses(step) for step in before):
            return (
                "static INT8 works on the plain graph, and optimize_graph before it fuses "
                "operators; give it level basic, or use dynamic-int8"
            )
        return None

    def refusal(self, info: ModelInfo, config: QuantizeConfig, target: Target) -> str | None:
        """Why it cannot be quantized so, in words; or None."""
        if info.family == "trees":
            return (
                "a tree ensemble has no matrix products or convolutions to quantize; "
                "prune it or choose another runtime"
            )
        if did(info, "quantize"):
            return "the model is quantized already"
        if info.runtime.cpu_flags:
            return "the graph is final: it was optimized offline for this CPU"
        if target.device == "gpu" and config.scheme != "fp16":
            return f"{config.scheme} is for CPUs; on a GPU use fp16"
        if config.scheme == "bf16":
            return _no_bf16(info)
        if config.scheme in ("dynamic-int8", "weight-only") and info.family == "cnn":
            return f"{config.scheme} does nothing good for convolutions; use static-int8"
        if config.scheme == "qat-int8":
            if info.framework != "torch":
                return (
                    "training with rounding needs the torch form of the model; "
                    f"this one is there as {info.framework}"
                )
            if info.score_kind == "label":
                return "a module that puts out labels cannot be fine-tuned"
        if config.quantizer == "nncf" and not _has_nncf():
            return "the Python package nncf is not installed (extra: nncf)"
        return None

    def apply(self, source: Path, out: Path, config: QuantizeConfig, context: Context) -> ModelInfo:
        """Makes the quantized model (see `Technique.apply`)."""
        parent = read(source)
        if self.form_needed(config) == "onnx" and not parent.has_onnx:
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
        parent_served = parent.model_copy(update={"runtime": runtime})
        with writing(out) as partial, tempfile.TemporaryDirectory() as scratch:
            made = convert(
                source, partial / ONNX_FILE, Path(scratch), parent_served, config, context
            )
            notes = {**made.notes, "quantize": made.note}
            changes |= {**made.changes, "runtime": runtime, "notes": notes}
            info = seal(partial, child(parent, config, **changes))
            _check(partial, context)
            return info


def _no_bf16(info: ModelInfo) -> str | None:
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
    return None


def _has_nncf() -> bool:
    return importlib.util.find_spec("nncf") is not None


def _fuses(step: StepConfig) -> bool:
    """Whether a step leaves operators of ONNX Runtime's own in a graph."""
    return step.technique == "optimize_graph" and getattr(step, "level", None) == "extended"


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
