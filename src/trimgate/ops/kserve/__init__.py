"""KServe: objects as plain dicts, checked strictly before they leave, and a small client.

base = base_service("fraud", Serving(resources=resources_for(benchmark)))
service = released_service(base, release)
validate(service)
cluster = Cluster.connect("models")
cluster.apply(service)
cluster.wait_ready("fraud")
"""

from trimgate.ops.kserve._client import (
    FIELD_MANAGER,
    RIGHTS,
    Cluster,
    ClusterError,
    NotReady,
)
from trimgate.ops.kserve._deploy import deploy, live_release
from trimgate.ops.kserve._graph import inference_graph
from trimgate.ops.kserve._layouts import (
    ENGINES,
    Layout,
    add_layout,
    openvino_arguments,
    triton_config,
)
from trimgate.ops.kserve._quantities import canonical
from trimgate.ops.kserve._runtimes import IMAGES, RuntimeKind, serving_runtime
from trimgate.ops.kserve._service import (
    Autoscaling,
    Logger,
    Resources,
    Serving,
    base_service,
    disruption_budget,
    released_service,
    resources_for,
)
from trimgate.ops.kserve._status import ServiceStatus, read_status
from trimgate.ops.kserve._validation import problems, validate

__all__ = [
    "ENGINES",
    "FIELD_MANAGER",
    "IMAGES",
    "RIGHTS",
    "Autoscaling",
    "Cluster",
    "ClusterError",
    "Layout",
    "Logger",
    "NotReady",
    "Resources",
    "RuntimeKind",
    "ServiceStatus",
    "Serving",
    "add_layout",
    "base_service",
    "canonical",
    "deploy",
    "disruption_budget",
    "inference_graph",
    "live_release",
    "openvino_arguments",
    "problems",
    "read_status",
    "released_service",
    "resources_for",
    "serving_runtime",
    "triton_config",
    "validate",
]
