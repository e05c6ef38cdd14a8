"""What a watcher sees, for Prometheus: canary agreement and how each check stands."""

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from trimgate.errors import InvalidInput
from trimgate.ops.rollout.watch import Event

_LABELS = ("model", "environment")
_STANDS = {"pass": 1, "inconclusive": 0, "fail": -1}


class Metrics:
    """Keeps the newest look's numbers; call it with each event.

    Args:
        model: The model's name.
        environment: Where it is rolled out.
    """

    def __init__(self, model: str, environment: str) -> None:
        self.registry = CollectorRegistry()
        self._labels = (model, environment)
        self._percent = Gauge(
            "trimgate_rollout_canary_percent",
            "The canary's share of the requests.",
            _LABELS,
            registry=self.registry,
        )
        self._disagreement = Gauge(
            "trimgate_rollout_disagreement",
            "Share of the requests that canary and stable model answered differently; low and "
            "high bound it at every look.",
            (*_LABELS, "bound"),
            registry=self.registry,
        )
        self._check = Gauge(
            "trimgate_rollout_check",
            "How a check stands: 1 holds, 0 open, -1 breach.",
            (*_LABELS, "check"),
            registry=self.registry,
        )
        self._ended = Counter(
            "trimgate_rollout_ended",
            "Rollouts that ended.",
            (*_LABELS, "state"),
            registry=self.registry,
        )
        self._problems = Counter(
            "trimgate_rollout_problems",
            "Looks at which the repository was not to be had.",
            _LABELS,
            registry=self.registry,
        )
        self._percent.labels(*self._labels).set(0)
        self._problems.labels(*self._labels)
        for state in ("promoted", "rolled back"):
            self._ended.labels(*self._labels, state)

    def __call__(self, event: Event) -> None:
        """Takes an event over."""
        if event.kind == "problem":
            self._problems.labels(*self._labels).inc()
            return
        self._percent.labels(*self._labels).set(event.share % 100)
        if event.kind == "end":
            self._ended.labels(*self._labels, event.text.partition(":")[0]).inc()
            # what was seen of a canary is not said of the next one
            self._disagreement.clear()
            self._check.clear()
        if event.decision is None:
            return
        for check in event.decision.checks:
            self._check.labels(*self._labels, check.rule).set(_STANDS[check.outcome])
            if check.rule == "agreement" and check.observed is not None:
                for bound, value in (
                    ("observed", check.observed.value),
                    ("low", check.observed.low),
                    ("high", check.observed.high),
                ):
                    self._disagreement.labels(*self._labels, bound).set(value)

    @contextlib.contextmanager
    def served(self, host: str, port: int) -> Iterator[int]:
        """Answers Prometheus on `/metrics` for the time of the block; gives the port.

        Raises:
            InvalidInput: The port is in use.
        """
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise InvalidInput(
                f"cannot be listened on ({error.strerror})", key="--metrics", value=f"{host}:{port}"
            ) from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
