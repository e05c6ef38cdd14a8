"""Evaluation, benchmark, selection, serving check, gate, card."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import TypeAdapter

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.judge import records
from trimgate.judge.objective import goal
from trimgate.judge.settings import EvaluationSettings
from trimgate.models.directory import ModelInfo, read, writing
from trimgate.targets import Target
from trimgate.tasks._common import (
    CANDIDATES,
    EVALUATION,
    PREDICTIONS,
    REFUSED,
    SELECTION,
    decode,
    encode,
    read_evaluation,
    read_selection,
    refusal,
    start,
)

if TYPE_CHECKING:
    from trimgate.judge.evaluation import Threshold
    from trimgate.report import Examples
    from trimgate.runtimes import Session

_log = logging.getLogger("trimgate.tasks")

Split = Literal["validation", "test"]


def evaluate(
    model: str,
    rows: str,
    out: str,
    *,
    split: str,
    name: str,
    metric: str,
    baseline: str | None,
    chosen_on: str | None,
    settings: Mapping[str, Any],
    confidence: float,
    extra_metrics: Sequence[str],
    seed: int,
) -> dict[str, float]:
    """Scores every row and judges the model, paired with the baseline's predictions.

    Returns:
        Every metric's value, for the Kubeflow UI.
    """
    from trimgate import runtimes
    from trimgate.data import halves
    from trimgate.data.stream import row_count
    from trimgate.judge.evaluation import Threshold
    from trimgate.judge.metrics import default_metrics
    from trimgate.judge.predictions import save_predictions
    from trimgate.tasks._streaming import evaluate_stream

    start()
    if refusal(model):
        shutil.copytree(model, out, dirs_exist_ok=True)
        return {}
    info = read(model)
    given = EvaluationSettings.model_validate(dict(settings))
    part = TypeAdapter(Split).validate_python(split)
    first = None if baseline is None else read_evaluation(baseline)
    beside = baseline if first is not None and first.model != info.digest else None
    point = first.operating_point if first else None
    usual = default_metrics(
        info.task,
        point=given.operating_point is not None and chosen_on is not None,
        costs=given.costs is not None,
    )
    common: dict[str, Any] = {
        "split": part,
        "name": name,
        "primary": metric,
        "metrics": tuple(dict.fromkeys((*usual, *extra_metrics))),
        "baseline_threshold": Threshold(point.threshold, point.rule, point.chosen_on)
        if point
        else None,
        "confidence": confidence,
        "seed": int(seed),
    }
    with writing(out) as partial:
        session = runtimes.load(Path(model))
        try:
            threshold = _threshold(session, chosen_on, given)
            if row_count(rows) > given.stream_rows:
                record = evaluate_stream(
                    session,
                    rows,
                    partial,
                    first=first,
                    baseline=beside,
                    threshold=threshold,
                    settings=given,
                    **common,
                )
            else:
                data = Dataset.load(rows)
                if split == "validation":
                    data = halves(data)[1]
                scores = runtimes.predict(session, data)
                record = _evaluate(
                    data, scores, info, given, first, beside, threshold=threshold, **common
                )
                save_predictions(partial / PREDICTIONS, data.labels, scores, info.labels)
        finally:
            session.close()
        record = record.model_copy(update={"predictions": PREDICTIONS})
        records.save(record, partial / EVALUATION)
    observed = {m.name: m.interval.value for m in record.metrics.values()}
    _log.info("%s: %s = %.4g on %d %s rows", name, metric, observed[metric], record.rows, split)
    return observed


def _threshold(
    session: "Session", chosen_on: str | None, settings: EvaluationSettings
) -> "Threshold | None":
    """Chosen on the validation rows that guide techniques, which no metric is read from."""
    from trimgate import runtimes
    from trimgate.data.stream import half
    from trimgate.judge.evaluation import choose_threshold

    if settings.operating_point is None or chosen_on is None:
        return None
    told = [
        (rows.labels, runtimes.predict(session, rows)) for rows in half(chosen_on, ranking=False)
    ]
    labels, scores = (np.concatenate(values) for values in zip(*told, strict=True))
    return choose_threshold(
        labels,
        scores,
        session.info.labels,
        settings.operating_point,
        settings.matrix(),
    )


def _evaluate(
    data: Dataset,
    scores: Array,
    info: ModelInfo,
    settings: EvaluationSettings,
    first: records.Evaluation | None,
    baseline: str | None,
    **common: Any,
) -> records.Evaluation:
    """Judges rows that memory holds."""
    from trimgate.data import digest
    from trimgate.judge.evaluation import evaluate
    from trimgate.judge.predictions import load_predictions
    from trimgate.judge.slices import slice_rows

    if first is not None and first.data != digest(data):
        raise InvalidInput("was made on other rows than the candidate's", file=baseline)
    before = None if baseline is None else load_predictions(Path(baseline) / PREDICTIONS).scores
    return evaluate(
        data.labels,
        scores,
        info.labels,
        model=info.digest,
        data=digest(data),
        task=info.task,
        baseline_scores=before,
        baseline_model=first.model if first is not None and before is not None else None,
        costs=settings.matrix(),
        slices=slice_rows(
            settings.slices,
            {**data.features, **data.beside},
            scores if before is None else before,
        ),
        min_rows=settings.min_rows,
        min_class_rows=settings.min_class_rows,
        **common,
    )


def benchmark(
    baseline: str,
    model: str,
    evaluation: str,
    rows: str,
    out: str,
    *,
    name: str,
    uri: str,
    target: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> tuple[str, dict[str, float]]:
    """Times a candidate beside the baseline.

    Returns:
        The candidate for `select`, encoded; and values for the Kubeflow UI.
    """
    from trimgate.judge.benchmark import BenchmarkSettings
    from trimgate.judge.harness import run_benchmark

    start(timing=True)
    refused = refusal(model, name)
    if refused:
        shutil.copytree(model, out, dirs_exist_ok=True)
        candidate = records.Candidate(name=name, uri=uri, model="", steps=(), refusal=refused)
        return encode(candidate.model_dump(mode="json")), {}
    info = read(model)
    try:
        record = run_benchmark(
            Path(baseline),
            Path(model),
            Path(rows),
            Target.model_validate(dict(target)),
            BenchmarkSettings.model_validate(dict(settings)),
            name=name,
        )
    except NotApplicable as error:  # it cannot be loaded here, or takes more than the target has
        candidate = records.Candidate(
            name=name, uri=uri, model=info.digest, steps=info.recipe, refusal=error.problem
        )
        Path(out).mkdir(parents=True, exist_ok=True)
        (Path(out) / REFUSED).write_text(json.dumps({"reason": error.problem}) + "\n")
        _log.info("%s: %s", name, error.problem)
        return encode(candidate.model_dump(mode="json")), {}
    with writing(out) as partial:
        records.save(record, partial / "benchmark.json")
    candidate = records.Candidate(
        name=name,
        uri=uri,
        model=info.digest,
        steps=info.recipe,
        # what only a card draws would be too much for a parameter
        evaluation=records.load(records.Evaluation, Path(evaluation) / EVALUATION).model_copy(
            update={"curves": (), "calibration": None, "confusion": None}
        ),
        benchmark=record,
    )
    observed: dict[str, float] = {
        "size_bytes": record.candidate.size,
        "peak_rss_bytes": record.candidate.peak_rss,
        "cold_start_seconds": record.candidate.cold_start,
    }
    if record.cost is not None:
        observed["cost_per_million"] = record.cost.candidate
    if record.energy is not None:
        observed["joules_per_thousand"] = record.energy.candidate
    for loaded in record.load:
        if loaded.candidate.p99 is not None:
            observed[f"p99_seconds_at_{loaded.rate:g}"] = loaded.candidate.p99
    for batch in record.batches:
        observed[f"speedup_batch_{batch.batch_size}"] = batch.wall.value
        observed[f"cpu_speedup_batch_{batch.batch_size}"] = batch.cpu.value
    first = record.batches[0]
    _log.info(
        "%s: %.3gx [%.3g, %.3g] at batch %d (%s)",
        name, first.wall.value, first.wall.low, first.wall.high, first.batch_size, first.state,
    )  # fmt: skip
    return encode(candidate.model_dump(mode="json")), observed


def select(
    baseline: str,
    baseline_uri: str,
    baseline_evaluation: str,
    candidates: Sequence[str],
    out: str,
    leaderboard: str,
    *,
    objective: Mapping[str, Any],
    policy: Mapping[str, Any],
) -> str:
    """Ranks the candidates; writes the ranking and the candidates' records.

    Returns:
        URI of the winner's model directory.
    """
    from trimgate.judge.policy import GatePolicy
    from trimgate.judge.selection import select
    from trimgate.report import leaderboard_markdown

    start()
    entries = [records.Candidate.model_validate(decode(text)) for text in candidates]
    evaluation = records.load(records.Evaluation, Path(baseline_evaluation) / EVALUATION)
    selection = select(
        evaluation,
        entries,
        objective=goal(objective),
        policy=GatePolicy.model_validate(dict(policy)),
        baseline_uri=baseline_uri,
    )
    with writing(out) as partial:
        records.save(selection, partial / SELECTION)
        listed = [entry.model_dump(mode="json") for entry in entries]
        (partial / CANDIDATES).write_text(json.dumps(listed, indent=1) + "\n")
    Path(leaderboard).write_text(leaderboard_markdown(selection, entries))
    _log.info("winner: %s (%s)", selection.winner, selection.reason)
    if selection.winner == "baseline":
        return baseline_uri
    return next(entry.uri for entry in entries if entry.name == selection.winner)


def check_serving(
    baseline: str,
    winner: str,
    rows: str,
    out: str,
    *,
    target: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, float]:
    """Serves winner and baseline and queries them.

    Returns:
        Served latencies for the Kubeflow UI.
    """
    from trimgate.data.stream import head
    from trimgate.judge.benchmark import BenchmarkSettings
    from trimgate.serving import smoke_test

    start(timing=True)
    same = read(baseline).digest == read(winner).digest
    where = Target.model_validate(dict(target))
    served = smoke_test(
        Path(winner),
        None if same else Path(baseline),
        head(rows, 256),
        threads=where.threads,
        rates=where.rates,
        load_seconds=BenchmarkSettings.model_validate(dict(settings)).served_load_seconds,
    )
    with writing(out) as partial:
        records.save(served, partial / "served.json")
    observed = {"served_p50_seconds": served.p50, "served_p99_seconds": served.p99}
    if served.latency is not None:
        observed["served_speedup"] = served.latency.value
    for loaded in served.load:
        if loaded.candidate.p99 is not None:
            observed[f"served_p99_seconds_at_{loaded.rate:g}"] = loaded.candidate.p99
    _log.info(
        "%d of %d checks held; %s",
        sum(served.checks.values()),
        len(served.checks),
        "; ".join(served.errors) or f"p50 {served.p50 * 1e3:.3g} ms",
    )
    return observed


def gate(
    baseline_evaluation: str,
    evaluation: str,
    selection: str,
    served: str,
    out: str,
    summary: str,
    *,
    policy: Mapping[str, Any],
) -> str:
    """Holds the winner against the rules on the test split.

    Returns:
        `pass`, `fail`, `inconclusive`, or `baseline` when nothing beats the baseline.
    """
    from trimgate.judge.gate import gate, keep_baseline
    from trimgate.judge.policy import GatePolicy
    from trimgate.report import verdict_markdown

    start()
    ranking, candidates = read_selection(selection)
    before = records.load(records.Evaluation, Path(baseline_evaluation) / EVALUATION)
    after = records.load(records.Evaluation, Path(evaluation) / EVALUATION)
    if ranking.winner == "baseline":
        verdict = keep_baseline(before, ranking.reason)
    else:
        winner = next(entry for entry in candidates if entry.name == ranking.winner)
        verdict = gate(
            GatePolicy.model_validate(dict(policy)),
            baseline=before,
            candidate=after,
            benchmark=winner.benchmark,
            served=records.load(records.Served, Path(served) / "served.json"),
            name=winner.name,
        )
    with writing(out) as partial:
        records.save(verdict, partial / "verdict.json")
    Path(summary).write_text(verdict_markdown(verdict, after.primary))
    _log.info("%s: %s", verdict.outcome, verdict.summary)
    return "baseline" if ranking.winner == "baseline" else verdict.outcome


def report(
    baseline: str,
    winner: str,
    baseline_validation: str,
    baseline_test: str,
    winner_test: str,
    selection: str,
    served: str,
    verdict: str,
    out: str,
    html: str,
    markdown: str,
    *,
    run: str,
    data: str,
    target: Mapping[str, Any],
    refused: Mapping[str, str],
    seed: int,
    rows: str | None = None,
    example_rows: int = 0,
    hide: Sequence[str] = (),
) -> None:
    """Makes the card, with example rows only where test rows are given and some are asked for."""
    from trimgate import __version__
    from trimgate.environment import describe
    from trimgate.report import CardInput, DataInfo, Refused, save_card

    start()
    ranking, candidates = read_selection(selection)
    winning = next((c for c in candidates if c.name == ranking.winner), None)
    before, after = read(baseline), read(winner)
    examples = None
    if rows is not None and example_rows and winning:
        examples = _examples(baseline_test, winner_test, rows, int(example_rows), hide)
    card = CardInput(
        run=run,
        name=after.name,
        created=datetime.now(UTC),
        data=DataInfo.model_validate(decode(data)),
        target=Target.model_validate(dict(target)),
        baseline=before,
        winner=after if winning else None,
        lineage=(before, after) if winning else (before,),
        baseline_validation=read_evaluation(baseline_validation),
        baseline_test=read_evaluation(baseline_test),
        winner_test=read_evaluation(winner_test) if winning else None,
        candidates=tuple(candidates),
        selection=ranking,
        verdict=records.load(records.Verdict, Path(verdict) / "verdict.json"),
        served=records.load(records.Served, Path(served) / "served.json"),
        benchmark=winning.benchmark if winning else None,
        refused=tuple(Refused(name=name, reason=reason) for name, reason in refused.items()),
        examples=examples,
        environment=describe(),
        code_version=__version__,
        seed=int(seed),
        confidence=read_evaluation(baseline_test).metrics[ranking.metric].interval.confidence,
    )
    with writing(out) as partial:
        save_card(card, partial)
        shutil.copyfile(partial / "card.html", html)
        shutil.copyfile(partial / "card.md", markdown)


def _examples(baseline: str, winner: str, rows: str, count: int, hide: Sequence[str]) -> "Examples":
    from trimgate.data.stream import row_count, take
    from trimgate.judge.predictions import describe_predictions, stream_predictions
    from trimgate.report import changed_most, pick_examples

    files = [Path(directory) / PREDICTIONS for directory in (baseline, winner)]
    for file in files:
        found = describe_predictions(file)[0]
        if found != row_count(rows):
            raise InvalidInput(
                f"predictions of {found} rows do not fit the {row_count(rows)} test rows", file=file
            )
    first, second = map(stream_predictions, files)
    best = (next(first), next(second))
    for further in zip(first, second, strict=True):
        chosen = np.sort(changed_most(*best, count))
        best = (
            best[0].take(chosen).followed_by(further[0]),
            best[1].take(chosen).followed_by(further[1]),
        )
    chosen = np.sort(changed_most(*best, count))
    best = (best[0].take(chosen), best[1].take(chosen))
    return pick_examples(*best, take(rows, best[0].rows), count, hide=hide)
