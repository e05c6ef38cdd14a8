"""What the benchmarks share: applying steps, judging and timing two models, and one line of CPU."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import trimgate
from trimgate import environment, runtimes
from trimgate.data import Dataset, digest, halves
from trimgate.errors import TrimgateError
from trimgate.judge.benchmark import BenchmarkSettings
from trimgate.judge.evaluation import evaluate
from trimgate.judge.harness import run_benchmark
from trimgate.judge.records import Benchmark, Evaluation, Interval
from trimgate.models.directory import ModelInfo, read
from trimgate.recipes import make_recipe
from trimgate.targets import PROFILES, Target
from trimgate.techniques import Context, StepConfig, get

log = logging.getLogger("benchmarks")

SEED = 0
EXPORT: tuple[dict[str, Any], ...] = ({"technique": "optimize_graph"},)
# The flags that decide how fast 8-bit and 16-bit arithmetic is.
_TELLING = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@dataclass(frozen=True)
class Model:
    """A trained model, imported, with its rows.

    Attributes:
        name: In tables.
        folder: Where everything made from it is kept.
        metric: The primary metric.
        batch_sizes: Rows per call to time: few and many.
    """

    name: str
    folder: Path
    metric: str
    batch_sizes: tuple[int, ...]

    @property
    def native(self) -> Path:
        """The model directory of the model as it was trained."""
        return self.folder / "native"

    def rows(self, split: str) -> Path:
        """The directory of a split's rows."""
        return self.folder / "rows" / split

    @property
    def target(self) -> Target:
        """The cloud CPU, with this model's batch sizes."""
        return PROFILES["cloud-cpu"].model_copy(update={"batch_sizes": self.batch_sizes})


class RefusedError(Exception):
    """A step does not apply; the message is its reason."""


def logging_to_console() -> None:
    """Progress, one line each, of the benchmarks and of trimgate."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    # of this process alone: children time with threads as users have them
    environment.wait_patiently()


def machine() -> str:
    """The CPU, its telling flags and the load, for the line above a table."""
    flags = environment.cpu_flags()
    known = [flag for flag in _TELLING if flag in flags]
    absent = [] if any(flag.startswith("amx") for flag in known) else ["no AMX"]
    load = os.getloadavg()[0]
    return (
        f"{environment.cpu_model()} ({', '.join([*known, *absent])}), {environment.cores()} cores, "
        f"load average {load:.1f}"
    )


def apply_steps(model: Model, steps: Sequence[Mapping[str, Any]]) -> Path:
    """The model directory after some steps; what was made before is not made again.

    Args:
        model: The model.
        steps: As in a recipe; the export to ONNX is added where it is needed.

    Raises:
        RefusedError: A step does not apply.
    """
    info = read(model.native)
    try:
        recipe = make_recipe([dict(step) for step in steps], info, model.target)
        directory = model.native
        for step in recipe.steps:
            directory = _apply(model, directory, step)
    except TrimgateError as error:
        raise RefusedError(str(error)) from error
    return directory


def _apply(model: Model, source: Path, step: StepConfig) -> Path:
    parent = read(source)
    key = hashed([parent.digest, parent.recipe, step.model_dump(mode="json"), _code(step)])
    out = model.folder / "steps" / f"{step.technique}-{key}"
    if out.is_dir():
        return out
    technique = get(step.technique)
    reason = technique.refusal(parent, step, model.target)
    if reason:
        raise RefusedError(reason)
    log.info("%s: %s", model.name, step.title())
    context = Context(
        train=Dataset.load(model.rows("train")),
        validation=halves(Dataset.load(model.rows("validation")))[0],
        metric=model.metric,
        target=model.target,
        seed=SEED,
        work=out.with_suffix(".work"),
    )
    technique.apply(source, out, step, context)
    return out


def _code(step: StepConfig) -> str:
    """What a step's result depends on besides its input: the technique's own source."""
    package = Path(trimgate.__file__).parent
    folders = (package / "techniques" / step.technique, package / "training", package / "models")
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return hashed([file.read_text() for file in files])


def hashed(value: Any) -> str:
    """A short name for a JSON value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def scores_of(model: Model, directory: Path, split: str = "test") -> Any:
    """Scores of a split's rows, kept beside the model."""
    info = read(directory)
    rows = rows_of(model, split)
    file = model.folder / "scores" / f"{hashed([info.digest, digest(rows)])}.npy"
    if not file.is_file():
        session = runtimes.load(directory)
        try:
            scores = runtimes.predict(session, rows)
        finally:
            session.close()
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npy")
        np.save(partial, scores)
        partial.replace(file)
    return np.load(file)


def rows_of(model: Model, split: str) -> Dataset:
    """The rows of a split; of validation the half that no technique chooses on."""
    rows = Dataset.load(model.rows(split))
    return halves(rows)[1] if split == "validation" else rows


def judge(model: Model, before: Path, after: Path, split: str = "test") -> Evaluation:
    """The model after, beside the one before, on the rows of a split."""
    given = scores_of(model, before, split), scores_of(model, after, split)
    return judge_scores(model, read(before), *given, split)


def judge_scores(
    model: Model, info: ModelInfo, before: Any, after: Any, split: str = "test"
) -> Evaluation:
    """The same, from scores."""
    rows = rows_of(model, split)
    return evaluate(
        rows.labels,
        after,
        info.labels,
        name="after",
        model="after",
        split="test" if split == "test" else "validation",
        data=digest(rows),
        task=info.task,
        primary=model.metric,
        metrics=(model.metric,),
        baseline_scores=before,
        baseline_model=info.digest,
        seed=SEED,
    )


def measure_once(model: Model, before: Path, after: Path, seconds: float) -> Benchmark:
    """As `measure`; what was measured before is taken, however it came out."""
    pair = [read(before).digest, read(after).digest, model.batch_sizes, seconds]
    file = model.folder / "timings" / f"{hashed(pair)}.json"
    if not file.is_file():
        measured = measure(model, before, after, seconds)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(measured.model_dump_json(indent=1) + "\n")
    return Benchmark.model_validate_json(file.read_text())


def measure(model: Model, before: Path, after: Path, seconds: float) -> Benchmark:
    """The model after, timed beside the one before in fresh processes, on the test rows."""
    settings = BenchmarkSettings(seconds=seconds, timeout=1800)
    return run_benchmark(before, after, model.rows("test"), model.target, settings)


def ratio(interval: Interval, state: str = "clean") -> str:
    """`2.31× [2.28, 2.35]`, and how the timing was, if not clean."""
    shown = f"{interval.value:.3g}× [{interval.low:.3g}, {interval.high:.3g}]"
    return shown if state == "clean" else f"{shown} ({state})"


def difference(interval: Interval, points: bool = True) -> str:
    """`−0.12 [−0.30, +0.06]`, in points (hundredths) or as it is."""
    scale, form = (100, "+.2f") if points else (1, "+.3g")
    value, low, high = (interval.value * scale, interval.low * scale, interval.high * scale)
    return f"{value:{form}} [{low:{form}}, {high:{form}}]".replace("-", "−")


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
