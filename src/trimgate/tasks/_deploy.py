"""Releases a model on KServe without Git."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimgate.errors import InvalidInput
from trimgate.tasks._common import start
from trimgate.tasks._release import trust_of

if TYPE_CHECKING:
    from trimgate.config import Config
    from trimgate.ops.kserve import Serving
    from trimgate.report import CardInput

_log = logging.getLogger("trimgate.tasks")


def deploy_kserve(
    uri: str,
    files: str,
    *,
    name: str,
    verdict: str,
    store: str,
    settings: Mapping[str, Any],
    serving: Mapping[str, Any],
    namespace: str,
    version: str = "",
    registered_model: str = "",
    tracking_uri: str = "",
    percent: int = 100,
    timeout: float = 600.0,
) -> str:
    """Verifies a published model, applies an InferenceService, and waits until it is ready.

    Args:
        uri: The model's immutable place in a store.
        files: Folder with the card's record.
        name: The InferenceService's name.
        verdict: The gate's outcome; only `pass` is deployed.
        store: Where models are kept.
        settings: The section `promote` of the config.
        serving: The section `serving`; without `resources` they are taken from the benchmark.
        namespace: Where; that of the pod or the kubeconfig when empty.
        version: Its version in MLflow, or an empty text; with all of the traffic it becomes the
            champion.
        registered_model: Name in the registry.
        tracking_uri: Where MLflow records.
        percent: Its share of the traffic; below 100 it is a canary.
        timeout: Seconds that it has to become ready.

    Returns:
        Where it answers.

    Raises:
        InvalidInput: Something given is wrong, or the model did not pass or is not trusted.
        ClusterError: The cluster refused, or the service did not become ready.
    """
    from trimgate.config import PromoteSection
    from trimgate.ops.kserve import Cluster, Serving, deploy
    from trimgate.ops.publish import check
    from trimgate.ops.release import ReleasedModel
    from trimgate.report import CardInput

    start()
    if verdict != "pass":
        raise InvalidInput(
            "only a model that passed the gate is deployed", key="verdict", value=verdict
        )
    section = PromoteSection.model_validate({**settings, "store": store})
    found = check(uri, trust=trust_of(section), mounts=section.mounts)
    card = CardInput.model_validate_json((Path(files) / "card.json").read_bytes())
    cluster = Cluster.connect(namespace or None)
    model = ReleasedModel(
        storage_uri=uri, digest=found.digest, version=version, run=found.run,
        verdict=found.verdict, promoted=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    suited = serving_for(Serving.model_validate(dict(serving)), card)
    release = deploy(cluster, model, name=name, serving=suited, percent=int(percent))
    _log.info("applied %s with %s; it is waited for", name, model.digest)
    status = cluster.wait_ready(
        name, timeout=timeout, on_change=lambda status: _log.info("%s", status)
    )
    share = release.traffic_percent if release.canary else 100
    _log.info("%s gets %d %% of the traffic of %s", model.digest, share, status.url or name)
    if version and share == 100:
        from trimgate.ops.mlflow import set_champion

        set_champion(registered_model, version, tracking_uri=tracking_uri)
    return status.url


def serving_for(serving: "Serving", card: "CardInput | None") -> "Serving":
    """How a run's winner is served: with the target's threads, and by what was measured of it.

    Args:
        serving: As the config says; what it says is left as it is.
        card: The run that made and judged the model, where it is known.
    """
    from trimgate.ops.kserve import openvino_arguments, resources_for

    if card is None:
        return serving
    changes: dict[str, Any] = {}
    threads = serving.threads or card.target.threads
    if serving.runtime == "trimgate":
        changes["threads"] = threads
    if serving.runtime == "openvino" and card.winner is not None:
        told = openvino_arguments(card.winner, threads=threads)
        changes["arguments"] = (*told, *serving.arguments)
    winner = next((c for c in card.candidates if c.name == card.selection.winner), None)
    if winner is not None and winner.benchmark and "resources" not in serving.model_fields_set:
        changes["resources"] = resources_for(winner.benchmark, threads=threads)
    return serving.model_copy(update=changes)


def check_deploy(config: "Config") -> None:
    """Asks the cluster whether it would take the InferenceService, before the work for it.

    Raises:
        InvalidInput: No cluster is configured, the service is not one of trimgate's, or KServe
            would refuse it.
        ClusterError: The cluster does not answer, has no KServe, or refuses the account.
    """
    from trimgate.ops.kserve import Cluster, deploy
    from trimgate.ops.release import ReleasedModel

    if config.deploy is None:
        return
    nothing = "0" * 64  # no model has this digest
    model = ReleasedModel(
        storage_uri=f"{config.promote.store}/{config.name}/{nothing}/", digest=f"sha256:{nothing}",
        run="check", verdict="pass", promoted="",
    )  # fmt: skip
    cluster = Cluster.connect(config.deploy.namespace)
    deploy(
        cluster, model, name=config.name, serving=config.serving, percent=config.deploy.percent,
        dry_run=True,
    )  # fmt: skip
