"""A client of each protocol, on connections that stay open."""

import http.client
import json
import re
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import numpy as np

from trimgate.errors import TrimgateError
from trimgate.models.directory import TensorSpec
from trimgate.serving import _tensors
from trimgate.serving._tensors import Array

_LENGTH = "Inference-Header-Content-Length"


class RequestFailed(TrimgateError):
    """The server did not answer with 200.

    Attributes:
        code: The HTTP code.
    """

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(f"HTTP {code}: {message}")


class HttpClient:
    """REST requests for one model on one connection that is kept alive.

    Args:
        url: Base URL of the server.
        name: The model's name in the URLs.
        timeout: Seconds for each request.
    """

    def __init__(self, url: str, name: str, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=timeout
        )
        self.name = quote(name, safe="")

    def get(self, path: str) -> Any:
        """The JSON at a path.

        Raises:
            RequestFailed: The answer is not 200.
        """
        return json.loads(self.request("GET", path, None, {})[0])

    def metric(self, sample: str, **labels: str) -> float:
        """The sum of a Prometheus sample over the series with the given labels."""
        text = self.request("GET", "/metrics", None, {})[0].decode()
        total = 0.0
        for found in re.finditer(rf"^{re.escape(sample)}\{{(.*)\}} (\S+)$", text, re.MULTILINE):
            series = dict(re.findall(r'(\w+)="([^"]*)"', found[1]))
            if labels.items() <= series.items():
                total += float(found[2])
        return total

    def predict(self, instances: list[Any]) -> list[Any]:
        """The predictions of a V1 request.

        Raises:
            RequestFailed: The answer is not 200.
        """
        body = json.dumps({"instances": instances}).encode()
        headers = {"Content-Type": "application/json"}
        path = f"/v1/models/{self.name}:predict"
        answer: list[Any] = json.loads(self.request("POST", path, body, headers)[0])["predictions"]
        return answer

    def infer(self, inputs: Mapping[str, Array], *, binary: bool = True) -> dict[str, Array]:
        """The outputs of a V2 request.

        Raises:
            RequestFailed: The answer is not 200.
        """
        return self.send(*infer_request(inputs, binary=binary))

    def send(self, body: bytes, headers: dict[str, str]) -> dict[str, Array]:
        """The outputs of a V2 request that `infer_request` made."""
        path = f"/v2/models/{self.name}/infer"
        return read_outputs(*self.request("POST", path, body, headers))

    def request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[bytes, int]:
        """An answer's body, and how much of it is JSON.

        Raises:
            RequestFailed: The answer is not 200.
        """
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RequestFailed(response.status, content[:500].decode(errors="replace"))
        return content, int(response.headers.get(_LENGTH, len(content)))

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_outputs(content: bytes, length: int) -> dict[str, Array]:
    """The output tensors of a V2 answer.

    Args:
        content: Its body.
        length: How much of it is JSON.
    """
    outputs = {}
    for output in json.loads(content[:length])["outputs"]:
        kind = _numpy_name(output["datatype"])
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            spec = _spec(output["name"], kind, output["shape"])
            raw = content[length : length + size]
            outputs[output["name"]] = _tensors.from_bytes(spec, tuple(output["shape"]), raw)
            length += size
        else:
            dtype = object if kind == "string" else kind
            outputs[output["name"]] = np.array(output["data"], dtype).reshape(output["shape"])
    return outputs


def infer_request(
    inputs: Mapping[str, Array], *, binary: bool = True
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a V2 REST request.

    Args:
        inputs: The input tensors.
        binary: Send the tensors in binary form and ask for binary outputs, else JSON.
    """
    entries = []
    raw = []
    for name, array in inputs.items():
        entry: dict[str, Any] = {
            "name": name,
            "shape": list(array.shape),
            "datatype": _tensors.datatype_of(array),
        }
        if binary:
            raw.append(_tensors.to_bytes(array))
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            entry["data"] = [None if v != v else v for v in array.reshape(-1).tolist()]
        entries.append(entry)
    request = {"inputs": entries}
    if not binary:
        return json.dumps(request).encode(), {"Content-Type": "application/json"}
    head = json.dumps({**request, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", _LENGTH: str(len(head))}
    return b"".join([head, *raw]), headers


def grpc_infer(
    address: str, name: str, inputs: Mapping[str, Array], timeout: float = 30.0
) -> dict[str, Array]:
    """The outputs of a gRPC `ModelInfer` with raw tensors.

    Args:
        address: `host:port`.
        name: Its name on the server.
        inputs: The input tensors.
        timeout: Seconds.

    Raises:
        ConnectionError: The server did not answer, or answered with an error.
    """
    from trimgate.serving._kserve import prepare

    prepare()
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as services

    request = messages.ModelInferRequest(
        model_name=name,
        id=str(time.monotonic_ns()),
        inputs=[
            {"name": n, "datatype": _tensors.datatype_of(a), "shape": a.shape}
            for n, a in inputs.items()
        ],
        raw_input_contents=[_tensors.to_bytes(array) for array in inputs.values()],
    )
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", 64 * 2**20),
        ("grpc.max_send_message_length", 64 * 2**20),
    ]
    with grpc.insecure_channel(address, options) as channel:
        try:
            answer = services.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=timeout)
        except grpc.RpcError as error:
            raise ConnectionError(f"{error.code().name}: {error.details()}") from error
    if answer.id != request.id or answer.model_name != name:
        raise ConnectionError("the answer belongs to another request")
    return {
        output.name: _tensors.from_bytes(
            _spec(output.name, _numpy_name(output.datatype), output.shape),
            tuple(output.shape),
            raw,
        )
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def _spec(name: str, dtype: str, shape: Any) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=tuple(shape))


def _numpy_name(datatype: str) -> str:
    return next(name for name, known in _tensors.DATATYPES.items() if known == datatype)
