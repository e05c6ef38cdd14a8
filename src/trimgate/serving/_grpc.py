"""The gRPC side: KServe's servicer on an address of one's own."""

from typing import Any, NoReturn

from grpc import aio
from grpc_interceptor import AsyncExceptionToStatusInterceptor
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as services
from kserve.protocol.grpc.servicer import InferenceServicer

from trimgate.serving._data_plane import Plane, check_version
from trimgate.serving._errors import explain
from trimgate.serving._metrics import observed

MESSAGE_LIMIT = 64 * 2**20


class Servicer(InferenceServicer):  # type: ignore[misc]
    """KServe's servicer with the metrics and the model version."""

    def __init__(self, plane: Plane, repository_extension: Any) -> None:
        super().__init__(plane, repository_extension)
        self._plane = plane

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answers one inference request."""
        model = await self._plane.get_model(request.model_name)
        check_version(model, request.model_version)
        with observed(model, "grpc"):
            return await super().ModelInfer(request, context)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Describes a model's tensors."""
        described = await self._plane.model_metadata(request.name)
        return messages.ModelMetadataResponse(**described)


class _Errors(AsyncExceptionToStatusInterceptor):
    async def handle_exception(
        self, ex: Exception, request_or_iterator: Any, context: Any, method_name: str
    ) -> NoReturn:
        told = explain(ex)
        await context.abort(told.grpc, told.message)
        raise ex


def make_server(plane: Plane, repository_extension: Any, address: str) -> aio.Server:
    """A server bound to `address`, not yet started.

    Raises:
        RuntimeError: The address cannot be bound.
    """
    server = aio.server(
        interceptors=(_Errors(),),
        options=[
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
            ("grpc.so_reuseport", 0),  # else a second server could share the port unnoticed
        ],
    )
    services.add_GRPCInferenceServiceServicer_to_server(
        Servicer(plane, repository_extension), server
    )
    server.add_insecure_port(address)
    return server
