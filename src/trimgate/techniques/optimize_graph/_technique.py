"""The technique `optimize_graph`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs, directory, export_onnx, load_trainable, sample_rows
from trimgate.models.directory import ONNX_FILE, ModelInfo, RuntimeChoice
from trimgate.models.export import PARITY_ROWS, Parity, Tolerance, compare, run_onnx, scores_of
from trimgate.targets import Target
from trimgate.techniques._base import (
    Context,
    Form,
    Stage,
    StepConfig,
    Suggestion,
    Technique,
    child,
)
from trimgate.techniques.optimize_graph._optimize import Level, optimize_file


class OptimizeGraphConfig(StepConfig):
    """Parameters of `optimize_graph`.

    Attributes:
        opset: Version of the default ONNX operator set to export to; ignored when the model has
            its ONNX form already.
        level: `basic` leaves a portable graph (OpenVINO, Triton, other CPUs); `extended` uses
            operators that only ONNX Runtime has; `none` exports only.
        score_tolerance: Largest difference of a score to the original model that counts as equal
            (relative for regression).
        row_share: Share of the sample's rows that must have equal scores, and share that must
            get the same label.
    """

    technique: Literal["optimize_graph"] = "optimize_graph"
    opset: int | None = Field(default=None, ge=15, le=21)
    level: Level = "basic"
    score_tolerance: float = Field(default=1e-4, gt=0)
    row_share: float = Field(default=0.999, gt=0, le=1)


class OptimizeGraph(Technique[OptimizeGraphConfig]):
    """Exports the model to ONNX and optimizes the graph; served by ONNX Runtime."""

    name: ClassVar[str] = "optimize_graph"
    config: ClassVar[type[OptimizeGraphConfig]] = OptimizeGraphConfig
    needs: ClassVar[Form] = "trainable"
    gives: ClassVar[Form] = "onnx"
    stage: ClassVar[Stage] = "graph"

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """See `Technique.suggest`."""
        return [Suggestion({"technique": "optimize_graph"})]

    def refusal(self, info: ModelInfo, config: OptimizeGraphConfig, target: Target) -> str | None:
        """See `Technique.refusal`."""
        if not {"onnxruntime", "openvino"} & set(target.runtimes):
            return f"the target {target.name} runs no engine that reads ONNX"
        if config.level == "extended" and "onnxruntime" not in target.runtimes:
            return (
                f"level extended is for ONNX Runtime, which the target {target.name} does not run"
            )
        if info.framework == "onnx" and not info.has_onnx:
            return "the model has neither a trainable form nor ONNX"
        if any(name.startswith(f"{ONNX_FILE}.") for name in info.files):
            return "the weights of the ONNX form are outside its file"
        return None

    def apply(
        self, source: Path, out: Path, config: OptimizeGraphConfig, context: Context
    ) -> ModelInfo:
        """See `Technique.apply`."""
        parent = directory.read(source)
        words = self.refusal(parent, config, context.target)
        if words:
            raise NotApplicable(words)
        tolerance = Tolerance(config.score_tolerance, config.row_share, config.row_share)
        sample = _sample(context)
        with directory.writing(out) as partial:
            raw = partial / "raw.onnx"
            if parent.has_onnx:
                raw.write_bytes((source / ONNX_FILE).read_bytes())
                changes: dict[str, Any] = {}
                note: dict[str, Any] = dict(parent.notes.get(self.name, {}))
            else:
                model = load_trainable(source, parent)
                changes = export_onnx(
                    model, parent, sample, raw, opset=config.opset, tolerance=tolerance
                )
                note = changes.pop("notes")[self.name]
            runtime = _runtime(parent, context.target)
            record = child(parent, config, **changes, runtime=runtime)
            optimize_file(raw, partial / ONNX_FILE, config.level)
            optimized = _verify(raw, partial / ONNX_FILE, record, sample, tolerance)
            raw.unlink()
            for name in parent.files:
                if not name.startswith(ONNX_FILE):
                    copy = partial / name
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes((source / name).read_bytes())
            note = {"parity": optimized.as_dict(), **note, "level": config.level}
            record = record.model_copy(update={"notes": {**record.notes, self.name: note}})
            return directory.seal(partial, record)


def _runtime(parent: ModelInfo, target: Target) -> RuntimeChoice:
    """ONNX Runtime, or what the model had if that reads ONNX; OpenVINO where it is the only one."""
    if "onnxruntime" not in target.runtimes:
        return RuntimeChoice(name="openvino")
    if parent.runtime.name == "onnxruntime":
        chosen = parent.runtime
    else:
        chosen = RuntimeChoice(name="onnxruntime")
    if target.device == "gpu":
        return chosen.model_copy(update={"options": {"device": "gpu", **chosen.options}})
    return chosen


def _sample(context: Context) -> Dataset:
    """Rows of the validation split, spread over it, and of the training split where it is small."""
    rows = sample_rows(context.validation, PARITY_ROWS)
    lacking = PARITY_ROWS - len(rows)
    if lacking <= 0 or len(context.train) == 0:
        return rows
    more = sample_rows(context.train, lacking)
    features = {n: np.concatenate([v, more.features[n]]) for n, v in rows.features.items()}
    return Dataset(features, np.concatenate([rows.labels, more.labels]))


def _verify(
    before: Path, after: Path, record: ModelInfo, sample: Dataset, tolerance: Tolerance
) -> Parity:
    inputs = build_inputs(record, sample.features)
    parity = compare(
        scores_of(run_onnx(before, record, inputs), record),
        scores_of(run_onnx(after, record, inputs), record),
        tolerance,
        regression=record.task == "regression",
    )
    if not parity.holds(tolerance):
        raise NotApplicable(
            f"the optimized graph gives other scores (by up to {parity.max_difference:.2g})"
        )
    return parity


TECHNIQUE = OptimizeGraph()
