"""KServe as a platform: status from the InferenceService, traffic from Prometheus.

The watcher only reads: Argo CD (or `kubectl apply`) brings the release file into the cluster. Live
agreement comes from rows that the watcher sends to both models, a few at each look.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from trimgate.data.dataset import Dataset
from trimgate.errors import TrimgateError
from trimgate.ops.kserve import read_status
from trimgate.ops.release import Release, ReleasedModel
from trimgate.ops.rollout.observations import Observation, Pair
from trimgate.ops.rollout.pairs import compare, read_answer
from trimgate.ops.rollout.platforms import GoldenCheck
from trimgate.ops.rollout.policy import RolloutPolicy
from trimgate.ops.rollout.position import Position
from trimgate.ops.rollout.prometheus import QUERIES, Prometheus, PrometheusError
from trimgate.serving._client import HttpClient, RequestFailed, infer_request

Object = Mapping[str, Any]
Address = Callable[[Release, str, Object], str | None]
"""Base URL of the `stable` or `canary` model of a release, given the InferenceService."""


class KServePlatform:
    """One InferenceService.

    Args:
        get: Reads it; None when there is none.
        prometheus: Who scrapes its model servers.
        golden: The golden inputs.
        address: Where each model answers; by default `cluster_address`.
        rows: Rows that both models are asked, for live agreement.
        namespace: Its namespace, a label of its series.
        queries: PromQL, for servers with other metrics than trimgate's.
        sampled: Rows that are asked at each look.
        timeout: Seconds for each request.
    """

    def __init__(
        self,
        get: Callable[[], Object | None],
        prometheus: Prometheus,
        golden: GoldenCheck,
        *,
        namespace: str,
        rows: Dataset | None,
        address: Address | None = None,
        queries: Mapping[str, str] = QUERIES,
        sampled: int = 200,
        timeout: float = 10.0,
    ) -> None:
        self._get = get
        self._prometheus = prometheus
        self._golden = golden
        self._address = address or cluster_address
        self._rows = rows
        self._namespace = namespace
        self._queries = queries
        self._sampled = sampled
        self._timeout = timeout
        self._pairs: tuple[str, list[Pair]] = ("", [])

    def observe(self, place: Position, policy: RolloutPolicy) -> Observation:
        """One look; see `Platform`."""
        now = datetime.now(UTC)
        model, step = place.model, place.step
        seen: dict[str, Any] = {"now": now, "committed": place.since}
        if model is None or step is None:
            return Observation(**seen)
        try:
            service = self._get()
        except (TrimgateError, OSError) as error:
            why = f"the cluster does not answer: {error}"
            return Observation(**seen, problems={"in place": why, "ready": why})
        if service is None:
            why = "there is no such InferenceService; does Argo CD follow the repository?"
            return Observation(**seen, problems={"in place": why, "ready": why})
        seen |= status(service, place)
        problems = seen.pop("problems")
        if seen["ready"]:
            variant = "stable" if place.share == 100 else "canary"
            url = self._address(place.newest.release, variant, service)
            if url is None:
                problems["golden inputs"] = "the model has no address in the cluster"
            else:
                name = place.newest.release.name
                seen["golden"], problems["golden inputs"] = self._golden(model, url, name, policy)
        if place.share < 100 and seen.get("applied") is not None:
            release, since = place.newest.release, seen["applied"]
            try:
                for variant, served in (("stable", release.stable), ("canary", release.canary)):
                    seen[variant] = self._prometheus.traffic(
                        self._labels(release, served), since, now, self._queries
                    )
            except PrometheusError as error:
                problems["traffic"] = str(error)
            seen["pairs"], problems["agreement"] = self._agreement(place, service)
        return Observation(**seen, problems={key: why for key, why in problems.items() if why})

    def _labels(self, release: Release, model: ReleasedModel | None) -> dict[str, str]:
        digest = "" if model is None else model.digest
        return {"namespace": self._namespace, "model": release.name, "digest": digest}

    def _agreement(self, place: Position, service: Object) -> tuple[tuple[Pair, ...] | None, str]:
        """The pairs of this step so far, with the rows of this look.

        After a restart the same rows are asked in the same order again.
        """
        if self._rows is None or not len(self._rows):
            return None, "there are no rows to ask both models; give some with --rows"
        release = place.newest.release
        urls = [self._address(release, variant, service) for variant in ("stable", "canary")]
        revision = place.step.revision if place.step else ""
        if self._pairs[0] != revision:
            self._pairs = (revision, [])
        pairs = self._pairs[1]
        if None in urls:
            return None, "a model has no address in the cluster"
        if self._golden.info is None:
            return None, "the model could not be read, so no rows can be sent"
        if len(pairs) >= len(self._rows):
            return tuple(pairs), ""
        try:
            pairs += self._ask(release, [str(url) for url in urls], len(pairs))
        except (OSError, TrimgateError, ValueError) as error:
            why = f"the stable model does not answer the sampled rows: {error}"
            return (tuple(pairs) or None), why
        return tuple(pairs), ""

    def _ask(self, release: Release, urls: Sequence[str], begin: int) -> list[Pair]:
        """Each row as a request of its own to both models."""
        import numpy as np

        from trimgate.serving import _tensors

        assert self._rows is not None  # noqa: S101 (the caller looked)
        assert self._golden.info is not None  # noqa: S101
        order = np.random.default_rng(0).permutation(len(self._rows))
        found = []
        with (
            HttpClient(urls[0], release.name, self._timeout) as stable,
            HttpClient(urls[1], release.name, self._timeout) as canary,
        ):
            for row in order[begin : begin + self._sampled]:
                one = self._rows.take([int(row)])
                body, headers = infer_request(
                    _tensors.request_tensors(self._golden.info, one.features)
                )
                path = f"/v2/models/{stable.name}/infer"
                expected = read_answer(*stable.request("POST", path, body, headers))
                try:
                    given = read_answer(*canary.request("POST", path, body, headers))
                except (OSError, RequestFailed, ValueError):
                    given = None
                    canary.close()  # the next request opens a new connection
                found.append(compare(expected, given, 0))
        return found


def status(service: Object, place: Position) -> dict[str, Any]:
    """What an InferenceService says of the model that is rolled out.

    Returns:
        `applied`, `ready` and `failed` of an `Observation`, and its `problems`.
    """
    late = _spec_problem(service["spec"], place.newest.release)
    if late:
        return {"ready": None, "problems": {"in place": late, "ready": late}}
    told = read_status(service)
    if told.failed:
        return {"ready": False, "failed": told.failed, "problems": {}}
    if not told.ready:
        why = "; ".join(told.waiting)
        return {"ready": False, "problems": {"in place": why, "ready": why}}
    # Conditions that turned true later than the commit say since when the model answers.
    conditions = service["status"]["conditions"]
    since = [datetime.fromisoformat(c["lastTransitionTime"]) for c in conditions
             if c["type"].endswith("Ready") and c.get("lastTransitionTime")]  # fmt: skip
    return {"ready": True, "applied": max([place.since, *since]), "problems": {}}


def cluster_address(release: Release, variant: str, service: Object) -> str | None:
    """Where a model answers inside the cluster, past the weights.

    In Standard mode each predictor has a Service of its own, in Knative mode each revision has.
    """
    metadata = service.get("metadata", {})
    namespace = metadata.get("namespace", "default")
    model = release.stable if variant == "stable" else release.canary
    if model is None:
        return None
    if release.mode == "Standard":
        named = f"-{model.predictor}" if model.predictor else ""
        return f"http://{release.name}{named}-predictor.{namespace}.svc.cluster.local"
    component = service.get("status", {}).get("components", {}).get("predictor", {})
    newest = release.canary is None or variant == "canary"
    revision = component.get("latestReadyRevision" if newest else "previousRolledoutRevision")
    return f"http://{revision}.{namespace}.svc.cluster.local" if revision else None


def _spec_problem(spec: Object, release: Release) -> str:
    """How the spec in the cluster differs from the release file."""
    predictor = spec.get("predictor", {})
    uri = predictor.get("model", {}).get("storageUri")
    late = "the cluster has not taken the newest commit over yet"
    if release.mode == "Knative":
        served = release.canary or release.stable
        share = predictor.get("canaryTrafficPercent")
        wanted = release.traffic_percent if release.canary is not None else None
        same = served is not None and uri == served.storage_uri and share in (wanted, wanted or 100)
        return "" if same else late
    if release.stable is None or uri != release.stable.storage_uri:
        return late
    entries = spec.get("canary", [])
    if release.canary is None:
        return late if entries else ""
    named = [e for e in entries if e.get("predictor", {}).get("name") == release.canary.predictor]
    if not named or named[0].get("trafficPercent") != release.traffic_percent:
        return late
    same = named[0]["predictor"].get("model", {}).get("storageUri") == release.canary.storage_uri
    return "" if same else late
