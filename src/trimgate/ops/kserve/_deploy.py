"""Releases a model on a cluster directly, where there is no GitOps repository.

The release stands in the InferenceService's annotations, as it does in a repository's release
file; nothing else is kept, so that a deployment that was interrupted is simply done again.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from trimgate.errors import InvalidInput
from trimgate.ops import release as releases
from trimgate.ops.kserve._client import Cluster
from trimgate.ops.kserve._service import Serving, base_service, released_service
from trimgate.ops.release import Release, ReleasedModel


def deploy(
    cluster: Cluster,
    model: ReleasedModel,
    *,
    name: str,
    serving: Serving,
    environment: str = "production",
    percent: int = 100,
    dry_run: bool = False,
) -> Release:
    """Gives a model a share of the traffic, or all of it; `Cluster.wait_ready` waits for it.

    Doing it again changes nothing. The first model of a name gets all the traffic.

    Args:
        cluster: Where.
        model: A model that passed the gate.
        name: The InferenceService's name.
        serving: How it is served. Where it does not say the resources, those of the service that
            is there are kept, with its arguments.
        environment: As the release records it.
        percent: 1 to 99 starts or goes on with a canary; 100 makes the model the stable one.
        dry_run: Only ask the server whether it would take it.

    Returns:
        What is released now.

    Raises:
        InvalidInput: The model did not pass, or the service is not one of trimgate's.
        ClusterError: The cluster refused.
    """
    if model.verdict != "pass":
        raise InvalidInput(
            "only a model that passed the gate is released", key="verdict", value=model.verdict
        )
    live = cluster.get("InferenceService", name)
    before = None if live is None else live_release(live)
    if before is None:
        before = Release(name=name, environment=environment, mode=serving.mode)
    after = _after(before, model, percent)
    base = base_service(name, serving, namespace=cluster.namespace)
    if live is not None and "resources" not in serving.model_fields_set:
        there = live["spec"]["predictor"].get("model", {})
        kept = {key: there[key] for key in ("resources", "args") if key in there}
        base["spec"]["predictor"]["model"] |= kept
    cluster.apply(released_service(base, after), dry_run=dry_run)
    return after


def live_release(service: Mapping[str, Any]) -> Release:
    """What an InferenceService on the cluster releases.

    Args:
        service: As the API server gave it.

    Raises:
        InvalidInput: trimgate did not deploy it.
    """
    name = service["metadata"]["name"]
    notes = service["metadata"].get("annotations", {})
    if f"{releases.PREFIX}environment" not in notes:
        raise InvalidInput(
            "is on the cluster and was not deployed by trimgate", key="name", value=name,
            mend="choose another name, or delete the InferenceService",
        )  # fmt: skip
    document = {
        "kind": service["kind"],
        "metadata": {"name": name, "annotations": notes},
        "spec": service["spec"],
    }
    return releases.read(yaml.safe_dump(document), file=f"InferenceService {name}")


def _after(before: Release, model: ReleasedModel, percent: int) -> Release:
    if percent < 100 and before.stable is not None and before.stable.digest != model.digest:
        return releases.start_canary(before, model, percent)
    if before.canary is not None and before.canary.digest == model.digest:
        return releases.promote_canary(before)  # its pods run already
    return releases.release_stable(before, model)
