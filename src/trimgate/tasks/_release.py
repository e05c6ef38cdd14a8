"""What becomes of a judged winner."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from trimgate.errors import InvalidInput, MissingExtra
from trimgate.tasks._common import start

if TYPE_CHECKING:
    from trimgate.config import Config, PromoteSection
    from trimgate.ops.promotion import Releases
    from trimgate.ops.publish import Trust

_log = logging.getLogger("trimgate.tasks")


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


def publish(
    winner: str,
    files: str,
    *,
    store: str,
    settings: Mapping[str, Any],
    version: str,
    tracking_uri: str,
    registered_model: str,
    layout: str = "",
) -> str:
    """Scans, describes, signs and stores the winner.

    Args:
        winner: The winner's model directory.
        files: Folder with the card's record.
        store: Where models are kept.
        settings: The section `promote` of the config.
        version: The model's version in MLflow, which is told the URI; or an empty text.
        tracking_uri: Where MLflow records.
        registered_model: Name in the registry.
        layout: Another model server that is to read the published model too, or an empty text.

    Returns:
        The published model's immutable URI.

    Raises:
        InvalidInput: The run did not pass, or the model or a setting is not right.
        TrimgateError: Store or registry did not take it.
    """
    from trimgate.config import PromoteSection
    from trimgate.ops.publish import publish
    from trimgate.report import CardInput

    start()
    section = PromoteSection.model_validate({**settings, "store": store})
    card = CardInput.model_validate_json((Path(files) / "card.json").read_bytes())
    trust = trust_of(section)
    add = None
    if layout:
        from trimgate.ops.kserve import Layout, add_layout

        kind, target = TypeAdapter[Layout](Layout).validate_python(layout), card.target
        add = partial(add_layout, kind=kind, threads=target.threads, gpu=target.device == "gpu")
    uri = publish(winner, card, store_of(section), trust=trust, mounts=section.mounts, layout=add)
    if version:
        from trimgate.ops.mlflow import record_published

        record_published(registered_model, version, uri, tracking_uri=tracking_uri)
    _log.info("published %s", uri)
    return uri


def promote(
    uri: str,
    files: str,
    *,
    name: str,
    verdict: str,
    version: str,
    store: str,
    environment: str,
    settings: Mapping[str, Any],
) -> str:
    """Verifies a published model and releases it to an environment.

    Args:
        uri: Its immutable URI.
        files: Folder with the card's record.
        name: The model's name.
        verdict: The gate's outcome; only `pass` is promoted.
        version: The model's version in MLflow, or an empty text.
        store: Where models are kept.
        environment: Where it is released; `settings` went through maps, which have no order.
        settings: The section `promote` of the config.

    Returns:
        The URI.

    Raises:
        InvalidInput: The verdict is not `pass`, or the model or a setting is not right.
        TrimgateError: Store, repository or forge did not take it; nothing was released.
    """
    from trimgate.config import PromoteSection
    from trimgate.ops.promotion import promote
    from trimgate.ops.publish import check
    from trimgate.ops.release import ReleasedModel
    from trimgate.report import CardInput, pull_request_markdown

    start()
    if verdict != "pass":
        raise InvalidInput(
            "only a model that passed the gate is promoted", key="verdict", value=verdict
        )
    section = PromoteSection.model_validate({**settings, "store": store})
    card = CardInput.model_validate_json((Path(files) / "card.json").read_bytes())
    trust = trust_of(section)
    found = check(uri, trust=trust, mounts=section.mounts)
    model = ReleasedModel(
        storage_uri=uri,
        digest=found.digest,
        version=version,
        run=found.run,
        verdict=found.verdict,
        promoted="",
    )
    done = promote(releases_of(section), name, environment, model, body=pull_request_markdown(card))
    if done.branch is not None:
        _log.info("proposed for %s: %s", environment, done.pull_request or done.branch)
    else:
        _log.info("released %s to %s", model.digest, environment)
    return uri


def fetch_model(
    config: "Config", folder: Path, file: str | Path | None = None
) -> "tuple[Config, str]":
    """Takes a version in the registry as the model to begin with; asked before work starts.

    An alias is looked up once: from then on the run is about the bytes that it stood for.

    Args:
        config: The config.
        folder: Where published models are kept by their digest.
        file: The config's file, for messages.

    Returns:
        The config with the path of the fetched directory, and the immutable URI; as it was and an
        empty text where `model.path` names no version.

    Raises:
        InvalidInput: There is no such version, it is not published, or it is not what was
            published or signed.
        TrimgateError: Registry or store cannot be reached.
    """
    from trimgate.config import is_version

    uri = config.model.path
    if not is_version(uri):
        return config, ""
    from trimgate.models.directory import read
    from trimgate.ops import store
    from trimgate.ops.mlflow import resolve

    named: dict[str, Any] = {"file": file, "key": "model.path", "value": uri}
    if not config.mlflow.enabled:
        raise InvalidInput("needs the registry, and mlflow.enabled is false", **named)
    try:
        found = resolve(uri, tracking_uri=config.mlflow.tracking_uri)
    except MissingExtra:
        raise
    except InvalidInput as error:
        raise InvalidInput(error.problem, **named, mend=error.mend) from error
    place = folder / store.split(found.uri)[2]
    if not place.is_dir():
        store.fetch(found.uri, place, mounts=config.promote.mounts)
    if read(place, verify=True).digest != found.digest:
        raise InvalidInput(
            f"the registry says {found.digest}, and {found.uri} holds another model", **named
        )
    trust_of(config.promote).verify(place)
    model = config.model.model_copy(update={"path": str(place)})
    return config.model_copy(update={"model": model}), found.uri


def store_of(promote: "PromoteSection") -> str:
    """The model store; that of a folder stands beside its release repository."""
    from trimgate.config import is_remote

    return promote.store if is_remote(promote.store) else str(Path(promote.store) / "models")


def trust_of(promote: "PromoteSection") -> "Trust":
    """Whose signatures count."""
    from trimgate.ops.publish import Trust

    signing = promote.signing
    return Trust(
        sign_key=Path(signing.key) if signing.key else None,
        verify_key=Path(signing.verify_key) if signing.verify_key else None,
        identity=signing.identity,
        issuer=signing.issuer,
    )


def releases_of(promote: "PromoteSection") -> "Releases":
    """Where releases are recorded: the repository, or one of trimgate's own in the store.

    In the latter nobody could merge a pull request, so that every environment takes commits.
    """
    from trimgate.config import is_remote
    from trimgate.ops.forges import find_forge
    from trimgate.ops.git import Access
    from trimgate.ops.promotion import Releases

    local = promote.repository is None
    if local and is_remote(promote.store):
        raise InvalidInput(
            "a `store` elsewhere needs a `repository` that records releases",
            key="promote.store", value=promote.store, mend="name the repository",
        )  # fmt: skip
    url = promote.repository or str(Path(promote.store) / "releases.git")
    access = Access(
        url,
        branch=promote.branch,
        author=promote.author or "",
        signing_key=promote.commit_key or "",
    )
    return Releases(
        access,
        {e: "commit" if local else s.mode for e, s in promote.environments.items()},
        forge=None if local else find_forge(url, promote.forge, promote.forge_url),
        mode=promote.deployment_mode,
        local=local,
        namespaces={e: s.namespace for e, s in promote.environments.items() if s.namespace},
    )


def reject(verdict: str, *, fail_on_reject: bool) -> None:
    """Says that nothing was released.

    Raises:
        RuntimeError: `fail_on_reject` is set.
    """
    start()
    _log.info("nothing was released: the verdict is %s", verdict)
    if fail_on_reject:
        raise RuntimeError(f"the gate's verdict is {verdict}")
