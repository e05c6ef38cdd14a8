"""`trimgate promote`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trimgate.cli._releases import CONFIG, keep_champion, settings, show
from trimgate.config import MlflowSection, PromoteSection, is_remote
from trimgate.errors import InvalidInput
from trimgate.tasks import releases_of, store_of, trust_of

if TYPE_CHECKING:
    from trimgate.ops.promotion import Releases
    from trimgate.ops.release import ReleasedModel
    from trimgate.report import CardInput


def run(arguments: argparse.Namespace) -> int:
    """Verifies a model that passed, and releases it or proposes it."""
    from trimgate.ops.promotion import check_releases, promote
    from trimgate.ops.publish import check
    from trimgate.report import pull_request_markdown

    section, mlflow = settings(arguments)
    releases = releases_of(section)
    environment = arguments.to
    releases.how(environment)
    name, model, card = _find(arguments, section, mlflow, releases)
    check_releases(releases, name, environment)
    found = check(
        model.storage_uri,
        digest=model.digest or None,
        trust=trust_of(section),
        mounts=section.mounts,
    )
    model = model.model_copy(
        update={"digest": found.digest, "run": found.run, "verdict": found.verdict}
    )
    done = promote(
        releases,
        name,
        environment,
        model,
        canary=arguments.canary,
        how="pull-request" if arguments.pull_request else "commit" if arguments.commit else None,
        body=pull_request_markdown(card) if card else "",
    )
    show(done, as_json=arguments.json)
    if environment == list(releases.environments)[-1] and arguments.canary is None:
        keep_champion(mlflow, done)
    return 0


def _find(
    arguments: argparse.Namespace,
    section: PromoteSection,
    mlflow: MlflowSection | None,
    releases: "Releases",
) -> "tuple[str, ReleasedModel, CardInput | None]":
    """The model that is meant: its name, where it is published, and its card if it is here."""
    from trimgate.ops.promotion import current

    what = arguments.what
    published = find_published(arguments, section, mlflow)
    if published is not None:
        return published
    environments = list(releases.environments)
    source = arguments.source or environments[max(0, environments.index(arguments.to) - 1)]
    if source == arguments.to:
        raise InvalidInput(
            "is the first environment, and a name says what an earlier one runs", key="--to",
            value=source, mend="give a run, or the URI of a published model",
        )  # fmt: skip
    release = current(releases, what, source)
    if release.stable is None:
        raise InvalidInput(f"nothing of {what} is released in {source}", key="--from", value=source)
    return what, release.stable, _card(release.stable.run, arguments)


def find_published(
    arguments: argparse.Namespace, section: PromoteSection, mlflow: MlflowSection | None
) -> "tuple[str, ReleasedModel, CardInput | None] | None":
    """The published model of a run, a version in the registry or an URI; None for a mere name."""
    from trimgate.ops.store import split

    what = arguments.what
    folder = _run_folder(what, arguments)
    if folder is not None:
        return _of_run(folder, section)
    if what.startswith("models:/"):
        if mlflow is None:
            raise InvalidInput(
                "needs the registry that the config names", key="--config", mend="name the config"
            )
        from trimgate.ops.mlflow import resolve

        version = resolve(what, tracking_uri=mlflow.tracking_uri)
        _passed(version.verdict, what)
        model = _model(version.uri, version.digest, version.run, version.version)
        return split(version.uri)[1], model, _card(version.run, arguments)
    if "/" in what:
        uri = what if "://" in what else Path(what).resolve().as_uri() + "/"
        return split(uri)[1], _model(uri), None
    return None


def _of_run(folder: Path, section: PromoteSection) -> "tuple[str, ReleasedModel, CardInput | None]":
    from trimgate.ops.store import open_store

    card = _read_card(folder / "card.json")
    _passed(card.status, str(folder))
    digest = card.winner.digest if card.winner else ""
    store = open_store(store_of(section), mounts=section.mounts)
    uri = next((m.uri for m in store.list(card.name) if m.digest == digest), None)
    if uri is None:
        raise InvalidInput(
            f"its winner is not in the store {store.uri}", file=folder,
            mend="`trimgate run` publishes a winner that passed",
        )  # fmt: skip
    version = _version_of(uri, section, card)
    return card.name, _model(uri, digest, card.run, version), card


def _version_of(uri: str, section: PromoteSection, card: "CardInput") -> str:
    """The version in MLflow, as an environment that runs the model already recorded it."""
    from trimgate.ops.promotion import released

    if section.repository is None and is_remote(section.store):
        return ""  # it is deployed without Git
    releases = releases_of(section)
    for environment in releases.environments:
        there = released(releases, environment).get(card.name)
        for model in (there.stable, there.canary) if there else ():
            if model is not None and model.storage_uri == uri and model.version:
                return model.version
    return ""


def _model(uri: str, digest: str = "", run: str = "", version: str = "") -> "ReleasedModel":
    from trimgate.ops.release import ReleasedModel

    # What is not known yet is read from the model's provenance, which is checked first.
    return ReleasedModel.model_construct(
        storage_uri=uri, digest=digest, run=run, version=version, verdict="", promoted="",
        predictor="",
    )  # fmt: skip


def _passed(verdict: str, what: str) -> None:
    if verdict != "pass":
        raise InvalidInput(
            "only a model that passed the gate is promoted, and the verdict is "
            + (verdict or "missing"), key="run", value=what,
        )  # fmt: skip


def _run_folder(what: str, arguments: argparse.Namespace) -> Path | None:
    for folder in (Path(what), _runs(arguments) / what):
        if (folder / "card.json").is_file():
            return folder
    return None


def _runs(arguments: argparse.Namespace) -> Path:
    return Path(arguments.config or CONFIG).resolve().parent / "trimgate-runs"


def _card(run: str, arguments: argparse.Namespace) -> "CardInput | None":
    """The card of a run, where its folder is on this machine."""
    file = _runs(arguments) / run / "card.json"
    return _read_card(file) if "/" not in run and file.is_file() else None


def _read_card(file: Path) -> "CardInput":
    from trimgate.report import CardInput

    try:
        return CardInput.model_validate_json(file.read_bytes())
    except ValueError as error:
        raise InvalidInput("is not a card record", file=file) from error
