"""An InferenceGraph where steps before or after the model are services of their own."""

from collections.abc import Sequence
from typing import Any

from trimgate.errors import InvalidInput


def inference_graph(
    name: str,
    services: Sequence[str],
    *,
    namespace: str | None = None,
    service_account: str | None = None,
    timeout: int = 60,
) -> dict[str, Any]:
    """A graph that sends a request through several InferenceServices, one after the other.

    Each gets the answer of the one before it; when one fails, the graph answers with its error.

    Args:
        name: The graph's name.
        services: Names of the InferenceServices, such as what prepares, the model, and what
            explains its answer.
        namespace: Left out, the overlay sets it.
        service_account: The account of the router's pods.
        timeout: Seconds for a request.

    Raises:
        InvalidInput: There are fewer than two services.
    """
    if len(services) < 2:
        raise InvalidInput(
            "needs two services or more", key="services", value=list(services),
            mend="send requests to the one InferenceService itself",
        )  # fmt: skip
    steps: list[dict[str, Any]] = []
    for service in services:
        step: dict[str, Any] = {"name": service, "serviceName": service, "dependency": "Hard"}
        if steps:
            step["data"] = "$response"
        steps.append(step)
    spec: dict[str, Any] = {
        "nodes": {"root": {"routerType": "Sequence", "steps": steps}},
        "timeout": timeout,
    }
    if service_account:
        spec["serviceAccountName"] = service_account
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": spec,
    }
