"""MLflow: records a run, registers the winner that passed, and says where a version is published.

A model version has the tags `trimgate.digest`, `trimgate.verdict`, `trimgate.run`, ... and, once
it is published, `trimgate.uri`. The alias `challenger` is the newest that passed; `champion` is
the one in production.
"""

import contextlib
import logging
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimgate.errors import InvalidInput, MissingExtra, TrimgateError
from trimgate.judge.records import Candidate
from trimgate.report import CardInput, verdict_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"

_MODEL = re.compile(r"models:/+(?P<name>[^/@]+)(/(?P<version>[0-9]+)|@(?P<alias>[A-Za-z0-9_-]+))")
_MAX_VALUE = 500  # characters that a parameter or tag of MLflow takes


def record_run(
    card: CardInput,
    files: Path,
    winner: Path,
    *,
    outcome: str,
    tracking_uri: str,
    experiment: str,
    registered_model: str,
) -> str:
    """Records one parent run with a child for each candidate.

    The parent holds the winner's test metrics and the card; each child holds the recipe's
    parameters and its validation metrics and speed-ups, under names that are the same for all.
    Recording the same run again changes nothing.

    Args:
        card: The finished run.
        files: Folder with the card as HTML, Markdown and JSON.
        winner: The winner's model directory.
        outcome: The gate's outcome; on `pass` the winner becomes a model version.
        tracking_uri: Where MLflow records.
        experiment: Name of the experiment; made when absent.
        registered_model: Name in the registry.

    Returns:
        The model's version, or an empty text when it did not pass.
    """
    client = _client(tracking_uri)
    where = _experiment(client, experiment, tracking_uri)
    of_this = f"tags.`trimgate.run` = '{_quoted(card.run)}' and tags.`trimgate.kind` = "
    known = client.search_runs([where], f"{of_this}'run' and attributes.status = 'FINISHED'")
    if known:
        return str(known[0].data.tags.get("trimgate.version", ""))
    for kind in ("run", "candidate"):
        # what an interrupted recording left
        for half in client.search_runs([where], f"{of_this}'{kind}'"):
            client.delete_run(half.info.run_id)
    for half_version in _versions_of(client, registered_model, "run", card.run):
        client.delete_model_version(registered_model, half_version)
    verdict = verdict_text(card)
    tags = {
        "trimgate.kind": "run",
        "trimgate.run": card.run,
        "trimgate.verdict": outcome,
        "trimgate.winner": card.selection.winner,
        "trimgate.target": card.target.name,
        "mlflow.source.name": "trimgate",
        "mlflow.note.content": (files / "card.md").read_text(),
    }
    parent = client.create_run(where, run_name=card.run, tags=tags).info.run_id
    parameters = {
        "model": card.name,
        "target": card.target.name,
        "metric": card.selection.metric,
        "objective": card.selection.objective,
        "seed": card.seed,
        "data": card.data.source,
        "baseline": card.baseline.digest,
        "trimgate": card.code_version,
    }
    _log(client, parent, parameters, dict(_winner_metrics(card)))
    client.log_artifacts(parent, str(files), "card")
    for candidate in card.candidates:
        _child(client, where, parent, card, candidate)
    version = ""
    if outcome == "pass" and card.winner is not None:
        version = _register(client, parent, card, winner, registered_model, verdict.summary)
        client.set_tag(parent, "trimgate.version", version)
    client.set_terminated(parent)
    return version


def _experiment(client: "MlflowClient", name: str, tracking_uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    place = None
    if tracking_uri.startswith("sqlite:///"):
        # MLflow would put files into whatever folder the process runs in.
        folder = Path(tracking_uri.removeprefix("sqlite:///")).resolve().parent
        place = (folder / "mlartifacts" / name).as_uri()
    # Without its kind the UI opens the experiment as one of generative AI, with empty tables.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    with _unless_there():
        return str(client.create_experiment(name, artifact_location=place, tags=tags))
    return _experiment(client, name, tracking_uri)  # another run made it meanwhile


def _child(
    client: "MlflowClient", where: str, parent: str, card: CardInput, candidate: Candidate
) -> None:
    tags = {
        "mlflow.parentRunId": parent,
        "mlflow.source.name": "trimgate",
        "trimgate.kind": "candidate",
        "trimgate.run": card.run,
        "trimgate.winner": str(candidate.name == card.selection.winner).lower(),
        "trimgate.digest": candidate.model,
    }
    ranked = next((r for r in card.selection.ranking if r.name == candidate.name), None)
    reason = candidate.refusal or (ranked.reason if ranked else "")
    tags["mlflow.note.content"] = reason
    run = client.create_run(where, run_name=candidate.name, tags=tags).info.run_id
    parameters: dict[str, Any] = {"recipe": candidate.name}
    for number, step in enumerate(candidate.steps, 1):
        for key, value in step.items():
            parameters[f"step{number}.{key}"] = value
    _log(client, run, parameters, dict(_candidate_metrics(candidate)))
    client.set_terminated(run, "KILLED" if candidate.refusal else "FINISHED")


def _winner_metrics(card: CardInput) -> Iterator[tuple[str, float]]:
    for label, evaluation in (("baseline", card.baseline_test), ("winner", card.winner_test)):
        if evaluation is not None:
            for name, metric in evaluation.metrics.items():
                yield f"test.{label}.{name}", metric.interval.value
    winner = next((c for c in card.candidates if c.name == card.selection.winner), None)
    if winner is not None:
        yield from _candidate_metrics(winner)
    if card.served is not None:
        yield "served.p50_ms", card.served.p50 * 1e3
        yield "served.p99_ms", card.served.p99 * 1e3


def _candidate_metrics(candidate: Candidate) -> Iterator[tuple[str, float]]:
    if candidate.evaluation is not None:
        for name, metric in candidate.evaluation.metrics.items():
            yield f"validation.{name}", metric.interval.value
        for name, difference in candidate.evaluation.differences.items():
            yield f"validation.difference.{name}", difference.value
    if candidate.benchmark is not None:
        for batch in candidate.benchmark.batches:
            yield f"speedup.batch_{batch.batch_size}", batch.wall.value
            yield f"speedup.cpu.batch_{batch.batch_size}", batch.cpu.value
        yield "size_kb", candidate.benchmark.candidate.size / 1e3
        yield "peak_rss_mb", candidate.benchmark.candidate.peak_rss / 1e6
        yield "cold_start_ms", candidate.benchmark.candidate.cold_start * 1e3


def _log(
    client: "MlflowClient", run: str, parameters: dict[str, Any], metrics: dict[str, float]
) -> None:
    from mlflow.entities import Metric, Param

    now = time.time_ns() // 1_000_000
    client.log_batch(
        run,
        params=[Param(key, str(value)[:_MAX_VALUE]) for key, value in parameters.items()],
        metrics=[Metric(k, v, now, 0) for k, v in metrics.items() if math.isfinite(v)],
    )


def _register(
    client: "MlflowClient", run: str, card: CardInput, winner: Path, name: str, summary: str
) -> str:
    if card.winner is None:
        raise ValueError("there is no winner to register")
    client.log_artifacts(run, str(winner), "model")
    with _unless_there():
        client.create_registered_model(name)
    tags = {
        "trimgate.digest": card.winner.digest,
        "trimgate.verdict": "pass",
        "trimgate.recipe": card.selection.winner,
        "trimgate.run": card.run,
        "trimgate.target": card.target.name,
    }
    source = f"{client.get_run(run).info.artifact_uri}/model"
    made = client.create_model_version(
        name, source=source, run_id=run, description=summary, tags=tags
    )
    newest = 0
    while newest != (found := max(map(int, _versions_of(client, name, "verdict", "pass")))):
        newest = found  # asked again: another run may have made one, and set the alias first
        _set_alias(client, name, CHALLENGER, str(newest))
    return str(made.version)


def _set_alias(client: "MlflowClient", name: str, alias: str, version: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.set_registered_model_alias(name, alias, version)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        # Of two that set an alias for the first time at once, one breaks the database's rule that
        # there is one. By now the alias is there, and is moved.
        client.set_registered_model_alias(name, alias, version)


def _versions_of(client: "MlflowClient", name: str, tag: str, value: str) -> list[str]:
    wanted = f"name = '{_quoted(name)}' and tags.`trimgate.{tag}` = '{_quoted(value)}'"
    return [str(found.version) for found in client.search_model_versions(wanted)]


@dataclass(frozen=True)
class ModelVersion:
    """A version in the registry.

    Attributes:
        name: Name of the registered model.
        version: Its number.
        uri: Its immutable URI in a store; empty until it is published.
        digest: Content digest of the model.
        run: The run of trimgate that made and judged it.
        verdict: The gate's outcome.
    """

    name: str
    version: str
    uri: str
    digest: str
    run: str
    verdict: str


def resolve(uri: str, *, tracking_uri: str) -> ModelVersion:
    """Looks a model version up.

    Args:
        uri: `models:/name@alias` or `models:/name/3`.
        tracking_uri: Where MLflow records.

    Returns:
        The version, with the immutable URI that it is published under.

    Raises:
        InvalidInput: There is no such version or alias, trimgate did not make it, or it is not
            published.
        RegistryError: The registry cannot be reached, or refuses.
    """
    found = version_of(uri, tracking_uri=tracking_uri)
    if not found.uri:
        raise InvalidInput(
            f"version {found.version} of {found.name} is not published", key="model", value=uri,
            mend="`trimgate run` publishes a winner that passed",
        )  # fmt: skip
    return found


def version_of(uri: str, *, tracking_uri: str) -> ModelVersion:
    """As `resolve`, for a version that need not be published."""
    parts = _MODEL.fullmatch(uri)
    if parts is None:
        raise InvalidInput(
            "is no URI of a model version", key="model", value=uri,
            mend="give models:/<name>@<alias> or models:/<name>/<version>",
        )  # fmt: skip
    client = _client(tracking_uri)
    with _explained(uri):
        if parts["alias"]:
            found = client.get_model_version_by_alias(parts["name"], parts["alias"])
        else:
            found = client.get_model_version(parts["name"], parts["version"])
    tags = found.tags
    if "trimgate.digest" not in tags:
        raise InvalidInput("was not registered by trimgate", key="model", value=uri)
    return ModelVersion(
        name=found.name,
        version=str(found.version),
        uri=tags.get("trimgate.uri", ""),
        digest=tags["trimgate.digest"],
        run=tags.get("trimgate.run", ""),
        verdict=tags.get("trimgate.verdict", ""),
    )


def record_published(name: str, version: str, uri: str, *, tracking_uri: str) -> None:
    """Tags a version with the immutable URI that it is published under.

    Raises:
        InvalidInput: There is no such version.
        RegistryError: The registry cannot be reached, or refuses.
    """
    with _explained(f"models:/{name}/{version}"):
        _client(tracking_uri).set_model_version_tag(name, version, "trimgate.uri", uri)


def set_champion(name: str, version: str, *, tracking_uri: str) -> None:
    """Gives a version the alias `champion`: it is what production runs.

    Raises:
        InvalidInput: There is no such version, or it did not pass the gate.
        RegistryError: The registry cannot be reached, or refuses.
    """
    uri = f"models:/{name}/{version}"
    found = version_of(uri, tracking_uri=tracking_uri)
    if found.verdict != "pass":
        raise InvalidInput(
            "only a version that passed the gate becomes champion", key="version", value=uri
        )
    with _explained(uri):
        _set_alias(_client(tracking_uri), name, CHAMPION, version)


class RegistryError(TrimgateError):
    """MLflow cannot be reached, or does not do what it is asked."""


def _client(tracking_uri: str) -> "MlflowClient":
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise MissingExtra("mlflow", "mlflow") from error
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if tracking_uri.startswith(("http://", "https://")):
        _reach(tracking_uri)
    return MlflowClient(tracking_uri=tracking_uri)


def _reach(tracking_uri: str) -> None:
    """Asks a server whether it is there: MLflow's own client would try for four minutes."""
    import requests

    for pause in (1.0, 3.0, None):
        try:
            # any answer will do
            requests.get(f"{tracking_uri.rstrip('/')}/health", timeout=10, allow_redirects=False)
            return
        except requests.RequestException as error:
            if pause is None:
                raise RegistryError(
                    f"MLflow at {tracking_uri} cannot be reached ({type(error).__name__}); start "
                    "it, or mend mlflow.tracking_uri"
                ) from error
            time.sleep(pause)


@contextlib.contextmanager
def _unless_there() -> Iterator[None]:
    """Lets it pass that somebody else was faster to make something."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turns what MLflow says into one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise InvalidInput(
                "there is no such version in the registry", key="model", value=uri
            ) from error
        lines = str(error).strip().splitlines() or [error.error_code]
        raise RegistryError(f"MLflow: {lines[0][:200]}") from error


def _quoted(value: str) -> str:
    return value.replace("'", "''")
