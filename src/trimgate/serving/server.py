"""Serves a model directory over V1 REST, V2 REST (JSON and binary tensors) and V2 gRPC.

The server is KServe's `ModelServer`, with one worker. A session is called from one thread; the
event loop answers probes meanwhile. SIGTERM drains: open requests are answered, new connections
are refused, and the process exits with 0.

What a client sees:

- `POST /v1/models/NAME:predict` takes `{"instances": [row, ...]}`. A row is a list of values in
  the order of the model's features, or a mapping from feature to value, or, for an image model,
  the nested list itself; `null` is a missing value. The answer is `{"predictions": [...]}` with
  `{"label": ..., "probabilities": {label: probability}}` for each row of a classifier and a
  number for each row of a regressor.
- `POST /v2/models/NAME/infer` and gRPC `ModelInfer` take the model's input tensors and answer
  with `probabilities` `[rows, classes]` and `label` `[rows]`, or `value` `[rows]`.
- `GET /v2/models/NAME` describes tensors, labels and content digest, `.../ready` says whether
  the model answers, `/metrics` is for Prometheus.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from trimgate.errors import InvalidInput
from trimgate.models import safety
from trimgate.models._trainable import FILES
from trimgate.models.directory import ONNX_RUNTIMES, ModelInfo, read
from trimgate.serving._ports import bind, reached_at

logger = logging.getLogger("trimgate.serving")


class Address(BaseModel):
    """Where a server answers, and what it serves.

    Attributes:
        url: Base URL of the REST side.
        grpc: `host:port` of the gRPC side, or None when there is none.
        name: The model's name in the URLs.
        digest: The model's content digest.
        pid: The server's process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    url: str
    grpc: str | None
    name: str
    digest: str
    pid: int


def serve(
    directory: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    grpc_port: int | None = None,
    enable_grpc: bool = True,
    threads: int = 1,
    name: str | None = None,
    max_rows: int = 100_000,
    warm_up: bool = True,
    grace: int = 20,
    verify_key: str | Path | None = None,
    on_ready: Callable[[Address], None] | None = None,
    stop_on_eof: bool = False,
) -> None:
    """Serves a model until SIGTERM or SIGINT; call it from the main thread.

    Args:
        directory: The model directory; its files are verified against their digests, and those
            that are loaded hold no code.
        host: Address to listen on; only this machine can reach the default.
        port: REST port; 0 chooses a free one.
        grpc_port: gRPC port; by default the one after `port`, or a free one where that is 0.
        enable_grpc: Whether there is a gRPC side at all.
        threads: Intra-op threads of the session.
        name: The model's name in the URLs; by default that of `model.json`.
        max_rows: The most rows of one request.
        warm_up: Whether to call the session before the first request.
        grace: Seconds that open requests get when the server stops.
        verify_key: Public key (PEM) that the model must be signed for; none is asked for when left
            out.
        on_ready: Called with the address when the model answers.
        stop_on_eof: Also stop when standard input ends, as it does when the parent dies.

    Raises:
        InvalidInput: The directory is not a model, was altered, is unsafe or not signed, or a port
            is in use.
        MissingExtra: KServe, or what the runtime needs, is not installed.
    """
    # Official ONNX Runtime wheels (1.29 and later) write a database into the home directory and
    # send usage to the vendor; a server that loads a user's model does neither.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    info = read(directory, verify=True)
    safety.check(directory, unread=_unread(info))
    if verify_key is not None:
        from trimgate.ops import signing

        signing.verify(directory, key=verify_key)
    name = info.name if name is None else name
    if not name or "/" in name or ":" in name:
        raise InvalidInput("cannot stand in a URL", key="--name", value=name)
    if grpc_port is None:
        grpc_port = port + 1 if port else 0
    with contextlib.ExitStack() as stack:
        http = stack.enter_context(bind(host, port, "--port"))
        grpc = stack.enter_context(bind(host, grpc_port, "--grpc-port")) if enable_grpc else None
        executor = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="session"))
        address = Address(
            url=f"http://{reached_at(http)}",
            grpc=None if grpc is None else reached_at(grpc),
            name=name,
            digest=info.digest,
            pid=os.getpid(),
        )

        def ready() -> None:
            logger.info("%s answers at %s and gRPC %s", name, address.url, address.grpc)
            if on_ready is not None:
                on_ready(address)

        from trimgate.serving._kserve import prepare

        prepare()
        from trimgate.serving._app import App
        from trimgate.serving._model import ServedModel

        model = ServedModel(
            Path(directory),
            name=name,
            executor=executor,
            threads=threads,
            max_rows=max_rows,
            warm_up=warm_up,
        )
        app = App([model], executor=executor, http=http, grpc=grpc, grace=grace)
        app.run(ready, stop_on_eof)


def _unread(info: ModelInfo) -> Collection[str]:
    """Files of the trainable form, where the ONNX form is served."""
    served = {choice.name for choice in info.runtime.engines()}
    return FILES.values() if served <= set(ONNX_RUNTIMES) else ()


def check_port(
    port: int,
    *,
    host: str = "127.0.0.1",
    grpc_port: int | None = None,
    state_file: str | Path | None = None,
) -> None:
    """Tells in advance whether `start` could have its ports.

    Args:
        port: REST port; 0 is always free.
        host: Address to listen on.
        grpc_port: gRPC port; by default the one after `port`.
        state_file: What `start` will get: ports of the server that it records count as free,
            since that server is stopped first.

    Raises:
        InvalidInput: A port is in use.
    """
    from trimgate.serving.process import read_state

    state = None if state_file is None else read_state(state_file)
    ours = set() if state is None else {int(a.rpartition(":")[2]) for a in state.addresses}
    if grpc_port is None:
        grpc_port = port + 1 if port else 0
    for key, number in (("--port", port), ("--grpc-port", grpc_port)):
        if number not in ours:
            bind(host, number, key).close()
