"""What a watcher needs of a platform, and the local platform seen from outside."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput, TrimgateError
from trimgate.models.directory import ModelInfo
from trimgate.ops.release import ReleasedModel
from trimgate.ops.rollout.observations import Condition, Golden, Observation, Pair, Traffic
from trimgate.ops.rollout.policy import RolloutPolicy
from trimgate.ops.rollout.position import Position
from trimgate.serving._client import HttpClient, RequestFailed
from trimgate.serving.golden import GoldenInputs, OtherModel


class Platform(Protocol):
    """Where releases are served."""

    def observe(self, place: Position, policy: RolloutPolicy) -> Observation:
        """One look at the model that is rolled out.

        What cannot be seen is None, with the reason in `problems`; nothing is raised for it.
        """


class ModelFolders:
    """Gives the model directory of a storage URI; one that is elsewhere is fetched, once.

    Args:
        cache: Folder for what is fetched.
        mounts: Where volume claims are mounted on this machine.
    """

    def __init__(self, cache: Path, mounts: Mapping[str, str] | None = None) -> None:
        self._cache = cache
        self._mounts = mounts

    def __call__(self, uri: str) -> Path:
        """The folder; whoever loads it verifies it.

        Raises:
            InvalidInput: Nothing is there, or it was altered.
            TrimgateError: The store cannot be reached.
        """
        from trimgate.ops import store

        if "://" not in uri:
            return Path(uri)
        here = store.open_store(store.split(uri)[0], mounts=self._mounts).local(uri)
        if here is not None:
            return here
        folder = self._cache / hashlib.sha256(uri.encode()).hexdigest()
        if not folder.is_dir():
            store.fetch(uri, folder, mounts=self._mounts)
        return folder


class GoldenCheck:
    """Asks a served model the golden inputs.

    Args:
        resolve: Gives the model directory of a storage URI.
        rows: The rows; the first of them are asked.
        threads: Intra-op threads of the session that they are compared with.
    """

    def __init__(
        self, resolve: Callable[[str], Path], rows: Dataset | None, *, threads: int = 1
    ) -> None:
        self._resolve = resolve
        self._rows = rows
        self._threads = threads
        self._made: dict[str, GoldenInputs] = {}

    @property
    def info(self) -> ModelInfo | None:
        """The record of the model that was asked last."""
        return next((made.info for made in self._made.values()), None)

    def __call__(
        self, model: ReleasedModel, url: str, name: str, policy: RolloutPolicy
    ) -> tuple[Golden | None, str]:
        """How a server answers; None and why where it could not be asked."""
        if self._rows is None or not len(self._rows):
            return None, "there are no rows to ask; give some with --rows"
        made = self._made.get(model.digest)
        if made is None:
            try:
                directory = self._resolve(model.storage_uri)
                made = GoldenInputs(
                    directory,
                    self._rows.take(slice(policy.golden)),
                    threads=self._threads,
                    tolerance=policy.golden_tolerance,
                )
            except InvalidInput as error:
                return Golden(rows=policy.golden, problem=str(error)), ""
            except (OSError, TrimgateError) as error:
                return None, f"the model cannot be read from the store: {error}"
            if made.info.digest != model.digest:
                problem = f"the store holds another model than was released: {made.info.digest}"
                return Golden(rows=made.rows, problem=problem), ""
            self._made = {model.digest: made}
        try:
            return Golden(rows=made.rows, problem=made.problem(url, name)), ""
        except OtherModel as error:
            return None, str(error)
        except OSError as error:
            return None, f"the server at {url} does not answer: {error}"


class LocalObserver:
    """The platform that `trimgate rollout serve` runs.

    Args:
        url: Gives its base URL, or None while it does not run; asked at each look.
        golden: The golden inputs.
        timeout: Seconds for each of its answers.
    """

    def __init__(
        self, url: Callable[[], str | None], golden: GoldenCheck, *, timeout: float = 10.0
    ) -> None:
        self._url = url
        self._golden = golden
        self._timeout = timeout

    def observe(self, place: Position, policy: RolloutPolicy) -> Observation:
        """One look; see `Platform`."""
        seen: dict[str, Any] = {"now": datetime.now(UTC), "committed": place.since}
        url = self._url()
        if url is None:
            why = "the local platform does not run; `trimgate rollout serve` starts it"
            return Observation(**seen, problems=dict.fromkeys(("in place", "ready"), why))
        try:
            with HttpClient(url, "", self._timeout) as client:
                state = client.get("/trimgate/state")
                text = client.request("GET", "/metrics", None, {})[0].decode()
                paired = client.get("/trimgate/pairs")
        except (OSError, RequestFailed, ValueError) as error:
            why = f"the local platform at {url} does not answer: {error}"
            return Observation(**seen, problems=dict.fromkeys(("in place", "ready"), why))
        return Observation.model_validate(seen | self._read(place, policy, state, text, paired))

    def _read(
        self,
        place: Position,
        policy: RolloutPolicy,
        state: dict[str, Any],
        text: str,
        paired: dict[str, Any],
    ) -> dict[str, Any]:
        model, step = place.model, place.step
        if model is None or step is None:
            return {}
        problems: dict[str, str] = {}
        found: dict[str, Any] = {"problems": problems}
        if state["problem"]:
            problems["in place"] = state["problem"]
        for variant in state["variants"]:
            if variant["digest"] == model.digest:
                ready = variant["state"] == "ready"
                found["ready"] = ready
                found["conditions"] = (
                    Condition(
                        name="ServerReady",
                        status=ready,
                        reason=variant["state"],
                        message=variant["reason"],
                        since=variant["since"],
                    ),
                )
                if variant["final"]:
                    found["failed"] = variant["reason"]
                if variant["url"]:
                    golden, why = self._golden(model, variant["url"], state["name"], policy)
                    found["golden"] = golden
                    problems["golden inputs"] = why
        if state["revision"] == step.revision and state["applied"]:
            found["applied"] = state["applied"]
            metrics = ProxyMetrics(text, step.revision)
            found["stable"] = metrics.traffic("stable")
            found["canary"] = metrics.traffic("canary")
            if paired["revision"] == step.revision:
                found["pairs"] = tuple(
                    Pair(stable=s, canary=c, gap=g, failed=f) for s, c, g, f in paired["pairs"]
                )
                if not found["pairs"]:
                    problems["agreement"] = "no request was answered by both models yet"
        problems = {key: why for key, why in problems.items() if why}
        return {**found, "problems": problems}


class ProxyMetrics:
    """The counts of one revision from a proxy's `/metrics`.

    Args:
        text: In Prometheus' text format.
        revision: Counts of others are left out.
    """

    def __init__(self, text: str, revision: str) -> None:
        self._samples: list[tuple[str, dict[str, str], float]] = []
        for name, labels, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            series = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if series.get("revision") == revision:
                self._samples.append((name, series, float(value)))

    def traffic(self, variant: str) -> Traffic:
        """What a variant answered."""
        own = [
            (name, series, value)
            for name, series, value in self._samples
            if series.get("variant") == variant
        ]
        codes = [(s["code"], v) for n, s, v in own if n == "trimgate_proxy_requests_total"]
        buckets: dict[float, float] = {}
        for name, series, value in own:
            if name == "trimgate_proxy_request_seconds_bucket":
                edge = float(series["le"])
                buckets[edge] = buckets.get(edge, 0.0) + value
        return Traffic(
            requests=int(sum(v for _, v in codes)),
            errors=int(sum(v for code, v in codes if code.startswith("5"))),
            **histogram(buckets),
        )


def histogram(cumulative: dict[float, float]) -> dict[str, tuple[float, ...]]:
    """Edges and counts of a Prometheus histogram.

    Args:
        cumulative: Counts up to each upper edge, infinity included.
    """
    edges = sorted(cumulative)
    counts, below = [], 0.0
    for edge in edges:
        counts.append(max(0.0, cumulative[edge] - below))
        below = max(below, cumulative[edge])
    finite = tuple(edge for edge in edges if math.isfinite(edge))
    if len(finite) == len(edges):
        return {"edges": (), "counts": ()}
    return {"edges": finite, "counts": tuple(counts)}


def base_url(url: str, key: str = "--url") -> str:
    """Checks an address that was given.

    Raises:
        InvalidInput: It is no http(s) URL, or holds a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput("is no http(s) URL", key=key, value=url)
    if parts.username or parts.password:
        raise InvalidInput("holds a password", key=key, mend="leave it out")
    return url.rstrip("/")
