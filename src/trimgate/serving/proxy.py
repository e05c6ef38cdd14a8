"""A weighted proxy before two model servers: what a cluster's gateway does, on one machine.

Requests go to the stable model or to the canary by chance, with the canary's share; both are
changed without a restart and without a lost request. A sampled share of the requests is mirrored
to the other model, and the pair of answers handed on. A canary that fails costs nobody an answer:
the failure is counted, and the stable model answers.
"""

import asyncio
import logging
import random
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from trimgate.serving._ports import reached_at

logger = logging.getLogger("trimgate.serving")

BUCKETS = tuple(round(0.0001 * 1.1**step, 9) for step in range(135))
"""Upper edges of the latency buckets in seconds: 0.1 ms to 35 s, each 10 % above the last."""

_BODY_LIMIT = 64 * 2**20
_MOST_MIRRORED = 128  # at once; more would slow down the requests that somebody waits for
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host")
)
_KEPT = 5  # revisions whose counts are shown
T = TypeVar("T")
_LABELS = ("model", "variant", "digest", "revision")


@dataclass(frozen=True)
class Backend:
    """A model server.

    Attributes:
        variant: `stable` or `canary`.
        url: Base URL of its REST side.
        digest: Content digest of its model.
    """

    variant: str
    url: str
    digest: str


@dataclass(frozen=True)
class Routes:
    """Where requests go.

    Attributes:
        revision: What the routes follow from; a label of every count.
        stable: The model that answers when in doubt.
        canary: The model that is tried, or None.
        percent: Its share of the requests.
    """

    revision: str
    stable: Backend
    canary: Backend | None = None
    percent: int = 0


@dataclass(frozen=True)
class Reply:
    """A server's answer; `status` is 502 or 504 when there was none."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def failed(self) -> bool:
        """Whether the server is to blame."""
        return self.status >= 500


class Proxy:
    """One model's traffic.

    Args:
        model: The model's name, a label of every count.
        mirror: Share of the inference requests that the other model answers too.
        on_pair: Called with the routes and the replies of stable and canary to a mirrored
            request.
        timeout: Seconds that a server has to answer.
        grace: Seconds that open requests get when it stops.
        chance: Source of the choices.
    """

    def __init__(
        self,
        model: str,
        *,
        mirror: float = 1.0,
        on_pair: Callable[[Routes, Reply, Reply], None] | None = None,
        timeout: float = 30.0,
        grace: float = 20.0,
        chance: random.Random | None = None,
    ) -> None:
        self.model = model
        self.url = ""
        self.registry = CollectorRegistry()
        self._mirror = mirror
        self._on_pair = on_pair
        self._timeout = timeout
        self._grace = grace
        self._chance = chance or random.Random()  # noqa: S311 (no secret depends on it)
        self._routes: Routes | None = None
        self._open: dict[str, int] = {}
        self._revisions: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._requests = Counter(
            "trimgate_proxy_requests",
            "Inference requests sent to a model, by its answer (502, 504: it gave none).",
            (*_LABELS, "code"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "trimgate_proxy_request_seconds",
            "Time from sending an inference request to its answer.",
            _LABELS,
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._percent = Gauge(
            "trimgate_proxy_canary_percent",
            "The canary's share of the requests.",
            ("model",),
            registry=self.registry,
        )
        self._mirrored = Counter(
            "trimgate_proxy_mirrored",
            "Requests that both models got, and those too many to mirror.",
            ("model", "revision", "outcome"),
            registry=self.registry,
        )
        self._rescued = Counter(
            "trimgate_proxy_rescued",
            "Requests that the stable model answered since the canary failed.",
            ("model", "revision"),
            registry=self.registry,
        )

    @property
    def routes(self) -> Routes | None:
        """Where requests go now."""
        return self._routes

    def route(self, routes: Routes | None) -> None:
        """Changes where requests go, from the next one on; None refuses them with 503."""
        self._routes = routes
        if routes is not None and routes.revision not in self._revisions:
            self._revisions.append(routes.revision)
            if len(self._revisions) > _KEPT:
                old = {"revision": self._revisions.pop(0)}
                for metric in (self._requests, self._seconds, self._mirrored, self._rescued):
                    metric.remove_by_labels(old)
        self._percent.labels(self.model).set(routes.percent if routes else 0)

    async def start(
        self,
        sock: socket.socket,
        pages: Mapping[str, Callable[[web.Request], Awaitable[web.Response]]] | None = None,
    ) -> None:
        """Answers on a bound socket from now on.

        Args:
            sock: Where; its `/metrics` are the proxy's own.
            pages: What else the proxy answers itself, by path.
        """
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        app = web.Application(client_max_size=_BODY_LIMIT)
        for path, page in {"/metrics": self._metrics, **(pages or {})}.items():
            app.router.add_get(path, page)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            handle_signals=False,
            keepalive_timeout=65,
            shutdown_timeout=self._grace,
        )
        await self._runner.setup()
        await web.SockSite(self._runner, sock, backlog=1024).start()
        self.url = f"http://{reached_at(sock)}"

    async def stop(self) -> None:
        """Refuses new connections, lets open requests end, and closes."""
        if self._runner is not None:
            await self._runner.cleanup()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def drained(self, url: str, timeout: float = 20.0) -> bool:
        """Waits until no request is open at a server that gets no new ones.

        Returns:
            Whether all ended in time.
        """
        deadline = time.monotonic() + timeout
        while self._open.get(url, 0) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return not self._open.pop(url, 0)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self.registry),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        # Only now: while a body comes in, a server that it would go to may be drained and ended.
        routes = self._routes
        if routes is None:
            return _response(_nothing(503, "no model is served yet"), "none")
        inference = request.method == "POST" and request.path.endswith((":predict", "/infer"))
        if not inference:
            return _response(await self._send(routes.stable, request, body), routes.stable.variant)
        canary = routes.canary
        if canary is None:
            return _response(await self._counted(routes, routes.stable, request, body), "stable")
        to_canary = self._chance.random() * 100 < routes.percent
        chosen, other = (canary, routes.stable) if to_canary else (routes.stable, canary)
        shadow = self._shadow(routes, other, request, body)
        reply = await self._counted(routes, chosen, request, body)
        if shadow is not None:
            self._background(self._pair(routes, chosen, reply, shadow))
        if to_canary and reply.failed:
            self._rescued.labels(self.model, routes.revision).inc()
            # that of now: the canary's own failure may have taken long
            again = shadow or self._send((self._routes or routes).stable, request, body)
            return _response(await again, "stable")
        return _response(reply, chosen.variant)

    def _shadow(
        self, routes: Routes, other: Backend, request: web.Request, body: bytes
    ) -> "asyncio.Task[Reply] | None":
        if self._on_pair is None or self._chance.random() >= self._mirror:
            return None
        if len(self._tasks) >= _MOST_MIRRORED:
            self._mirrored.labels(self.model, routes.revision, "left out").inc()
            return None
        return self._background(self._send(other, request, body))

    async def _pair(
        self, routes: Routes, chosen: Backend, reply: Reply, shadow: "asyncio.Task[Reply]"
    ) -> None:
        other = await shadow
        self._mirrored.labels(self.model, routes.revision, "done").inc()
        if self._on_pair is not None:
            stable, canary = (reply, other) if chosen is routes.stable else (other, reply)
            self._on_pair(routes, stable, canary)

    async def _counted(
        self, routes: Routes, backend: Backend, request: web.Request, body: bytes
    ) -> Reply:
        labels = (self.model, backend.variant, backend.digest, routes.revision)
        start = time.perf_counter()
        reply = await self._send(backend, request, body)
        self._seconds.labels(*labels).observe(time.perf_counter() - start)
        self._requests.labels(*labels, str(reply.status)).inc()
        return reply

    async def _send(self, backend: Backend, request: web.Request, body: bytes) -> Reply:
        assert self._session is not None  # noqa: S101 (it was started)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        url = backend.url + request.raw_path
        self._open[backend.url] = self._open.get(backend.url, 0) + 1
        try:
            async with self._session.request(
                request.method, _verbatim(url), headers=headers, data=body, allow_redirects=False
            ) as answer:
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
                return Reply(answer.status, kept, await answer.read())
        except TimeoutError:
            return _nothing(504, f"the {backend.variant} model did not answer in time")
        except aiohttp.ClientError as error:
            logger.debug("%s: %s", backend.url, error)
            return _nothing(502, f"the {backend.variant} model's server does not answer")
        finally:
            self._open[backend.url] -= 1

    def _background(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _verbatim(url: str) -> Any:
    from yarl import URL

    return URL(url, encoded=True)


def _nothing(status: int, why: str) -> Reply:
    return Reply(status, {"Content-Type": "application/json"}, f'{{"error": "{why}"}}'.encode())


def _response(reply: Reply, variant: str) -> web.Response:
    headers = {k: v for k, v in reply.headers.items() if k.lower() != "content-length"}
    return web.Response(
        status=reply.status, body=reply.body, headers={**headers, "X-Trimgate-Variant": variant}
    )
