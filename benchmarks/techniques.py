"""What each technique gains and costs: before and after, on real data, on this machine.

    python benchmarks/techniques.py WORK [--only TECHNIQUE] [--tiny] [--write]

Each case is one model and the steps of a recipe. The model after them is judged on the test rows
beside the same model before them (by default its plain export to ONNX, so that the difference is
what the technique itself did), and timed beside it, interleaved. Models are trained once and kept
in WORK, and so are the results: an unchanged case is not measured again. `--write` puts each
table at the end of the component's README.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import _bench
import _models
from _bench import Model, RefusedError, log
from _cases import CASES, Case

from trimgate.errors import TrimgateError
from trimgate.judge.records import Benchmark, Evaluation, Interval
from trimgate.models.directory import read

HEADING = "\n## Measured\n"


@dataclass
class Result:
    """What was measured of a case.

    Attributes:
        title: The steps, for people.
        refused: Why it does not apply; empty when it does.
        evaluation: After, against before.
        benchmark: After, timed against before.
        native: After, timed against the model as it was trained.
        notes: What the technique noted, those that the case shows.
        machine: CPU, flags and load.
        when: Of the measurement.
    """

    title: str
    refused: str = ""
    evaluation: dict[str, Any] = field(default_factory=dict)
    benchmark: dict[str, Any] = field(default_factory=dict)
    native: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    machine: str = ""
    when: str = ""


def run_case(case: Case, work: Path, scale: _models.Scale, seconds: float | None) -> Result:
    """Measures a case, or takes the result that is kept; times nothing if `seconds` is None."""
    model = _models.make(case.model, work, scale)
    title = " → ".join(_title(step) for step in case.steps)
    try:
        before = _bench.apply_steps(model, case.before)
        after = _bench.apply_steps(model, case.steps)
    except RefusedError as error:
        return Result(title, refused=str(error), machine=_bench.machine())
    if seconds is None:
        _bench.judge(model, before, after)
        return Result(title, refused="not timed")
    info = read(after)
    key = _bench.hashed([read(before).digest, info.digest, model.batch_sizes, seconds, case.shows])
    file = model.folder / "results" / f"{key}.json"
    if file.is_file():
        return Result(**json.loads(file.read_text()))
    log.info("%s: measuring %s", model.name, title)
    machine = _bench.machine()
    try:
        evaluation = _bench.judge(model, before, after)
        benchmark = _bench.measure(model, before, after, seconds)
        native = _bench.measure(model, model.native, after, seconds / 2)
    except TrimgateError as error:
        return Result(title, refused=f"what it makes fails: {error}", machine=machine)
    result = Result(
        title,
        evaluation=evaluation.model_dump(mode="json"),
        benchmark=benchmark.model_dump(mode="json"),
        native=native.model_dump(mode="json"),
        notes={name: _inside(info.notes, name) for name in case.shows},
        machine=machine,
        when=time.strftime("%Y-%m-%d"),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(result), indent=1) + "\n")
    return result


def _title(step: dict[str, Any]) -> str:
    from trimgate.techniques import parse_step

    return parse_step(step).title()


def _inside(notes: Any, path: str) -> Any:
    """A value in nested notes, by its path `a.b.c`; None if it is not there."""
    for part in path.split("."):
        notes = notes.get(part) if isinstance(notes, dict) else None
    return notes


def table(results: list[tuple[Case, Result]], models: dict[str, Model]) -> str:
    """The Markdown of one technique's results, the machines above it."""
    measured = [result for _, result in results if not result.refused]
    lines = sorted({f"{r.when}, {r.machine}" for r in measured})
    rows = [_row(case, result, models[case.model]) for case, result in results]
    header = (
        "Model", "Step", "Metric before → after (difference)", "Speed, few rows",
        "Speed, many rows", "Speed against the trained model", "Size", "Memory",
    )  # fmt: skip
    return "\n\n".join([*lines, _bench.markdown(header, rows)])


def _row(case: Case, result: Result, model: Model) -> tuple[str, ...]:
    if result.refused:
        return (case.model, result.title, f"no result: {result.refused}", *[""] * 5)
    evaluation = Evaluation.model_validate(result.evaluation)
    after = evaluation.metrics[model.metric].interval.value
    change = evaluation.differences[model.metric]
    quality = f"{model.metric} {after - change.value:.4f} → {after:.4f} "
    quality += f"({_bench.difference(change)} points)"
    benchmark = Benchmark.model_validate(result.benchmark)
    native = Benchmark.model_validate(result.native)
    quality += "".join(f"; {name} {_brief(value)}" for name, value in result.notes.items())
    few, *many = [_speed(batch) for batch in benchmark.batches]
    size = benchmark.baseline.size / benchmark.candidate.size
    memory = benchmark.baseline.peak_rss / benchmark.candidate.peak_rss
    return (
        case.model, result.title, quality, few, " ".join(many),
        ", ".join(f"{b.wall.value:.3g}× at {b.batch_size}" for b in native.batches),
        f"{size:.3g}× smaller", f"{memory:.3g}× less",
    )  # fmt: skip


def _speed(batch: Any) -> str:
    return f"{_bench.ratio(batch.wall, batch.state)} at {batch.batch_size}"


def _brief(value: Any) -> str:
    if isinstance(value, dict) and {"value", "low", "high"} <= set(value):
        return _bench.difference(Interval.model_validate(value)) + " points"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write(technique: str, text: str) -> Path:
    """Puts a table at the end of the component's README; what stood there goes."""
    readme = _models.ROOT / "components" / "optimization" / technique / "README.md"
    generated = readme.read_text().partition(HEADING)[0].rstrip("\n")
    note = (
        "By `benchmarks/techniques.py` on test rows that nothing was learnt from or chosen on. "
        "Before is the same model as plain ONNX on ONNX Runtime, if nothing else is said; "
        "differences and ratios with 95 % intervals, one thread, timed in turn in one process."
    )
    readme.write_text(f"{generated}\n{HEADING}\n{note}\n\n{text}\n")
    return readme


def main() -> int:
    """Measures the cases and prints a table for each technique."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("work", type=Path, nargs="?", help="a folder that keeps everything")
    parser.add_argument("--only", action="append", choices=sorted(CASES), help="a technique")
    parser.add_argument("--model", action="append", help="only cases of this model")
    parser.add_argument("--list", action="store_true", help="the cases, and go")
    parser.add_argument("--models", action="store_true", help="train and import them, and go")
    parser.add_argument("--tiny", action="store_true", help="small models, few rows: a rehearsal")
    parser.add_argument("--prepare", action="store_true", help="make all, time nothing")
    parser.add_argument("--seconds", type=float, default=8, help="per timing; %(default)s")
    parser.add_argument("--write", action="store_true", help="into the components' READMEs")
    given = parser.parse_args()
    chosen = {
        technique: [c for c in cases if not given.model or c.model in given.model]
        for technique, cases in CASES.items()
        if not given.only or technique in given.only
    }
    if given.list:
        for technique, cases in chosen.items():
            for case in cases:
                print(f"{technique:20} {case.model:20} {json.dumps(case.steps)}")
        return 0
    if given.work is None:
        parser.error("a work folder is needed")
    if given.write and (given.tiny or given.prepare):
        parser.error("results of a rehearsal are not written")
    _bench.logging_to_console()
    scale = _models.SCALES["tiny" if given.tiny else "full"]
    names = dict.fromkeys(case.model for cases in chosen.values() for case in cases)
    models: dict[str, Model] = {}
    for name in names:
        models[name] = _models.make(name, given.work, scale)
    if given.models:
        return 0
    for technique, cases in chosen.items():
        seconds = None if given.prepare else given.seconds
        results = [(c, run_case(c, given.work, scale, seconds)) for c in cases]
        text = table(results, models)
        print(f"\n## {technique}\n\n{text}", flush=True)
        if given.write:
            print(f"\nwritten to {write(technique, text)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
