"""Successive halving of recipes: a sample, a rough trial of each, and who goes on."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.data.dataset import Dataset
from trimgate.judge import records
from trimgate.judge.benchmark import BenchmarkSettings
from trimgate.judge.metrics import higher_is_better, spec
from trimgate.judge.objective import Objective, goal, weighted_gain, weights_of
from trimgate.judge.records import Interval
from trimgate.models.directory import ModelInfo, read
from trimgate.targets import Target
from trimgate.tasks._common import SAMPLE, decode, encode, guide, refusal, spread, start

_log = logging.getLogger("trimgate.tasks")

_TRIAL: dict[str, Any] = {
    "seconds": 1.5, "processes": 1, "min_rounds": 24, "warmup": 3, "precision": 0.05
}  # fmt: skip
_ROWS = 4000
# What evaluation and the full benchmark of a recipe take besides its steps.
_JUDGING_SECONDS = 10.0


def sample(train: str, out: str, *, rows: int, effort: float, seed: int) -> int:
    """Writes a sample of the training rows that keeps the share of each class.

    Args:
        train: The training rows.
        out: The sample; a file in it says how much of the usual work is worth doing on it.
        rows: At most so many.
        effort: That share.
        seed: Of the choice.

    Returns:
        How many rows it has.
    """
    start()
    data = Dataset.load(train)
    chosen = spread(data.labels, int(rows), int(seed))
    data.take(chosen).save(out)
    (Path(out) / SAMPLE).write_text(json.dumps({"effort": effort, "of": len(data)}) + "\n")
    _log.info("%d of %d training rows", len(chosen), len(data))
    return len(chosen)


def screen(
    baseline: str,
    model: str,
    train: str,
    validation: str,
    *,
    name: str,
    metric: str,
    objective: Mapping[str, Any],
    target: Mapping[str, Any],
    seed: int,
) -> str:
    """Tries a recipe's model roughly: quality on the choosing half of validation, and speed.

    The rows that rank the candidates are not looked at.

    Returns:
        The trial for `halve`, encoded.
    """
    from trimgate import runtimes
    from trimgate.data import digest
    from trimgate.judge.evaluation import evaluate

    start(timing=True)
    weights = weights_of(goal(objective))
    reason = refusal(model, name)
    if reason:
        return encode(records.Trial(name=name, refusal=reason).model_dump(mode="json"))
    rows = guide(validation, _ROWS, int(seed))
    where = Target.model_validate(dict(target))
    before, after = read(baseline), read(model)
    sessions = [runtimes.load(Path(path), threads=where.threads) for path in (baseline, model)]
    try:
        scores = [runtimes.predict(session, rows) for session in sessions]
        record = evaluate(
            rows.labels,
            scores[1],
            after.labels,
            name=name,
            model=after.digest,
            split="validation",
            data=digest(rows),
            task=after.task,
            primary=metric,
            metrics=(metric,),
            baseline_scores=scores[0],
            baseline_model=before.digest,
            seed=int(seed),
        )
        gains = _gains(sessions, (before, after), rows, where)
    finally:
        for session in sessions:
            session.close()
    difference = record.differences[metric]
    value = record.metrics[metric].interval.value - difference.value
    taken = [float(seconds) for seconds in after.notes.get("seconds", [])]
    trial = records.Trial(
        name=name,
        difference=difference,
        gain=weighted_gain(gains, weights).value,
        scale=1.0 if spec(metric).bounded or higher_is_better(metric) else abs(value),
        seconds=sum(taken),
        full_seconds=_JUDGING_SECONDS + _full_cost(after, taken, Path(train)),
    )
    _log.info("%s: %+.4f %s, %.3g times", name, difference.value, metric, trial.gain)
    return encode(trial.model_dump(mode="json"))


def _gains(
    sessions: Sequence[Any], infos: tuple[ModelInfo, ModelInfo], rows: Dataset, target: Target
) -> dict[Objective, Interval]:
    """Rough gains by objective, timed side by side in this process."""
    from trimgate.judge.benchmark import BASELINE, CANDIDATE, CONTROL, interleave, summarise
    from trimgate.models import build_inputs

    found: dict[Objective, Interval] = {}
    sizes = dict.fromkeys((target.batch_sizes[0], max(target.batch_sizes)))
    for size in sizes:
        batch = rows.take(np.resize(np.arange(len(rows)), size))
        inputs = [build_inputs(info, batch.features) for info in infos]
        calls = [lambda s=s, i=i: s.predict(i) for s, i in zip(sessions, inputs, strict=True)]
        variants = {BASELINE: calls[0], CONTROL: calls[0], CANDIDATE: calls[1]}
        settings = BenchmarkSettings(**_TRIAL)
        timed = summarise([interleave(variants, settings)], size, settings)
        if size == target.batch_sizes[0]:
            found["latency"], found["cost"] = timed.wall, timed.cpu
        found["throughput"] = timed.wall
    ratio = infos[0].size / max(1, infos[1].size)
    exact = Interval(value=ratio, low=ratio, high=ratio, confidence=1.0, method="exact")
    # the memory of a model goes with its size; it is measured for those that go on
    return {**found, "size": exact, "memory": exact}


def _full_cost(info: ModelInfo, taken: Sequence[float], train: Path) -> float:
    """Seconds that the steps may take on all rows: training grows with rows and effort."""
    from trimgate.data.stream import row_count
    from trimgate.techniques import get

    file = train / SAMPLE
    if not file.is_file():
        return sum(taken)
    told = json.loads(file.read_text())
    growth = told["of"] / max(1, row_count(train)) / told["effort"]
    trains = [
        get(str(step["technique"])).form_needed(_parsed(step)) == "trainable"
        and step["technique"] != "optimize_graph"
        for step in info.recipe
    ]
    return sum(s * (growth if t else 1.0) for s, t in zip(taken, trains, strict=True))


def _parsed(step: Mapping[str, Any]) -> Any:
    from trimgate.techniques import parse_step

    return parse_step(step)


def halve(
    trials: Sequence[str],
    out: str,
    summary: str,
    *,
    metric: str,
    keep: float,
    hopeless: float,
    most: int,
    seconds: float,
) -> dict[str, str]:
    """Which recipes go on.

    Args:
        trials: What `screen` returned for each.
        out: The record.
        summary: The same for people, as Markdown.
        metric: The primary metric.
        keep: Share that goes on.
        hopeless: Loss of the metric on the sample that ends a recipe.
        most: At most so many go on; 0 for any number.
        seconds: What the recipes may take in full; 0 for any time.

    Returns:
        By recipe, why it does not go on; an empty text for those that do.
    """
    from trimgate.directories import writing
    from trimgate.judge.halving import halve

    start()
    result = halve(
        [records.Trial.model_validate(decode(text)) for text in trials],
        keep=keep,
        higher_is_better=higher_is_better(metric),
        hopeless=hopeless,
        most=int(most) or None,
        seconds=seconds or None,
    )
    with writing(out) as partial:
        records.save(result, partial / "halving.json")
    lines = ["| recipe | goes on | why |", "|---|---|---|"]
    lines += [f"| {x.name} | {'yes' if x.goes_on else 'no'} | {x.reason} |" for x in result.lines]
    Path(summary).write_text("\n".join(lines) + "\n")
    _log.info("%d of %d recipes go on", len(result.survivors), len(result.lines))
    return {line.name: "" if line.goes_on else line.reason for line in result.lines}
