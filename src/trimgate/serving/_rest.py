"""The REST side: KServe's endpoints, with those that read or write tensors replaced."""

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import fastapi
import orjson
import uvicorn
from kserve import InferInput, InferRequest, InferResponse
from kserve.errors import ModelNotReady
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.rest.server import RESTServer, metrics_handler
from kserve.protocol.rest.v1_endpoints import register_v1_endpoints
from kserve.protocol.rest.v2_endpoints import register_v2_endpoints
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimgate.errors import InvalidInput
from trimgate.serving import _tensors
from trimgate.serving._data_plane import Plane, check_version
from trimgate.serving._errors import TooLarge, explain
from trimgate.serving._metrics import observed
from trimgate.serving._model import ServedModel

BODY_LIMIT = 64 * 2**20
HEADER_LENGTH = "inference-header-content-length"

Endpoint = Callable[[Request], Awaitable[Response]]


class RestServer(RESTServer):  # type: ignore[misc]
    """KServe's REST server on an address of one's own, with its own application.

    Args:
        plane: The data plane that it shares with gRPC.
        repository_extension: KServe's load and unload.
        grace: Seconds that open requests get when it stops.
    """

    def __init__(self, plane: Plane, repository_extension: Any, grace: int) -> None:
        super().__init__("", plane, repository_extension, http_port=0)
        self.app = fastapi.FastAPI(title="trimgate", docs_url=None, redoc_url=None)
        self._add_middlewares(self.app)
        self._register_endpoints(self.app)
        self._add_exception_handlers(self.app)
        self.config = uvicorn.Config(
            self.app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=65,  # longer than the proxies in front of it
            timeout_graceful_shutdown=grace,
        )
        self.server = _Server(self.config)

    async def serve(self, sock: socket.socket) -> None:
        """Answers on a bound socket until `server.should_exit` is set, and then drains."""
        await self.server.serve(sockets=[sock])

    def _add_middlewares(self, app: fastapi.FastAPI) -> None:
        app.add_middleware(_BodyLimit)

    def _register_endpoints(self, app: fastapi.FastAPI) -> None:
        own = _Endpoints(self.dataplane)
        model = "/v2/models/{model_name}"
        version = f"{model}/versions/{{model_version}}"
        # Plain routes: FastAPI's own would look at each request's arguments for 0.1 ms.
        for method, path, endpoint in (
            ("POST", "/v1/models/{model_name}:predict", own.predict),
            ("POST", f"{model}/infer", own.infer),
            ("POST", f"{version}/infer", own.infer),
            ("GET", model, own.metadata),
            ("GET", version, own.metadata),
        ):
            app.add_route(path, _answering(endpoint), methods=[method])
        app.add_api_route("/", self.dataplane.live, methods=["GET"])
        app.add_api_route("/metrics", metrics_handler, methods=["GET"])
        register_v1_endpoints(app, self.dataplane, self.model_repository_extension)
        register_v2_endpoints(app, self.dataplane, self.model_repository_extension)

    def _add_exception_handlers(self, app: fastapi.FastAPI) -> None:
        defaults = set(app.exception_handlers)
        super()._add_exception_handlers(app)
        for kind in {HTTPException, *app.exception_handlers} - (defaults - {HTTPException}):
            app.add_exception_handler(kind, _on_error)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the application handles signals, for gRPC as well


class _Endpoints:
    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    async def predict(self, request: Request) -> Response:
        model = self._ready(request)
        with observed(model, "v1"):
            body = await request.body()
            headers = dict(request.headers)
            payload, attributes = self.plane.decode(body, headers)
            answer, _ = await self.plane.infer(model.name, payload, headers)
            if attributes:  # a CloudEvent, whose writer does not know NumPy's scalars
                answer = orjson.loads(_json(answer))
            answer, extra = self.plane.encode(model.name, answer, headers, attributes)
            extra.pop("content-length", None)
            content = answer if isinstance(answer, bytes) else _json(answer)
            return Response(content, headers=extra, media_type="application/json")

    async def infer(self, request: Request) -> Response:
        model = self._ready(request)
        length = request.headers.get(HEADER_LENGTH)
        with observed(model, "v2" if length is None else "v2-binary"):
            body = await request.body()
            parsed = parse_infer(model.name, body, length)
            answer, _ = await self.plane.infer(model.name, parsed, dict(request.headers))
            return encode_infer(answer)

    async def metadata(self, request: Request) -> Response:
        model = self._model(request)
        described = await self.plane.model_metadata(model.name)
        specs = _tensors.request_specs(model.info)
        for tensor, spec in zip(described["inputs"], specs, strict=True):
            tensor["parameters"] = {"features": list(spec.features)}
        info = model.info
        described["parameters"] = {
            "digest": info.digest,
            "task": info.task,
            "labels": list(info.labels),
            "features": list(info.features),
            "runtime": info.runtime.name,
            "precision": info.runtime.precision,
            "max_rows": model.max_rows,
        }
        return Response(_json(described), media_type="application/json")

    def _model(self, request: Request) -> ServedModel:
        name = request.path_params["model_name"]
        model: ServedModel = self.plane.get_model_from_registry(name)
        check_version(model, request.path_params.get("model_version"))
        return model

    def _ready(self, request: Request) -> ServedModel:
        model = self._model(request)
        if not model.ready:
            raise ModelNotReady(model.name)
        return model


def parse_infer(model_name: str, body: bytes, header_length: str | None) -> InferRequest:
    """A V2 request from its body; binary tensors stay the bytes that they are.

    Args:
        model_name: The model that the URL names.
        body: JSON, followed by binary tensors where `header_length` is given.
        header_length: The header `Inference-Header-Content-Length`: bytes of the JSON.

    Raises:
        InvalidInput: It is not such a request.
    """
    if header_length is None:
        split = len(body)
    elif header_length.isascii() and header_length.isdigit() and int(header_length) <= len(body):
        split = int(header_length)
    else:
        raise InvalidInput(
            f"must be at most the {len(body)} bytes of the body",
            key="Inference-Header-Content-Length",
            value=header_length,
        )
    request = _object(parse_json(body[:split]), "the request")
    tensors = []
    for given in _objects(request, "inputs"):
        tensor = InferInput(
            _text(given, "name"),
            given.get("shape"),
            _text(given, "datatype"),
            given.get("data"),
        )
        size = _object(given.get("parameters") or {}, "parameters").get("binary_data_size")
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(body) - split:
                raise InvalidInput(
                    "is more than the body holds",
                    key=f"binary_data_size of input {tensor.name!r}",
                    value=size,
                )
            tensor._raw_data = body[split : split + size]
            split += size
        tensors.append(tensor)
    if split != len(body):
        raise InvalidInput(f"the body has {len(body) - split} bytes that belong to no input")
    wanted = [
        RequestedOutput(_text(given, "name"), _object(given.get("parameters") or {}, "parameters"))
        for given in (_objects(request, "outputs") if request.get("outputs") else [])
    ]
    name = request.get("id")
    return InferRequest(
        model_name,
        tensors,
        request_id=None if name is None else str(name),
        parameters=_object(request.get("parameters") or {}, "parameters"),
        request_outputs=wanted or None,
    )


def encode_infer(answer: InferResponse) -> Response:
    """A V2 response: JSON, and after it those outputs that were wanted in binary form."""
    wanted = {output.name: output.binary_data for output in answer._requested_outputs or ()}
    outputs = []
    binary = []
    for output in answer.outputs:
        entry = {"name": output.name, "shape": output.shape, "datatype": output.datatype}
        as_binary = wanted.get(output.name)
        if answer._use_binary_outputs if as_binary is None else as_binary:
            binary.append(_tensors.to_bytes(output.data))
            entry["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            entry["data"] = output.data.reshape(-1)
            if output.data.dtype == object:
                entry["data"] = entry["data"].tolist()
        outputs.append(entry)
    head = _json(
        {
            "model_name": answer.model_name,
            "model_version": answer.model_version,
            "id": answer.id,
            "outputs": outputs,
        }
    )
    if not binary:
        return Response(head, media_type="application/json")
    return Response(
        b"".join([head, *binary]),
        headers={HEADER_LENGTH: str(len(head))},
        media_type="application/octet-stream",
    )


def parse_json(body: bytes) -> Any:
    """JSON, strictly: no NaN, no Infinity.

    Raises:
        InvalidInput: It is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the request is not JSON: {error}") from error


def _json(content: Any) -> bytes:
    # NumPy support writes a float32 with the digits that it needs and no more.
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def _object(given: Any, name: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InvalidInput("must be a JSON object", key=name, value=given)
    return given


def _objects(given: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = given.get(key)
    if not isinstance(items, list) or not items:
        raise InvalidInput("must be a list that is not empty", key=key, value=items)
    return [_object(item, key) for item in items]


def _text(given: dict[str, Any], key: str) -> str:
    text = given.get(key)
    if not isinstance(text, str):
        raise InvalidInput("must be a string", key=f"inputs: {key}", value=text)
    return text


def _answering(endpoint: Endpoint) -> Endpoint:
    """Answers every exception: one that left the application would reset the connection."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            return await _on_error(request, error)

    return answer


async def _on_error(_: Request, error: Exception) -> Response:
    told = explain(error)
    return Response(_json({"error": told.message}), told.http, media_type="application/json")


class _BodyLimit:
    """Refuses a body over the limit before it is in memory."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        received = 0

        async def limited() -> Message:
            nonlocal received
            if int(length) > BODY_LIMIT:
                raise TooLarge(BODY_LIMIT)
            message = await receive()
            received += len(message.get("body", b""))
            if received > BODY_LIMIT:
                raise TooLarge(BODY_LIMIT)
            return message

        await self.app(scope, limited, send)
