"""Releases a model on KServe without Git."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from trimgate.errors import InvalidInput
from trimgate.tasks._common import start

_log = logging.getLogger("trimgate.tasks")


def deploy_kserve(
    uri: str,
    *,
    name: str,
    digest: str,
    run: str,
    verdict: str,
    namespace: str,
    version: str = "",
    serving: Mapping[str, Any] | None = None,
    benchmark: str = "",
    percent: int = 100,
    timeout: float = 600.0,
) -> str:
    """Applies an InferenceService and waits until it is ready.

    Args:
        uri: The model's immutable place in a store.
        name: The InferenceService's name.
        digest: `sha256:...` of the model.
        run: Id of the run that judged it.
        verdict: The gate's outcome; only `pass` is deployed.
        namespace: Where; that of the pod or the kubeconfig when empty.
        version: Its version in the registry.
        serving: Fields of `trimgate.ops.kserve.Serving`; without `resources` they are taken from
            the benchmark.
        benchmark: The benchmark's record, or an empty text.
        percent: Its share of the traffic; below 100 it is a canary.
        timeout: Seconds that it has to become ready.

    Returns:
        Where it answers.

    Raises:
        InvalidInput: Something given is wrong, or the model did not pass.
        ClusterError: The cluster refused, or the service did not become ready.
    """
    from trimgate.judge.records import Benchmark, load
    from trimgate.ops.kserve import Cluster, Serving, deploy, resources_for
    from trimgate.ops.release import ReleasedModel

    start()
    fields = dict(serving or {})
    if benchmark and "resources" not in fields:
        threads = fields.get("threads") or 1
        fields["resources"] = resources_for(load(Benchmark, benchmark), threads=threads)
    promoted = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        settings = Serving.model_validate(fields)
        model = ReleasedModel(
            storage_uri=uri, digest=digest, version=version, run=run, verdict=verdict,
            promoted=promoted,
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            first["msg"].removeprefix("Value error, "),
            key=".".join(map(str, first["loc"])) or "serving",
        ) from error
    cluster = Cluster.connect(namespace or None)
    release = deploy(cluster, model, name=name, serving=settings, percent=percent)
    _log.info("applied %s with %s; it is waited for", name, digest)
    status = cluster.wait_ready(
        name, timeout=timeout, on_change=lambda status: _log.info("%s", status)
    )
    share = release.traffic_percent if release.canary else 100
    _log.info("%s gets %d %% of the traffic of %s", digest, share, status.url or name)
    return status.url
