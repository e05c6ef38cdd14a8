"""ServingRuntimes: trimgate's own model server, Triton and the OpenVINO Model Server.

KServe fills in `{{.Name}}`, the InferenceService's name, which is the model's name in the URLs.
"""

from typing import Any, Literal

from trimgate import __version__
from trimgate.errors import InvalidInput
from trimgate.ops.kserve._quantities import cpu, memory

RuntimeKind = Literal["trimgate", "triton", "openvino"]

IMAGES: dict[str, str] = {
    "trimgate": f"trimgate/python-server:{__version__}",
    "triton": "nvcr.io/nvidia/tritonserver:26.06-py3",
    "openvino": "docker.io/openvino/model_server:2026.4.1",
}
"""Images when none is named; a mirror, or a digest, is given as `image`."""

_REST, _GRPC = 8080, 8081
_KEYS = "/etc/trimgate/keys"


def serving_runtime(
    kind: RuntimeKind,
    *,
    name: str | None = None,
    namespace: str | None = None,
    image: str | None = None,
    cluster: bool = False,
    gpu: bool = False,
    pull_secret: str | None = None,
    verify_keys: str | None = None,
) -> dict[str, Any]:
    """A ServingRuntime with restricted rights and probes that ask the model itself.

    Args:
        kind: `trimgate` reads a model directory as it is; for the others `add_layout` adds the
            layout that they read.
        name: Its name; the kind when left out.
        namespace: Left out, the overlay sets it.
        image: The server's image.
        cluster: Make it a ClusterServingRuntime, for all namespaces.
        gpu: For Triton: run with a GPU's metrics on.
        pull_secret: Name of the Secret to pull the image with.
        verify_keys: For trimgate's server: name of a ConfigMap whose `verify.pem` is the public key
            that models must be signed for; it serves no other.

    Raises:
        InvalidInput: `verify_keys` is given for a server that does not verify.
    """
    if verify_keys and kind != "trimgate":
        raise InvalidInput(
            f"{kind} verifies no signature", key="verify_keys", value=verify_keys,
            mend="leave it out, or serve with the runtime `trimgate`",
        )  # fmt: skip
    metadata: dict[str, Any] = {"name": name or kind}
    if namespace and not cluster:
        metadata["namespace"] = namespace
    container: dict[str, Any] = {
        "name": "kserve-container",
        "image": image or IMAGES[kind],
        **_command(kind, gpu),
        "ports": [{"containerPort": _REST, "protocol": "TCP"}],
        "readinessProbe": _probe("/v2/models/{{.Name}}/ready", periodSeconds=5, timeoutSeconds=2),
        # Asks the process alone: a model that fails is taken out of the traffic, not restarted.
        "livenessProbe": _probe(
            "/v2/health/live", periodSeconds=10, timeoutSeconds=5, failureThreshold=6,
            initialDelaySeconds=60,
        ),
        "resources": {
            "requests": {"cpu": cpu(1), "memory": memory(2**30)},
            "limits": {"cpu": cpu(2), "memory": memory(2**30)},
        },
        "securityContext": _restricted(kind),
        # The root is read-only, and an engine may want to write a temporary file.
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }  # fmt: skip
    spec: dict[str, Any] = {
        "annotations": {
            "prometheus.kserve.io/port": "8002" if kind == "triton" else str(_REST),
            "prometheus.kserve.io/path": "/metrics",
        },
        # Never chosen by itself: an InferenceService names its runtime.
        "supportedModelFormats": [{"name": "onnx", "version": "1", "autoSelect": False}],
        "protocolVersions": ["v2", "grpc-v2"],
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": memory(2**28)}}],
    }
    if verify_keys:
        container["args"].append(f"--verify-key={_KEYS}/verify.pem")
        container["volumeMounts"].append({"name": "keys", "mountPath": _KEYS, "readOnly": True})
        spec["volumes"].append({"name": "keys", "configMap": {"name": verify_keys}})
    if pull_secret:
        spec["imagePullSecrets"] = [{"name": pull_secret}]
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterServingRuntime" if cluster else "ServingRuntime",
        "metadata": metadata,
        "spec": spec,
    }


def _command(kind: RuntimeKind, gpu: bool) -> dict[str, Any]:
    if kind == "trimgate":
        return {
            "command": ["python3", "-m", "trimgate.serving"],
            "args": [
                "/mnt/models", "--host=0.0.0.0", f"--port={_REST}", f"--grpc-port={_GRPC}",
                "--name={{.Name}}",
            ],
        }  # fmt: skip
    if kind == "triton":
        return {
            "command": ["tritonserver"],
            "args": [
                "--model-repository=/mnt/models", f"--http-port={_REST}", f"--grpc-port={_GRPC}",
                "--metrics-port=8002", f"--allow-gpu-metrics={str(gpu).lower()}",
                # Without it Triton completes a config of its own making.
                "--disable-auto-complete-config",
            ],
        }  # fmt: skip
    return {
        "args": [
            "--model_name={{.Name}}", "--model_path=/mnt/models", f"--rest_port={_REST}",
            f"--port={_GRPC}", "--file_system_poll_wait_seconds=0", "--metrics_enable",
        ]
    }  # fmt: skip


def _restricted(kind: RuntimeKind) -> dict[str, Any]:
    context: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    # The users of their images are names, of which Kubernetes cannot tell that they are not root.
    users = {"triton": 1000, "openvino": 5000}
    return context | ({"runAsUser": users[kind]} if kind in users else {})


def _probe(path: str, **settings: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": _REST}, **settings}
