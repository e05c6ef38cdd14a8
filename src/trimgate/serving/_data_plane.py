"""KServe's data plane, with readiness per model and decoding that answers 400."""

import json
from typing import Any

from kserve.errors import ModelNotFound, ModelNotReady
from kserve.protocol.dataplane import DataPlane

import trimgate
from trimgate.errors import InvalidInput
from trimgate.serving._model import ServedModel


class Plane(DataPlane):  # type: ignore[misc]
    """What REST and gRPC have in common.

    Attributes:
        stopping: Set when the server drains; nothing is ready any more.
    """

    stopping = False

    def metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return {
            "name": "trimgate",
            "version": trimgate.__version__,
            "extensions": ["model_repository_extension", "binary_tensor_data"],
        }

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        """Tensors and platform of a model."""
        model: ServedModel = self.get_model_from_registry(model_name)
        described: dict[str, Any] = await super().model_metadata(model_name)
        described["versions"] = [model.version]
        described["platform"] = f"trimgate_{model.info.runtime.name}"
        return described

    async def ready(self) -> bool:
        """Whether every model answers (KServe's own says yes whatever happened)."""
        models = self.model_registry.get_models().values()
        return not self.stopping and all(model.ready for model in models)

    async def get_model(self, name: str) -> ServedModel:
        """The model, if it is ready (KServe's own would load it here, in the event loop)."""
        model: ServedModel = self.get_model_from_registry(name)
        if not model.ready:
            raise ModelNotReady(name)
        return model

    def decode(
        self,
        body: Any,
        headers: dict[str, str],
        protocol_version: str = "v1",
        model_name: str | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """The JSON of a V1 request, whatever its content type says, or a CloudEvent's.

        Raises:
            InvalidInput: It is neither.
        """
        headers = headers or {}
        cloud_event = "ce-id" in headers or "cloudevents" in headers.get("content-type", "")
        if not cloud_event:
            headers = {**headers, "content-type": "application/json"}
        try:
            decoded: tuple[Any, dict[str, Any]] = super().decode(
                body, headers, protocol_version, model_name
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise InvalidInput(f"the CloudEvent cannot be read: {error}") from error
        return decoded


def check_version(model: ServedModel, version: str | None) -> None:
    """Refuses a version that is not the one that is served."""
    if version and version != model.version:
        raise ModelNotFound(f"{model.name}, version {version},")
