"""One function per pipeline task, on paths; what the components call.

A recipe step that turns out not to apply leaves a directory with `refused.json` in place of a
model; the steps after it hand that on, and `benchmark` reports the reason to `select`.
"""

import base64
import json
import logging
import shutil
import sys
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import TypeAdapter

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.judge import records
from trimgate.judge.selection import Objective
from trimgate.models.directory import ModelInfo, read, writing
from trimgate.targets import Target

if TYPE_CHECKING:
    from trimgate.runtimes import Session

_log = logging.getLogger("trimgate.tasks")

Split = Literal["validation", "test"]
REFUSED = "refused.json"
_EVALUATION = "evaluation.json"
_PREDICTIONS = "predictions.parquet"
_SELECTION = "selection.json"
_CANDIDATES = "candidates.json"
_CHUNK = 4096


def start(*, timing: bool = False) -> None:
    """Sets up plain timestamped lines for a task's process, whatever its root logger does.

    Args:
        timing: Whether the task measures speed, so that thread pools stay as users have them.
    """
    from trimgate.environment import wait_patiently
    from trimgate.models import own_process
    from trimgate.processes import end_with_reader

    logger = logging.getLogger("trimgate")
    if logger.handlers:
        return
    end_with_reader()
    own_process()
    if not timing:
        wait_patiently()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


# ---------------------------------------------------------------------------- data and baseline


def load_data(
    files: Sequence[str], out: Mapping[str, str], *, source_digest: str = "", **options: Any
) -> str:
    """Reads, divides and checks the rows, and writes the three splits.

    Args:
        files: One file to divide, or train, validation and test.
        out: Directory of each split, by name.
        source_digest: SHA-256 over the files, or empty.
        **options: As `trimgate.data.load_splits` takes them.

    Returns:
        A description for the report, encoded by `encode`.

    Raises:
        InvalidInput: Something about the rows is wrong, or the files changed.
    """
    from trimgate.data import load_splits
    from trimgate.plan import files_digest

    start()
    paths = [Path(file) for file in files]
    _unchanged(files_digest(paths) if source_digest else "", source_digest, paths[0])
    options["drop"] = tuple(options["drop"])
    options["by"] = options["by"] or None
    options["seed"] = int(options["seed"])
    where = paths[0] if len(paths) == 1 else (paths[0], paths[1], paths[2])
    splits = load_splits(where, **options)
    for name, data in splits.named().items():
        data.save(out[name])
        _log.info("%s: %d rows", name, len(data))
    digests = splits.digests()
    method = options["method"] if len(paths) == 1 else "given as three files"
    return encode(
        {
            "source": ", ".join(path.name for path in paths),
            "splits": [
                {"name": name, "rows": len(data), "digest": digests[name]}
                for name, data in splits.named().items()
            ],
            "method": f"{method} by {options['by']}" if options["by"] else method,
            "label": options["label"],
            "features": list(splits.train.features),
            "notes": list(splits.notes),
        }
    )


def import_model(
    file: str,
    train: str,
    out: str,
    *,
    name: str,
    builder: str,
    builder_arguments: Mapping[str, Any],
    allow_pickle: bool,
    task: str,
    scores: str,
    source_digest: str,
) -> ModelInfo:
    """Makes the baseline model directory; empty texts stand for "find out"."""
    from trimgate.models import ModelSource, import_model
    from trimgate.plan import model_digest, sample

    start()
    path = Path(file)
    source = ModelSource.model_validate(
        {
            "path": path,
            "name": name,
            "builder": builder or None,
            "builder_arguments": dict(builder_arguments),
            "allow_pickle": allow_pickle,
            "task": task or None,
            "scores": scores or None,
        }
    )
    _unchanged(model_digest(source) if source_digest else "", source_digest, path)
    info = import_model(source, sample(Dataset.load(train)), Path(out))
    _log.info("%s: %s, %s, %d features", name, info.framework, info.task, len(info.features))
    return info


def describe_model(directory: str) -> dict[str, Any]:
    """What the Kubeflow UI shows of a model artifact."""
    if _refusal(directory):
        return {"refused": _refusal(directory)}
    info = read(directory)
    return {
        "framework": info.framework,
        "runtime": info.runtime.name,
        "size_bytes": info.size,
        "digest": info.digest,
    }


# ------------------------------------------------------------------------------------ techniques


def apply_technique(
    source: str,
    train: str,
    validation: str,
    out: str,
    step: Mapping[str, Any],
    *,
    metric: str,
    target: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Applies one recipe step; a step that does not apply leaves its reason.

    Args:
        source: The model directory to begin with.
        train: Rows that the technique may learn and calibrate from.
        validation: Rows that choices are made on.
        out: The new model directory.
        step: `technique` and its parameters.
        metric: The primary metric.
        target: The target profile.
        seed: Makes the result reproducible.

    Returns:
        What the Kubeflow UI shows of the new model.
    """
    from trimgate.techniques import Context, get, parse_step

    start()
    if _refusal(source):
        shutil.copytree(source, out, dirs_exist_ok=True)
        return describe_model(out)
    config = parse_step(_whole_numbers(step))
    technique = get(config.technique)
    context = Context(
        train=Dataset.load(train),
        validation=Dataset.load(validation),
        metric=metric,
        target=Target.model_validate(dict(target)),
        seed=int(seed),
    )
    reason = technique.refusal(read(source), config, context.target)
    if reason is None:
        try:
            info = technique.apply(Path(source), Path(out), config, context)
            _log.info("%s: %s", config.title(), _bytes(info.size))
        except NotApplicable as error:
            reason = error.problem
    if reason is not None:
        _log.info("%s does not apply: %s", config.title(), reason)
        with writing(out) as partial:
            (partial / REFUSED).write_text(
                json.dumps({"technique": config.technique, "reason": reason})
            )
    return describe_model(out)


# --------------------------------------------------------------------------------------- judging


def evaluate(
    model: str,
    rows: str,
    out: str,
    *,
    split: str,
    name: str,
    metric: str,
    baseline: str | None,
    confidence: float,
    extra_metrics: Sequence[str],
    seed: int,
) -> dict[str, float]:
    """Scores every row and judges the model, paired with the baseline's predictions.

    Returns:
        Every metric's value, for the Kubeflow UI.
    """
    from trimgate import runtimes
    from trimgate.data import digest
    from trimgate.judge.evaluation import evaluate
    from trimgate.judge.metrics import default_metrics
    from trimgate.judge.predictions import load_predictions, save_predictions

    start()
    if _refusal(model):
        shutil.copytree(model, out, dirs_exist_ok=True)
        return {}
    info = read(model)
    data = Dataset.load(rows)
    session = runtimes.load(Path(model))
    try:
        scores = predict(session, data)
    finally:
        session.close()
    before = first = None
    if baseline is not None:
        first = records.load(records.Evaluation, Path(baseline) / _EVALUATION)
        if first.data != digest(data):
            raise InvalidInput("was made on other rows than the candidate's", file=baseline)
        if first.model != info.digest:
            before = load_predictions(Path(baseline) / _PREDICTIONS).scores
    record = evaluate(
        data.labels,
        scores,
        info.labels,
        name=name,
        model=info.digest,
        split=TypeAdapter(Split).validate_python(split),
        data=digest(data),
        task=info.task,
        primary=metric,
        metrics=tuple(dict.fromkeys((*default_metrics(info.task), *extra_metrics))),
        baseline_scores=before,
        baseline_model=first.model if first and before is not None else None,
        confidence=confidence,
        seed=int(seed),
    )
    with writing(out) as partial:
        save_predictions(partial / _PREDICTIONS, data.labels, scores, info.labels)
        record = record.model_copy(update={"predictions": _PREDICTIONS})
        records.save(record, partial / _EVALUATION)
    observed = {m.name: m.interval.value for m in record.metrics.values()}
    _log.info("%s: %s = %.4g on %d %s rows", name, metric, observed[metric], len(data), split)
    return observed


def predict(session: "Session", data: Dataset) -> Array:
    """Scores of all rows, in chunks, so that memory stays bounded."""
    from trimgate.models import build_inputs

    parts = []
    for begin in range(0, len(data), _CHUNK):
        chunk = data.take(slice(begin, begin + _CHUNK))
        parts.append(session.predict(build_inputs(session.info, chunk.features)))
    return np.concatenate(parts)


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
    refused = _refusal(model)
    if refused:
        shutil.copytree(model, out, dirs_exist_ok=True)
        candidate = records.Candidate(name=name, uri=uri, model="", steps=(), refusal=refused)
        return encode(candidate.model_dump(mode="json")), {}
    info = read(model)
    record = run_benchmark(
        Path(baseline),
        Path(model),
        Path(rows),
        Target.model_validate(dict(target)),
        BenchmarkSettings.model_validate(dict(settings)),
        name=name,
    )
    with writing(out) as partial:
        records.save(record, partial / "benchmark.json")
    candidate = records.Candidate(
        name=name,
        uri=uri,
        model=info.digest,
        steps=info.recipe,
        evaluation=records.load(records.Evaluation, Path(evaluation) / _EVALUATION),
        benchmark=record,
    )
    observed: dict[str, float] = {
        "size_bytes": record.candidate.size,
        "peak_rss_bytes": record.candidate.peak_rss,
        "cold_start_seconds": record.candidate.cold_start,
    }
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
    objective: str,
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
    evaluation = records.load(records.Evaluation, Path(baseline_evaluation) / _EVALUATION)
    selection = select(
        evaluation,
        entries,
        objective=TypeAdapter(Objective).validate_python(objective),
        policy=GatePolicy.model_validate(dict(policy)),
        baseline_uri=baseline_uri,
    )
    with writing(out) as partial:
        records.save(selection, partial / _SELECTION)
        listed = [entry.model_dump(mode="json") for entry in entries]
        (partial / _CANDIDATES).write_text(json.dumps(listed, indent=1) + "\n")
    Path(leaderboard).write_text(leaderboard_markdown(selection, entries))
    _log.info("winner: %s (%s)", selection.winner, selection.reason)
    if selection.winner == "baseline":
        return baseline_uri
    return next(entry.uri for entry in entries if entry.name == selection.winner)


def check_serving(
    baseline: str, winner: str, rows: str, out: str, *, target: Mapping[str, Any]
) -> dict[str, float]:
    """Serves winner and baseline and queries them.

    Returns:
        Served latencies for the Kubeflow UI.
    """
    from trimgate.serving import smoke_test

    start(timing=True)
    same = read(baseline).digest == read(winner).digest
    served = smoke_test(
        Path(winner),
        None if same else Path(baseline),
        Dataset.load(rows).take(slice(0, 256)),
        threads=Target.model_validate(dict(target)).threads,
    )
    with writing(out) as partial:
        records.save(served, partial / "served.json")
    observed = {"served_p50_seconds": served.p50, "served_p99_seconds": served.p99}
    if served.latency is not None:
        observed["served_speedup"] = served.latency.value
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
    ranking, candidates = _read_selection(selection)
    before = records.load(records.Evaluation, Path(baseline_evaluation) / _EVALUATION)
    after = records.load(records.Evaluation, Path(evaluation) / _EVALUATION)
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
    Path(summary).write_text(verdict_markdown(verdict))
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
) -> None:
    """Makes the card."""
    from trimgate import __version__
    from trimgate.environment import describe
    from trimgate.report import CardInput, DataInfo, Refused, save_card

    start()
    ranking, candidates = _read_selection(selection)
    winning = next((c for c in candidates if c.name == ranking.winner), None)
    before, after = read(baseline), read(winner)
    card = CardInput(
        run=run,
        name=after.name,
        created=datetime.now(UTC),
        data=DataInfo.model_validate(decode(data)),
        target=Target.model_validate(dict(target)),
        baseline=before,
        winner=after if winning else None,
        lineage=(before, after) if winning else (before,),
        baseline_validation=_evaluation(baseline_validation),
        baseline_test=_evaluation(baseline_test),
        winner_test=_evaluation(winner_test) if winning else None,
        candidates=tuple(candidates),
        selection=ranking,
        verdict=records.load(records.Verdict, Path(verdict) / "verdict.json"),
        served=records.load(records.Served, Path(served) / "served.json"),
        benchmark=winning.benchmark if winning else None,
        refused=tuple(Refused(name=name, reason=reason) for name, reason in refused.items()),
        environment=describe(),
        code_version=__version__,
        seed=int(seed),
        confidence=_evaluation(baseline_test).metrics[ranking.metric].interval.confidence,
    )
    with writing(out) as partial:
        save_card(card, partial)
        shutil.copyfile(partial / "card.html", html)
        shutil.copyfile(partial / "card.md", markdown)


# --------------------------------------------------------------------------------------- release


def register(
    files: str,
    winner: str,
    *,
    verdict: str,
    tracking_uri: str,
    experiment: str,
    registered_model: str,
) -> str:
    """Records the run in MLflow; see `trimgate.ops.mlflow.record_run`."""
    from trimgate.ops.mlflow import record_run
    from trimgate.report import CardInput

    start()
    card = CardInput.model_validate_json((Path(files) / "card.json").read_bytes())
    version = record_run(
        card,
        Path(files),
        Path(winner),
        outcome=verdict,
        tracking_uri=tracking_uri,
        experiment=experiment,
        registered_model=registered_model,
    )
    _log.info("recorded in %s%s", experiment, f"; {registered_model} v{version}" if version else "")
    return version


def promote(winner: str, *, name: str, run: str, verdict: str, store: str) -> str:
    """Releases the winner to the local target; see `trimgate.ops.local_target.promote`."""
    from trimgate.ops.local_target import promote

    start()
    release = promote(winner, store, name=name, run=run, verdict=verdict)
    _log.info("released %s %s", name, release.digest)
    return str(Path(store) / release.uri)


def reject(verdict: str, *, fail_on_reject: bool) -> None:
    """Says that nothing was released.

    Raises:
        RuntimeError: `fail_on_reject` is set.
    """
    start()
    _log.info("nothing was released: the verdict is %s", verdict)
    if fail_on_reject:
        raise RuntimeError(f"the gate's verdict is {verdict}")


# --------------------------------------------------------------------------------------- helpers


def encode(value: object) -> str:
    """A JSON value as text that survives KFP's lists: compressed, base64url."""
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(value).encode(), 9)).decode()


def decode(text: str) -> Any:
    """What `encode` was given."""
    return json.loads(zlib.decompress(base64.urlsafe_b64decode(text)))


def log_metrics(artifact: Any, values: Mapping[str, float]) -> None:
    """Logs finite values to a KFP `Metrics` artifact, and to its file so that caching works."""
    finite = {name: float(value) for name, value in values.items() if np.isfinite(value)}
    for name, value in finite.items():
        artifact.log_metric(name, value)
    Path(artifact.path).write_text(json.dumps(finite, indent=2) + "\n")


def _evaluation(directory: str) -> records.Evaluation:
    return records.load(records.Evaluation, Path(directory) / _EVALUATION)


def _read_selection(directory: str) -> tuple[records.Selection, list[records.Candidate]]:
    listed = json.loads((Path(directory) / _CANDIDATES).read_text())
    return (
        records.load(records.Selection, Path(directory) / _SELECTION),
        [records.Candidate.model_validate(entry) for entry in listed],
    )


def _refusal(directory: str | Path) -> str | None:
    file = Path(directory) / REFUSED
    return str(json.loads(file.read_text())["reason"]) if file.is_file() else None


def _whole_numbers(value: Any) -> Any:
    """KFP hands integers inside dicts over as floats; this makes them integers again."""
    if isinstance(value, Mapping):
        return {key: _whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unchanged(found: str, expected: str, file: Path) -> None:
    if found != expected:
        raise InvalidInput(
            "changed since the run was planned", file=file, mend="start the run again"
        )


def _bytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"
