"""The local platform: it follows the release file, as Argo CD and KServe do on a cluster.

Stable and canary are model servers in processes of their own, behind a weighted proxy. A new
commit starts the processes that it asks for; when they answer, the weights change at once, and
those no longer asked for are drained and ended. A server that dies is started again. Nothing is
kept: started again, the platform reads Git and comes to the same state.

The proxy's address also answers `/metrics`, `/trimgate/state` (what is carried out, and why not)
and `/trimgate/pairs` (requests that both models answered, without their inputs).
"""

import asyncio
import collections
import contextlib
import json
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from aiohttp import web

from trimgate.errors import InvalidInput, TrimgateError
from trimgate.models.directory import read
from trimgate.ops.git import ReleaseLog
from trimgate.ops.publish import Trust
from trimgate.ops.release import ReleasedModel
from trimgate.ops.rollout import pairs
from trimgate.ops.rollout.observations import Pair
from trimgate.ops.rollout.position import Position, position
from trimgate.serving.process import RunningServer, start
from trimgate.serving.proxy import Backend, Proxy, Reply, Routes
from trimgate.serving.server import Address

logger = logging.getLogger("trimgate.rollout")

_MOST_PAIRS = 20_000
_START = 180.0  # seconds that a server has to become ready
_AGAIN = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds until a server that failed is started again


@dataclass
class _Server:
    """The process of one model, and how it fares."""

    model: ReleasedModel
    state: Literal["starting", "ready", "failed"] = "starting"
    reason: str = ""
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    failures: int = 0
    final: bool = False
    running: RunningServer | None = None
    work: "asyncio.Task[None] | None" = None

    def notice(self) -> None:
        """Takes note of a process that has ended by itself."""
        ended = None if self.running is None else self.running.exit_code
        if ended is not None:
            self.running = None
            self.failures += 1
            self.turn("starting", f"the server ended with exit code {ended}")

    def turn(self, state: Literal["starting", "ready", "failed"], reason: str = "") -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason, self.since = state, reason, datetime.now(UTC)
            log = logger.info if state == "ready" else logger.warning
            log("%s: %s %s", self.model.digest[:19], state, reason)


class LocalPlatform:
    """Serves what one release file says, until it is stopped.

    Args:
        log: The release file.
        resolve: Gives the model directory of a storage URI.
        trust: Who must have signed a model before it is served.
        name: The model's name in the URLs.
        environment: Whose release file it is.
        threads: Intra-op threads of each server.
        mirror: Share of the requests that both models answer while there is a canary.
        interval: Seconds between two looks at the release file.
        grace: Seconds that open requests get when a server is ended.
    """

    def __init__(
        self,
        log: ReleaseLog,
        resolve: Callable[[str], Path],
        *,
        trust: Trust | None = None,
        name: str,
        environment: str,
        threads: int = 1,
        mirror: float = 1.0,
        interval: float = 1.0,
        grace: float = 20.0,
    ) -> None:
        self._log = log
        self._resolve = resolve
        self._trust = trust or Trust()
        self._name = name
        self._environment = environment
        self._threads = threads
        self._interval = interval
        self._grace = grace
        self._servers: dict[str, _Server] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._chance = random.Random()  # noqa: S311 (no secret depends on it)
        self._pairs: collections.deque[Pair] = collections.deque(maxlen=_MOST_PAIRS)
        self._proxy = Proxy(name, mirror=mirror, on_pair=self._keep, grace=grace)
        self._position: Position | None = None
        self._applied: datetime | None = None
        self._problem = ""
        self._stop = asyncio.Event()

    def run(
        self,
        sock: socket.socket,
        on_ready: Callable[[Address], None],
        *,
        stop_on_eof: bool = False,
    ) -> None:
        """Serves until SIGTERM or SIGINT; call it from the main thread.

        Args:
            sock: A bound socket for the proxy.
            on_ready: Called with the address once it answers, whether or not a model is served.
            stop_on_eof: Also stop when standard input ends, as it does when the parent dies.
        """
        asyncio.run(self._main(sock, on_ready, stop_on_eof))

    async def _main(
        self, sock: socket.socket, on_ready: Callable[[Address], None], stop_on_eof: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if stop_on_eof:
            loop.add_reader(sys.stdin.fileno(), self._on_input)
        await self._proxy.start(
            sock, {"/trimgate/state": self._state, "/trimgate/pairs": self._paired}
        )
        on_ready(
            Address(url=self._proxy.url, grpc=None, name=self._name, digest="", pid=os.getpid())
        )
        try:
            while not self._stop.is_set():
                await self._look()
                await self._reconcile()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), self._interval)
        finally:
            await self._proxy.stop()
            for digest in list(self._servers):
                self._end(digest)
            await asyncio.gather(*self._ending, return_exceptions=True)
            logger.info("stopped")

    def _on_input(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stop.set()

    async def _look(self) -> None:
        """Reads the release file; what cannot be read leaves everything as it is."""
        try:
            entries = await asyncio.to_thread(self._log.entries)
            self._position = position(entries)
            self._problem = "" if entries else "nothing was ever released"
        except (TrimgateError, OSError) as error:
            if str(error) != self._problem:
                logger.warning("the release file cannot be read: %s", error)
            self._problem = str(error)

    async def _reconcile(self) -> None:
        place = self._position
        if place is None:
            return
        release = place.newest.release
        wanted = [model for model in (release.stable, release.canary) if model is not None]
        for model in wanted:
            server = self._servers.setdefault(model.digest, _Server(model))
            server.notice()
            if server.running is None and server.work is None and not server.final:
                server.work = asyncio.create_task(self._begin(server))
        self._direct(place)
        routes = self._proxy.routes
        used = {b.digest for b in (routes.stable, routes.canary) if b} if routes else set()
        for digest in set(self._servers) - used - {model.digest for model in wanted}:
            self._end(digest)

    def _direct(self, place: Position) -> None:
        """Sends the traffic where the release says, once all that it names answers."""
        release, revision = place.newest.release, (place.step or place.newest).revision
        stable = self._backend(release.stable, "stable")
        canary = self._backend(release.canary, "canary")
        now = self._proxy.routes
        if release.stable is None:
            self._proxy.route(None)
            self._applied = None
            return
        if stable is None:
            self._applied = None  # the traffic stays where it is
            return
        if release.canary is not None and canary is None:
            self._applied = None
            if now is None:
                self._proxy.route(Routes("none", stable))
            return
        routes = Routes(revision, stable, canary, release.traffic_percent)
        if routes != now:
            if now is None or now.revision != revision:
                self._pairs.clear()
            self._proxy.route(routes)
            logger.info(
                "%s: %s", revision[:10],
                f"{release.traffic_percent} % to the canary" if canary else "all to stable",
            )  # fmt: skip
        if self._applied is None or now is None or now.revision != revision:
            self._applied = datetime.now(UTC)

    def _backend(self, model: ReleasedModel | None, variant: str) -> Backend | None:
        """Where a model answers; one that answered before counts while it is started again."""
        server = None if model is None else self._servers.get(model.digest)
        if server is None:
            return None
        if server.running is not None:
            return Backend(variant, server.running.url, server.model.digest)
        routes = self._proxy.routes
        if routes is not None and server.failures:
            for backend in (routes.stable, routes.canary):
                if backend is not None and backend.digest == server.model.digest:
                    return Backend(variant, backend.url, backend.digest)
        return None

    async def _begin(self, server: _Server) -> None:
        """Starts a server; a model that is refused is not tried again."""
        try:
            if server.failures:
                await asyncio.sleep(_AGAIN[min(server.failures, len(_AGAIN)) - 1])
            directory = await asyncio.to_thread(self._resolve, server.model.storage_uri)
            digest = (await asyncio.to_thread(read, directory, verify=True)).digest
            if digest != server.model.digest:
                raise InvalidInput("holds another model than was released", file=directory)
            await asyncio.to_thread(self._trust.verify, directory)
            server.running = await asyncio.to_thread(
                start, directory, threads=self._threads, name=self._name, timeout=_START
            )
            server.turn("ready")
        except InvalidInput as error:
            server.final = True
            server.turn("failed", str(error))
        except (TrimgateError, OSError) as error:
            server.failures += 1
            server.turn("failed", str(error))
        finally:
            server.work = None

    def _end(self, digest: str) -> None:
        server = self._servers.pop(digest)

        async def end() -> None:
            if server.work is not None:
                await asyncio.wait([server.work])
            if server.running is not None:
                await self._proxy.drained(server.running.url, self._grace)
                await asyncio.to_thread(server.running.stop, self._grace)
                logger.info("%s: ended", digest[:19])

        task = asyncio.create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _keep(self, routes: Routes, stable: Reply, canary: Reply) -> None:
        if stable.status != 200 or self._proxy.routes is not routes:
            return  # a bad request, or one from before the newest commit
        given = (canary.body, pairs.json_bytes(canary.headers)) if canary.status == 200 else None
        found = pairs.pair((stable.body, pairs.json_bytes(stable.headers)), given, self._chance)
        if found is not None:
            self._pairs.append(found)

    async def _state(self, _: web.Request) -> web.Response:
        place = self._position
        release = None if place is None else place.newest.release
        models = (release.stable, release.canary) if release is not None else ()
        variants = []
        for variant, model in zip(("stable", "canary"), models, strict=False):
            server = None if model is None else self._servers.get(model.digest)
            if server is None:
                continue
            server.notice()  # who asks shall not hear that it is ready until the next look
            variants.append(
                {
                    "variant": variant,
                    "digest": server.model.digest,
                    "url": server.running.url if server.running else None,
                    "state": server.state,
                    "reason": server.reason,
                    "since": server.since.isoformat(),
                    "final": server.final,
                }
            )
        routes = self._proxy.routes
        told = {
            "name": self._name,
            "environment": self._environment,
            "revision": routes.revision if routes else None,
            "percent": routes.percent if routes else None,
            "applied": self._applied.isoformat() if self._applied else None,
            "problem": self._problem,
            "variants": variants,
        }
        return web.Response(body=json.dumps(told).encode(), content_type="application/json")

    async def _paired(self, _: web.Request) -> web.Response:
        routes = self._proxy.routes
        told = {
            "revision": routes.revision if routes else None,
            "pairs": [[p.stable, p.canary, p.gap, p.failed] for p in self._pairs],
        }
        return web.Response(body=json.dumps(told).encode(), content_type="application/json")
