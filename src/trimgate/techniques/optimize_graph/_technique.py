"""The technique `optimize_graph`."""

import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trimgate import environment, runtimes
from trimgate.data.dataset import Dataset
from trimgate.errors import MissingExtra, NotApplicable
from trimgate.models import build_inputs, directory, export_onnx, load_trainable, sample_rows
from trimgate.models.directory import ONNX_FILE, ONNX_RUNTIMES, ModelInfo, RuntimeChoice
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
from trimgate.techniques.optimize_graph._classic import rewrite
from trimgate.techniques.optimize_graph._config import OptimizeGraphConfig
from trimgate.techniques.optimize_graph._fusion import fuse_transformer
from trimgate.techniques.optimize_graph._optimize import (
    convert_opset,
    load,
    opset_of,
    optimize_file,
    save_offline,
    tidy,
    write,
)

# Rows of arrays (images) or long texts cost seconds each; so many bytes of them tell enough.
_SAMPLE_BYTES = 2**24
_LEAST_ROWS = 32
_TEXTS = 256


class OptimizeGraph(Technique[OptimizeGraphConfig]):
    """Exports the model to ONNX and optimizes the graph; served by ONNX Runtime.

    Notes:
        `offline` with `external_data` saves memory and the time to load, not the time of a call:
        measured on a ResNet-50 it loads in a fiftieth of the CPU time and half of the memory,
        most of which is the mapped file that several processes share. Fusing what torch exports
        today made ONNX Runtime 1.31 no faster, in float32 or in dynamic INT8; `transformer` is
        there for graphs and versions where it does, and the benchmark decides.
    """

    name: ClassVar[str] = "optimize_graph"
    config: ClassVar[type[OptimizeGraphConfig]] = OptimizeGraphConfig
    needs: ClassVar[Form] = "trainable"
    gives: ClassVar[Form] = "onnx"
    stage: ClassVar[Stage] = "graph"

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """The plain export; fusion of transformers is worth a trial before dynamic INT8."""
        plain: dict[str, Any] = {"technique": self.name}
        found = [Suggestion(plain)]
        if "onnxruntime" in target.runtimes:
            if info.family == "transformer":
                found.append(Suggestion({**plain, "level": "transformer"}, usual=False))
            if info.family in ("cnn", "transformer") and target.device == "cpu":
                offline = {**plain, "offline": True, "external_data": True}
                found.append(Suggestion(offline, usual=False))
        return found

    def order_problem(
        self, config: OptimizeGraphConfig, before: Sequence[StepConfig]
    ) -> str | None:
        """See `Technique.order_problem`."""
        for step in before:
            if isinstance(step, OptimizeGraphConfig):
                if step.offline:
                    return "optimize_graph with offline before it left a graph that is final"
                more = config.offline or config.external_data or config.opset
                if step == config or not (more or config.level != "basic"):
                    return "the graph is optimized already"
            if step.technique == "quantize":
                if config.level in ("extended", "transformer"):
                    return (
                        f"level {config.level} recognizes nothing in a quantized graph; "
                        "put optimize_graph before quantize"
                    )
                if not (config.offline or config.external_data):
                    return "a quantized graph has nothing left to optimize but offline"
            engine = getattr(step, "engine", None)
            if step.technique == "runtime" and engine != "onnxruntime" and not config.portable:
                return f"the runtime {engine} before it cannot read what only ONNX Runtime has"
        return None

    def refusal(self, info: ModelInfo, config: OptimizeGraphConfig, target: Target) -> str | None:
        """See `Technique.refusal`."""
        if not set(ONNX_RUNTIMES) & set(target.runtimes):
            return f"the target {target.name} runs no engine that reads ONNX"
        if not config.portable and "onnxruntime" not in target.runtimes:
            what = "offline" if config.offline else f"level {config.level}"
            return f"{what} is for ONNX Runtime, which the target {target.name} does not run"
        if config.offline and target.device != "cpu":
            return f"offline is for this kind of CPU, which the target {target.name} is not"
        if config.level == "transformer" and info.family not in ("transformer", "other"):
            return f"level transformer is for transformer encoders, and this is a {info.family}"
        if config.level == "transformer" and importlib.util.find_spec("sympy") is None:
            # ONNX Runtime's tools find shapes with it; torch brings it
            return str(MissingExtra("sympy", "torch"))
        if info.runtime.cpu_flags:
            return "the graph is final: it was optimized offline for this CPU"
        if info.framework == "onnx" and not info.has_onnx:
            return "the model has neither a trainable form nor ONNX"
        return None

    def apply(
        self, source: Path, out: Path, config: OptimizeGraphConfig, context: Context
    ) -> ModelInfo:
        """See `Technique.apply`."""
        parent = directory.read(source)
        words = self.refusal(parent, config, context.target)
        if words:
            raise NotApplicable(words)
        sample = _sample(context, parent)
        with directory.writing(out) as partial, tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            raw = scratch / "raw.onnx"
            changes: dict[str, Any] = {}
            note: dict[str, Any] = dict(parent.notes.get(self.name, {}))
            if parent.has_onnx:
                write(load(source / ONNX_FILE), raw)
            else:
                changes = export_onnx(
                    load_trainable(source, parent),
                    parent,
                    sample,
                    raw,
                    opset=config.opset,
                    tolerance=_tolerance(config),
                )
                note = changes.pop("notes")[self.name]
            runtime = _runtime(parent, context.target, config)
            record = child(parent, config, **changes, runtime=runtime)
            work = _Work(raw, scratch, record, sample, config)
            optimized, parity, done = work.run()
            _publish(optimized, partial / ONNX_FILE, config, done)
            for name in parent.files:
                if not name.startswith(ONNX_FILE):
                    copy = partial / name
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes((source / name).read_bytes())
            note = {"parity": parity.as_dict(), **note, "level": config.level, **done}
            record = directory.seal(
                partial, record.model_copy(update={"notes": {**record.notes, self.name: note}})
            )
            if config.offline:
                work.check_served(partial)
            return record


@dataclass(frozen=True)
class _Work:
    """One graph on its way.

    Attributes:
        raw: The graph as it was exported.
        scratch: A private directory.
        record: What the model's record will say.
        sample: Rows to compare on.
        config: The step's parameters.
    """

    raw: Path
    scratch: Path
    record: ModelInfo
    sample: Dataset
    config: OptimizeGraphConfig

    def run(self) -> tuple[Path, Parity, dict[str, Any]]:
        """Optimizes; gives the file, how equal its scores are, and notes of what was done.

        Raises:
            NotApplicable: It cannot be read or gives other scores, or there is nothing to fuse.
        """
        done: dict[str, Any] = {}
        start = self.raw
        if self.config.level != "none" or self.config.opset:
            model = load(self.raw)
            if self.config.opset:
                model = convert_opset(model, self.config.opset)
                done["opset"] = opset_of(model)
            rewritten = rewrite(model) if self.config.level != "none" else {}
            if rewritten:
                done["rewritten"] = rewritten
            start = self.scratch / "start.onnx"
            write(model, start)
        basic = self.scratch / "optimized.onnx"
        optimize_file(start, basic, self.config.level)
        if self.config.level != "transformer":
            return basic, self._verify(basic), done
        return self._fuse(basic, done)

    def _fuse(self, basic: Path, done: dict[str, Any]) -> tuple[Path, Parity, dict[str, Any]]:
        """Fuses a transformer, without attention where that gives other scores."""
        fused = self.scratch / "fused.onnx"
        try:
            counts = self._write_fused(basic, fused, attention=True)
            return fused, self._verify(fused), {**done, "fused": counts}
        except NotApplicable as error:
            reason = f"not fused: {error.problem}"
        counts = self._write_fused(basic, fused, attention=False)
        return fused, self._verify(fused), {**done, "fused": counts, "attention": reason}

    def _write_fused(self, basic: Path, fused: Path, *, attention: bool) -> dict[str, int]:
        model, counts = fuse_transformer(
            load(basic), self.record.builder_arguments, attention=attention
        )
        if not counts:
            raise NotApplicable("there is nothing in the graph that could be fused")
        tidy(model)
        write(model, fused)
        return counts

    def _verify(self, after: Path) -> Parity:
        """How equal the scores of two files are."""
        inputs = build_inputs(self.record, self.sample.features)
        return self._compare(scores_of(run_onnx(after, self.record, inputs), self.record))

    def check_served(self, made: Path) -> None:
        """Compares the finished directory, loaded as it will be served."""
        session = runtimes.load(made)
        try:
            self._compare(runtimes.predict(session, self.sample))
        finally:
            session.close()

    def _compare(self, found: Any) -> Parity:
        tolerance = _tolerance(self.config)
        inputs = build_inputs(self.record, self.sample.features)
        expected = scores_of(run_onnx(self.raw, self.record, inputs), self.record)
        parity = compare(expected, found, tolerance, regression=self.record.task == "regression")
        if not parity.holds(tolerance):
            raise NotApplicable(
                f"the optimized graph gives other scores (by up to {parity.max_difference:.2g})"
            )
        return parity


def _publish(optimized: Path, out: Path, config: OptimizeGraphConfig, done: dict[str, Any]) -> None:
    """Writes the graph in the form that is asked for."""
    if config.offline:
        blocked = config.layout == "blocked"
        done["offline"] = save_offline(
            optimized, out, blocked=blocked, external=config.external_data
        )
    else:
        write(load(optimized), out, external=config.external_data)


def _tolerance(config: OptimizeGraphConfig) -> Tolerance:
    return Tolerance(config.score_tolerance, config.row_share, config.row_share)


def _runtime(parent: ModelInfo, target: Target, config: OptimizeGraphConfig) -> RuntimeChoice:
    """What the model had if that reads ONNX, else ONNX Runtime, or OpenVINO if it is the only."""
    chosen = parent.runtime
    if chosen.name not in ONNX_RUNTIMES or chosen.name not in target.runtimes:
        allowed = next(name for name in ONNX_RUNTIMES if name in target.runtimes)
        chosen = RuntimeChoice(name=allowed)
    if chosen.name != "onnxruntime" and not config.portable:
        raise NotApplicable(
            f"the runtime {chosen.name} cannot read what only ONNX Runtime has",
            mend="put the step runtime with engine onnxruntime before",
        )
    options = dict(chosen.options)
    if target.device == "gpu" and chosen.name == "onnxruntime":
        options = {"device": "gpu", **options}
    if not config.offline:
        return chosen.model_copy(update={"options": options})
    flags = environment.cpu_flags()
    return chosen.model_copy(
        update={
            "options": {**options, "optimization": "disabled"},
            "cpu_flags": tuple(f for f in environment.NUMERIC_FLAGS if f in flags),
        }
    )


def _sample(context: Context, info: ModelInfo) -> Dataset:
    """Rows of the validation split, spread over it, and of the training split where it is small."""
    limit = _TEXTS if info.tokenizer else PARITY_ROWS
    if len(context.validation):
        few = context.validation.take(slice(0, 1))
        row = sum(np.asarray(values).nbytes for values in few.features.values())
        limit = min(limit, max(_LEAST_ROWS, _SAMPLE_BYTES // max(1, row)))
    rows = sample_rows(context.validation, limit)
    lacking = limit - len(rows)
    if lacking <= 0 or len(context.train) == 0:
        return rows
    more = sample_rows(context.train, lacking)
    features = {n: np.concatenate([v, more.features[n]]) for n, v in rows.features.items()}
    return Dataset(features, np.concatenate([rows.labels, more.labels]))


TECHNIQUE = OptimizeGraph()
