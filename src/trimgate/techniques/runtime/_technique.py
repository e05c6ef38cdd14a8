"""The step `runtime`."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate import runtimes
from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.judge.records import Parity
from trimgate.models.directory import (
    ONNX_FILE,
    ONNX_RUNTIMES,
    FileInfo,
    ModelInfo,
    RuntimeChoice,
    read,
    seal,
    writing,
)
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
from trimgate.techniques.runtime._choose import Found, choose
from trimgate.techniques.runtime._config import PREFERENCE, RuntimeConfig
from trimgate.techniques.runtime._measure import Bench
from trimgate.techniques.runtime._tune import tune

_ROWS = 512
# Texts and images cost milliseconds a row, on each engine.
_TEXTS = 128
_BYTES = 2**25
_LEAST_ROWS = 64
_MIN_AGREEMENT = 0.99
# Engines round the sums of a quantized graph in ways of their own, which tips rows that are near a
# tie, to either side; whether it is still as good is for the gate to say.
_MIN_AGREEMENT_QUANTIZED = 0.95
# How far a regression value may be off and still count as the same, as a share of the larger
# of the value and the spread of all values: rounding of f32, and of 8 bits of mantissa.
_TOLERANCE = {"f32": 1e-4, "bf16": 2e-2, "f16": 2e-3}
# What f32 makes of a probability on any engine; bfloat16 differs by more on most rows.
_SAME_SCORE = 1e-3
_SLOW_TO_LOAD = ("openvino-ep", "torch")


class RuntimeTechnique(Technique[RuntimeConfig]):
    """Sets the engine and proves on validation rows that it computes the same.

    Notes:
        `auto` prefers the engines in the order `onnxruntime`, `openvino`, `daal4py`, `native`,
        `openvino-ep`, `torch`, and leaves one for another only where that is at least 1.1 times as
        fast, so that engines that tie give the same model in every run. Options stay at their
        defaults unless another value is 3 % faster.
    """

    name = "runtime"
    config = RuntimeConfig
    needs = "onnx"
    gives = "onnx"
    stage = "runtime"

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """The fastest engine for trees; OpenVINO for networks, in BF16 where the CPU has it."""
        step: dict[str, Any] = {"technique": self.name}
        if target.device == "gpu":
            return ()
        if info.family == "trees":
            if not {"onnxruntime", "daal4py"} <= set(target.runtimes):
                return ()
            return [
                Suggestion({**step, "engine": "auto"}),
                Suggestion({**step, "engine": "daal4py"}, usual=False),
                Suggestion({**step, "engine": "auto", "tune_options": True}, usual=False),
            ]
        if info.family == "linear" or (info.family == "other" and info.framework == "sklearn"):
            return ()
        found = []
        if "openvino" in target.runtimes:
            openvino = {**step, "engine": "openvino"}
            found.append(Suggestion(openvino))
            if flags & {"avx512_bf16", "amx_bf16"}:
                found.append(Suggestion({**openvino, "precision": "bf16"}))
        if "onnxruntime" in target.runtimes:
            tuned = {**step, "engine": "auto", "tune_options": True}
            found.append(Suggestion(tuned, usual=False))
        for engine in _SLOW_TO_LOAD:
            fits = engine == "openvino-ep" or info.framework == "torch"
            if fits and engine in target.runtimes and runtimes.get(engine).missing() is None:
                found.append(Suggestion({**step, "engine": engine}, usual=False))
        return found

    def foresee(self, info: ModelInfo, config: RuntimeConfig, target: Target) -> ModelInfo:
        """With the engine that is set."""
        if config.engine == "auto":
            return info
        choice = _choice(info, config, config.engine, target)
        return info.model_copy(update={"runtime": choice})

    def order_problem(self, config: RuntimeConfig, before: Sequence[StepConfig]) -> str | None:
        """See `Technique.order_problem`."""
        for step in before:
            if isinstance(step, RuntimeConfig):
                return f"the engine was chosen before ({step.title()}); give one step runtime"
            if step.technique == "optimize_graph" and config.engine in ("openvino", "openvino-ep"):
                if getattr(step, "offline", False):
                    return "OpenVINO cannot read what ONNX Runtime optimized offline for itself"
                level = getattr(step, "level", "basic")
                if config.engine == "openvino" and level in ("extended", "transformer"):
                    return (
                        f"level {level} of optimize_graph before it uses operators that only "
                        "ONNX Runtime has"
                    )
        return None

    def form_needed(self, config: RuntimeConfig) -> Form:
        """`trainable` for the engines that read it, else `onnx`; `auto` finds both in one."""
        return config.form

    def form_given(self, config: RuntimeConfig) -> Form:
        """The same form: the model does not change."""
        return config.form

    def refusal(self, info: ModelInfo, config: RuntimeConfig, target: Target) -> str | None:
        """Why the engine cannot run this model on this machine or target, or None."""
        if config.form == "onnx" and not info.has_onnx:
            # The export may come in a step before; only what does not depend on it is asked.
            pending = FileInfo(sha256="", size=0)
            info = info.model_copy(update={"files": {ONNX_FILE: pending}, "score_output": "scores"})
        if config.engine != "auto":
            return _problem(info, _choice(info, config, config.engine, target), target)
        if config.options:
            return "engine auto takes no options: they belong to one engine; use tune_options"
        reasons = {
            name: _problem(info, _choice(info, config, name, target), target)
            for name in _compared(config, target)
        }
        usable = [name for name, reason in reasons.items() if reason is None]
        if len(usable) > 1:
            return None
        if len(usable) == 1:
            return f"there is nothing to choose: {usable[0]} is the only engine that can run it"
        said = "; ".join(dict.fromkeys(str(reason) for reason in reasons.values()))
        return f"no engine can run it: {said or 'none is given'}"

    def apply(self, source: Path, out: Path, config: RuntimeConfig, context: Context) -> ModelInfo:
        """Makes the same model with another engine (see `Technique.apply`)."""
        parent = read(source)
        if config.form == "onnx" and not parent.has_onnx:
            raise NotApplicable(
                "the model has no ONNX form yet", file=source, mend="put optimize_graph before"
            )
        if reason := self.refusal(parent, config, context.target):
            raise NotApplicable(reason, file=source)
        bench = Bench(
            source,
            parent,
            _spread(context.validation, max(_ROWS, *context.target.batch_sizes)),
            context.target.threads,
            config.seconds * context.effort,
            context.seed,
        )
        note: dict[str, Any] = dict(parent.notes.get("runtime", {}))
        if config.engine == "auto":
            found = _fastest(bench, config, context.target)
            runtime, note = found.choice, {**note, **found.note()}
        else:
            runtime = _choice(parent, config, config.engine, context.target)
        if config.tune_options:
            runtime, note["options"] = _tuned(bench, runtime, config, context.target)
        changes: dict[str, object] = {"runtime": runtime}
        if config.form == "trainable":
            changes.update(outputs=(), score_output=None)
        with writing(out) as partial:
            for name in parent.files:
                if config.form == "onnx" or not name.startswith(ONNX_FILE):
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / name, partial / name)
            info = seal(partial, child(parent, config, **changes))
            parity = _parity(source, partial, info, context, config)
            note["parity"] = parity.model_dump(mode="json")
            return seal(partial, info.model_copy(update={"notes": {**info.notes, "runtime": note}}))


def _compared(config: RuntimeConfig, target: Target) -> list[Any]:
    """The engines that `auto` compares, the preferred first."""
    wanted = config.engines or [name for name in target.runtimes if name not in _SLOW_TO_LOAD]
    return [name for name in PREFERENCE if name in wanted]


def _problem(info: ModelInfo, choice: RuntimeChoice, target: Target) -> str | None:
    """Why an engine cannot run the model on this machine or target, or None."""
    if choice.name not in target.runtimes:
        return f"the target {target.name} does not allow the runtime {choice.name}"
    if target.device == "gpu" and choice.name != "onnxruntime":
        return f"the runtime {choice.name} computes on the CPU only"
    if info.runtime.cpu_flags and choice.name in ONNX_RUNTIMES and not choice.cpu_flags:
        return f"the graph was optimized offline for ONNX Runtime; {choice.name} cannot read it"
    if reason := runtimes.get(choice.name).missing():
        return reason
    return runtimes.refusal(info.model_copy(update={"runtime": choice}))


def _choice(info: ModelInfo, config: RuntimeConfig, engine: Any, target: Target) -> RuntimeChoice:
    """An engine with its options; what belongs to the graph as it is stays."""
    same = info.runtime.name == engine
    options = {**(info.runtime.options if same else {}), **config.options}
    if target.device == "gpu" and engine == "onnxruntime":
        options.setdefault("device", "gpu")
    return RuntimeChoice(
        name=engine,
        precision=config.precision,
        options=options,
        cpu_flags=info.runtime.cpu_flags if same else (),
    )


def _fastest(bench: Bench, config: RuntimeConfig, target: Target) -> Found:
    """The fastest engines of those that say what the parent says."""
    choices, left_out = {}, {}
    expected = _scores(bench.info, bench, bench.info.runtime)
    for name in _compared(config, target):
        choice = _choice(bench.info, config, name, target)
        reason = _problem(bench.info, choice, target)
        if reason is None:
            try:
                parity = _compare(expected, _scores(bench.info, bench, choice), config, bench.info)
                reason = _unlike(parity, choice.name, bench.info)
            except NotApplicable as error:
                reason = error.problem
        if reason is None:
            choices[name] = choice
        else:
            left_out[name] = reason
    if not choices:
        raise NotApplicable(f"no engine can run it: {'; '.join(left_out.values())}")
    found = choose(bench, choices, target.batch_sizes)
    found.left_out.update(left_out)
    return found


def _tuned(
    bench: Bench, runtime: RuntimeChoice, config: RuntimeConfig, target: Target
) -> tuple[RuntimeChoice, list[Any]]:
    """The choice with tuned options, of the engine for many rows too."""
    notes = []
    many = runtime.large
    few = [s for s in target.batch_sizes if many is None or s < many.rows] or [1]
    alone = runtime.model_copy(update={"large": None})
    options, note = tune(bench, alone, few[0], config.options)
    notes.append({"engine": runtime.name, **note})
    if many is not None:
        sizes = [s for s in target.batch_sizes if s >= many.rows] or [many.rows]
        more, note = tune(bench, many.runtime, sizes[0], config.options)
        notes.append({"engine": many.runtime.name, **note})
        tuned = many.runtime.model_copy(update={"options": {**many.runtime.options, **more}})
        many = many.model_copy(update={"runtime": tuned})
    changes = {"options": {**runtime.options, **options}, "large": many}
    return runtime.model_copy(update=changes), notes


def _parity(
    source: Path, out: Path, info: ModelInfo, context: Context, config: RuntimeConfig
) -> Parity:
    """Scores of the parent and of every engine of the result on the same validation rows."""
    rows = _some(context.validation, read(source))
    threads = context.target.threads
    parent = read(source)
    expected = _scores(parent, Bench(source, parent, rows, threads, 1.0), parent.runtime)
    found = []
    for choice in info.runtime.engines():
        alone = choice.model_copy(update={"large": None})
        given = _scores(info, Bench(out, info, rows, threads, 1.0), alone)
        parity = _compare(expected, given, config, parent)
        if reason := _unlike(parity, choice.name, parent):
            raise NotApplicable(reason, file=source)
        found.append(parity)
    return max(found, key=lambda parity: parity.max_difference)


def _unlike(parity: Parity, name: str, parent: ModelInfo) -> str | None:
    least = _MIN_AGREEMENT_QUANTIZED if did(parent, "quantize") else _MIN_AGREEMENT
    if parity.agreement >= least:
        return None
    return (
        f"{name} agrees with its parent on {parity.agreement:.1%} of {parity.rows} rows only "
        f"(largest difference {parity.max_difference:.2g})"
    )


def _compare(
    expected: NDArray[np.float64],
    given: NDArray[np.float64],
    config: RuntimeConfig,
    parent: ModelInfo,
) -> Parity:
    """How alike the scores are; a row agrees when its label is the same.

    In f32, and before anything is quantized, its scores must be the same too: an engine that
    silently computes in another precision shows there.
    """
    if not np.isfinite(given).all():
        raise NotApplicable("the runtime gives scores that are not finite")
    difference = np.abs(given - expected)
    if expected.ndim == 2:
        alike = given.argmax(axis=1) == expected.argmax(axis=1)
        quantized = did(parent, "quantize")
        if config.precision == "f32" and parent.runtime.precision == "f32" and not quantized:
            alike &= difference.max(axis=1) <= _SAME_SCORE
    else:
        scale = np.maximum(np.abs(expected), expected.std())
        alike = difference <= _TOLERANCE[config.precision] * scale
    return Parity(
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        agreement=float(np.mean(alike)),
        rows=len(expected),
    )


def _scores(info: ModelInfo, bench: Bench, choice: RuntimeChoice) -> NDArray[np.float64]:
    """Scores of all rows by one engine."""
    if choice.large is not None:
        session = runtimes.load(bench.directory, threads=bench.threads)
    else:
        session = bench.load(choice)
    try:
        return runtimes.predict(session, _some(bench.rows, info)).astype(np.float64)
    finally:
        session.close()


def _some(rows: Dataset, info: ModelInfo) -> Dataset:
    """Rows to compare scores on."""
    limit = _TEXTS if info.tokenizer else _ROWS
    row = sum(values.nbytes for values in rows.features.values()) / max(1, len(rows))
    return _spread(rows, min(limit, max(_LEAST_ROWS, int(_BYTES / max(1.0, row)))))


def _spread(rows: Dataset, limit: int) -> Dataset:
    """At most `limit` rows, evenly spread: validation rows may be sorted."""
    if len(rows) <= limit:
        return rows
    return rows.take(np.linspace(0, len(rows) - 1, limit).astype(np.int64))
