"""The step `runtime`."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trimgate import runtimes
from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.judge.records import Parity
from trimgate.models.directory import (
    ONNX_FILE,
    FileInfo,
    ModelInfo,
    RuntimeChoice,
    RuntimeName,
    read,
    seal,
    writing,
)
from trimgate.targets import Target
from trimgate.techniques._base import Context, Form, StepConfig, Suggestion, Technique, child

_ROWS = 512
_MIN_AGREEMENT = 0.99
# How far a regression value may be off and still count as the same, as a share of the larger
# of the value and the spread of all values: rounding of f32, and of 8 bits of mantissa.
_TOLERANCE = {"f32": 1e-4, "bf16": 2e-2, "f16": 2e-3}


class RuntimeConfig(StepConfig):
    """Parameters of the step `runtime`.

    Attributes:
        engine: `onnxruntime`, `openvino`, `daal4py` (compiled trees) or `native`.
        precision: What the engine computes in.
        options: The engine's own options (see its module in `trimgate.runtimes`).
    """

    technique: Literal["runtime"] = "runtime"
    engine: RuntimeName
    precision: Literal["f32", "bf16", "f16"] = "f32"
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)

    def title(self) -> str:
        """The engine, and the precision where it is not the usual one."""
        name = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}.get(self.engine, self.engine)
        return name if self.precision == "f32" else f"{name} {self.precision.upper()}"


class RuntimeTechnique(Technique[RuntimeConfig]):
    """Sets the engine and proves on validation rows that it computes the same."""

    name = "runtime"
    config = RuntimeConfig
    needs = "onnx"
    gives = "onnx"
    stage = "runtime"

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """Compiled trees for large batches, OpenVINO for networks, BF16 where the CPU has it."""
        if info.family == "trees":
            if "daal4py" not in target.runtimes or max(target.batch_sizes) < 100:
                return ()
            return [Suggestion({"technique": "runtime", "engine": "daal4py"})]
        if "openvino" not in target.runtimes:
            return ()
        if info.family == "linear" or (info.family == "other" and info.framework == "sklearn"):
            return ()
        openvino = {"technique": "runtime", "engine": "openvino"}
        found = [Suggestion(openvino)]
        if flags & {"avx512_bf16", "amx_bf16"}:
            found.append(Suggestion({**openvino, "precision": "bf16"}))
        return found

    def form_needed(self, config: RuntimeConfig) -> Form:
        """`trainable` for the engines that read it, else `onnx`."""
        return "trainable" if config.engine in ("native", "daal4py") else "onnx"

    def form_given(self, config: RuntimeConfig) -> Form:
        """The same form: the model does not change."""
        return self.form_needed(config)

    def refusal(self, info: ModelInfo, config: RuntimeConfig, target: Target) -> str | None:
        """Why the engine cannot run this model on this machine or target, or None."""
        if config.engine not in target.runtimes:
            return f"the target {target.name} does not allow the runtime {config.engine}"
        if target.device == "gpu" and config.engine != "onnxruntime":
            return f"the runtime {config.engine} computes on the CPU only"
        runtime = runtimes.get(config.engine)
        if reason := runtime.missing():
            return reason
        if self.form_needed(config) == "onnx" and not info.has_onnx:
            # The export may come in a step before; only what does not depend on it is asked.
            pending = FileInfo(sha256="", size=0)
            info = info.model_copy(update={"files": {ONNX_FILE: pending}, "score_output": "scores"})
        return runtime.refusal(info.model_copy(update={"runtime": _choice(config, target)}))

    def apply(self, source: Path, out: Path, config: RuntimeConfig, context: Context) -> ModelInfo:
        """Makes the same model with another engine (see `Technique.apply`)."""
        parent = read(source)
        if self.form_needed(config) == "onnx" and not parent.has_onnx:
            raise NotApplicable(
                "the model has no ONNX form yet", file=source, mend="put optimize_graph before"
            )
        if reason := self.refusal(parent, config, context.target):
            raise NotApplicable(reason, file=source)
        with writing(out) as partial:
            for name in parent.files:
                if self.form_needed(config) == "onnx" or not name.startswith("model.onnx"):
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / name, partial / name)
            changes: dict[str, object] = {"runtime": _choice(config, context.target)}
            if self.form_needed(config) == "trainable":
                changes.update(outputs=(), score_output=None)
            info = seal(partial, child(parent, config, **changes))
            parity = _parity(source, partial, context, _TOLERANCE[config.precision])
            if parity.agreement < _MIN_AGREEMENT:
                raise NotApplicable(
                    f"{config.title()} agrees with its parent on {parity.agreement:.1%} of "
                    f"{parity.rows} rows only (largest difference {parity.max_difference:.2g})",
                    file=source,
                )
            note = {**parent.notes.get("runtime", {}), "parity": parity.model_dump(mode="json")}
            return seal(partial, info.model_copy(update={"notes": {**info.notes, "runtime": note}}))


def _choice(config: RuntimeConfig, target: Target) -> RuntimeChoice:
    options = dict(config.options)
    if target.device == "gpu" and config.engine == "onnxruntime":
        options.setdefault("device", "gpu")
    return RuntimeChoice(name=config.engine, precision=config.precision, options=options)


def _parity(source: Path, out: Path, context: Context, tolerance: float) -> Parity:
    """Scores of both on the same validation rows."""
    rows = _spread(context.validation, _ROWS)
    expected = _scores(source, rows, context.target.threads)
    given = _scores(out, rows, context.target.threads)
    if not np.isfinite(given).all():
        raise NotApplicable("the runtime gives scores that are not finite", file=source)
    difference = np.abs(given.astype(np.float64) - expected)
    if expected.ndim == 2:
        agreement = np.mean(given.argmax(axis=1) == expected.argmax(axis=1))
    else:
        scale = np.maximum(np.abs(expected), expected.std())
        agreement = np.mean(difference <= tolerance * scale)
    return Parity(
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        agreement=float(agreement),
        rows=len(rows),
    )


def _scores(directory: Path, rows: Dataset, threads: int) -> NDArray[np.float64]:
    from trimgate.models import build_inputs

    session = runtimes.load(directory, threads=threads)
    try:
        return session.predict(build_inputs(session.info, rows.features)).astype(np.float64)
    finally:
        session.close()


def _spread(rows: Dataset, limit: int) -> Dataset:
    """At most `limit` rows, evenly spread: validation rows may be sorted."""
    if len(rows) <= limit:
        return rows
    return rows.take(np.linspace(0, len(rows) - 1, limit).astype(np.int64))
