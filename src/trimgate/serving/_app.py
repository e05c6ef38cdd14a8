"""KServe's ModelServer with REST and gRPC on given sockets, and a shutdown that drains."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from kserve import ModelServer

from trimgate.serving._data_plane import Plane
from trimgate.serving._grpc import make_server
from trimgate.serving._kserve import quiet
from trimgate.serving._model import Repository, ServedModel
from trimgate.serving._ports import in_use, listening_at
from trimgate.serving._rest import RestServer

logger = logging.getLogger("trimgate.serving")


class App(ModelServer):  # type: ignore[misc]
    """One worker that answers for a few models until it is told to stop.

    Args:
        models: The models, not loaded yet.
        executor: Their thread.
        http: The bound socket of the REST side.
        grpc: The bound socket that holds the gRPC side's place, or None for no gRPC.
        grace: Seconds that open requests get when it stops.
    """

    def __init__(
        self,
        models: list[ServedModel],
        *,
        executor: ThreadPoolExecutor,
        http: socket.socket,
        grpc: socket.socket | None,
        grace: int,
    ) -> None:
        super().__init__(
            registered_models=Repository(),
            workers=1,
            enable_latency_logging=False,
            grace_period=grace,
        )
        quiet()
        self.dataplane = Plane(self.registered_models)
        for model in models:
            self.register_model(model)
        self._executor = executor
        self._http = http
        self._grpc = grpc
        self._stop = asyncio.Event()

    def run(self, on_ready: Callable[[], None], stop_on_eof: bool) -> None:
        """Loads the models, serves them, and returns when it was stopped and has drained.

        Args:
            on_ready: Called when all models answer.
            stop_on_eof: Also stop when standard input ends, as it does when the parent dies.
        """
        # uvloop where it is installed: a third less CPU time a request.
        loop = uvicorn.Config("", log_config=None).get_loop_factory()
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(self._main(on_ready, stop_on_eof))

    async def _main(self, on_ready: Callable[[], None], stop_on_eof: bool) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, number)
        if stop_on_eof:
            loop.add_reader(sys.stdin.fileno(), self._on_input)
        for model in self.registered_models.get_models().values():
            await loop.run_in_executor(self._executor, model.load)
        rest = RestServer(self.dataplane, self.model_repository_extension, self.grace_period)
        grpc = None
        if self._grpc is not None:
            address, port = listening_at(self._grpc), self._grpc.getsockname()[1]
            self._grpc.close()
            try:
                grpc = make_server(self.dataplane, self.model_repository_extension, address)
            except RuntimeError as error:
                raise in_use("--grpc-port", port, error) from error
            await grpc.start()
        try:
            self._http.listen(2048)
        except OSError as error:
            raise in_use("--port", self._http.getsockname()[1], error) from error
        serving = asyncio.create_task(rest.serve(self._http))
        while not rest.server.started and not serving.done():
            await asyncio.sleep(0.005)
        if not serving.done():
            on_ready()
            stopped = asyncio.create_task(self._stop.wait())
            await asyncio.wait({stopped, serving}, return_when=asyncio.FIRST_COMPLETED)
        self.dataplane.stopping = True
        rest.server.should_exit = True
        drained = [serving] if grpc is None else [serving, grpc.stop(self.grace_period)]
        await asyncio.gather(*drained)
        for model in self.registered_models.get_models().values():
            model.stop()
        self._executor.shutdown()
        logger.info("stopped")

    def stop(self, sig: int) -> None:
        """Begins to drain."""
        logger.info("stopping (%s); open requests are answered", signal.Signals(sig).name)
        self._stop.set()

    def _on_input(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stop.set()
