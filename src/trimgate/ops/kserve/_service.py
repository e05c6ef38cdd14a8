"""The InferenceService of a model, and the PodDisruptionBudget beside it.

A service is made in two parts, as GitOps wants it: `base_service` says how the model is served
and changes seldom, and a release (`trimgate.ops.release`) says which model is served and changes
with every promotion. `released_service` puts them together, for whoever applies without Git.
"""

import json
import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimgate.judge.records import Benchmark
from trimgate.ops import release as releases
from trimgate.ops.kserve._quantities import canonical, cpu, memory
from trimgate.ops.kserve._rules import AUTOSCALER_ANNOTATION, KNATIVE_CLASS_ANNOTATION
from trimgate.ops.release import MODE_ANNOTATION, Mode, Release

SERVER_RSS = 320 * 2**20
"""Bytes allowed for the model server around the engine and the model."""
SERVER_CPU = 0.5
"""Cores allowed for what the server does beside the engine: HTTP, gRPC, tensors."""
_DRAIN_SECONDS = 25
"""What is left of the grace period for open requests: the server takes 20 at most."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Autoscaling(_Section):
    """How the number of replicas follows the load.

    Attributes:
        kind: `hpa` and `keda` in Standard mode, `kpa` in Knative mode, `none` for a fixed
            number, `external` when something else scales the Deployment.
        metric: `cpu` or `memory` (hpa, keda), `concurrency` or `rps` (kpa). With `query` it is
            left out.
        target: Percent of the requested CPU or memory; requests at once or per second and pod.
            With `query`: the value of the query for each replica.
        query: For keda: a Prometheus query to scale by.
        prometheus: For keda: URL of the Prometheus server.
    """

    kind: Literal["none", "hpa", "keda", "kpa", "external"] = "none"
    metric: Literal["cpu", "memory", "concurrency", "rps"] | None = None
    target: int | None = Field(default=None, ge=1)
    query: str | None = None
    prometheus: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Autoscaling":
        resource = ("cpu", "memory")
        taken = {"hpa": resource, "keda": resource, "kpa": ("concurrency", "rps")}
        if (self.query is None) != (self.prometheus is None):
            raise ValueError("`query` and `prometheus` go together")
        if self.query is not None and (self.kind != "keda" or self.metric is not None):
            raise ValueError("`query` is for keda, without a `metric`")
        if self.kind in taken:
            if self.query is None and self.metric not in taken[self.kind]:
                raise ValueError(f"{self.kind} scales by {' or '.join(taken[self.kind])}")
            if self.target is None:
                raise ValueError("`target` is missing")
        elif self.metric is not None or self.target is not None:
            raise ValueError(f"{self.kind} takes no `metric` and no `target`")
        if self.metric in ("cpu", "memory") and self.target and self.target > 100:
            raise ValueError("`target` is a percentage of the requested cpu or memory")
        return self


class Resources(_Section):
    """What a pod of the model gets.

    Attributes:
        cpu: Cores it is scheduled by.
        cpu_limit: Cores it may take.
        memory: Bytes it is scheduled by, and may take: more would be freed by ending the pod.
        gpus: NVIDIA GPUs.
    """

    cpu: float = Field(default=1.0, gt=0)
    cpu_limit: float = Field(default=1.5, gt=0)
    memory: int = Field(default=2**30, ge=2**20)
    gpus: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Resources":
        if self.cpu > self.cpu_limit:
            raise ValueError("`cpu` is more than `cpu_limit`")
        return self

    def manifest(self) -> dict[str, Any]:
        """As Kubernetes wants them."""
        both = {"memory": memory(self.memory)}
        if self.gpus:
            both["nvidia.com/gpu"] = canonical(self.gpus)
        return {
            "requests": {"cpu": cpu(self.cpu), **both},
            "limits": {"cpu": cpu(self.cpu_limit), **both},
        }


class Logger(_Section):
    """Where KServe's agent sends requests and responses, as CloudEvents.

    Attributes:
        url: URL of the sink.
        mode: What is sent.
    """

    url: str = Field(pattern=r"^https?://\S+$")
    mode: Literal["all", "request", "response"] = "all"


class Serving(_Section):
    """How a model is served on KServe.

    Attributes:
        mode: KServe's deployment mode; an InferenceService cannot change it.
        runtime: Name of the ServingRuntime.
        runtime_version: Tag of its image, where it is not the runtime's own.
        model_format: As the runtime lists it.
        min_replicas: Pods at least; 0 with keda and kpa only.
        max_replicas: Pods at most; `min_replicas` when left out.
        autoscaling: What happens between.
        resources: Of a pod; `resources_for` takes them from a benchmark.
        threads: Of the session; for trimgate's own runtime, which is told.
        arguments: Further arguments of the server.
        service_account: The account that may read the store.
        pre_stop_seconds: How long a pod that ends still answers, until no router knows it.
        startup_seconds: How long a pod may take to load the model (Standard mode).
        logger: None logs no requests.
        annotations, labels: Further ones.
    """

    mode: Mode = "Standard"
    runtime: str = "trimgate"
    runtime_version: str | None = None
    model_format: str = "onnx"
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int | None = Field(default=None, ge=1)
    autoscaling: Autoscaling = Autoscaling()
    resources: Resources = Resources()
    threads: int | None = Field(default=None, ge=1)
    arguments: tuple[str, ...] = ()
    service_account: str | None = "model-server"
    pre_stop_seconds: int = Field(default=15, ge=0)
    startup_seconds: int = Field(default=120, ge=10)
    logger: Logger | None = None
    annotations: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> "Serving":
        kind = self.autoscaling.kind
        if (self.mode == "Knative") != (kind == "kpa") and kind != "none":
            raise ValueError(f"{kind} does not scale in {self.mode} mode")
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError("`max_replicas` is less than `min_replicas`")
        if self.min_replicas == 0 and kind not in ("keda", "kpa"):
            raise ValueError("only keda and kpa scale to 0")
        if kind == "none" and self.max_replicas not in (None, self.min_replicas):
            raise ValueError("without autoscaling there is one number of replicas")
        if self.threads is not None and self.runtime != "trimgate":
            raise ValueError("`threads` is told to trimgate's own runtime alone")
        return self


def resources_for(
    benchmark: Benchmark,
    *,
    threads: int = 1,
    requests_per_second: float | None = None,
    headroom: float = 0.5,
    utilization: float = 0.7,
    gpus: int = 0,
) -> Resources:
    """What a pod needs, from what was measured of the model.

    Memory is the peak of a process that loads and calls the model, with headroom, and
    `SERVER_RSS` for the server around it. CPU is that of a session with all its threads busy and
    `SERVER_CPU` for the server; with a rate given, a pod is scheduled by what that rate takes
    at the batch size that counts.

    Args:
        benchmark: The benchmark of the model, on hardware like the target's.
        threads: Threads of the session.
        requests_per_second: The rate that one pod is to serve.
        headroom: Share of the peak that is added.
        utilization: Share of the requested CPU that the rate may take.
        gpus: NVIDIA GPUs.
    """
    size = benchmark.candidate.peak_rss * (1 + headroom) + SERVER_RSS
    limit = wanted = threads + SERVER_CPU
    if requests_per_second is not None:
        per_call = benchmark.batches[0].candidate.cpu
        wanted = min(limit, max(0.1, requests_per_second * per_call / utilization))
    return Resources(cpu=wanted, cpu_limit=limit, memory=math.ceil(size), gpus=gpus)


def base_service(name: str, serving: Serving, *, namespace: str | None = None) -> dict[str, Any]:
    """An InferenceService without a model's URI: what `base/<model>/` holds.

    Args:
        name: The model's name, which is also its name in the URLs.
        serving: How it is served.
        namespace: Left out, the overlay or the client sets it.
    """
    standard = serving.mode == "Standard"
    model: dict[str, Any] = {
        "modelFormat": {"name": serving.model_format},
        "runtime": serving.runtime,
        "protocolVersion": "v2",
        "resources": serving.resources.manifest(),
    }
    if serving.runtime_version:
        model["runtimeVersion"] = serving.runtime_version
    threads = [] if serving.threads is None else [f"--threads={serving.threads}"]
    if threads or serving.arguments:
        # KServe appends these to the runtime's own.
        model["args"] = [*threads, *serving.arguments]
    predictor: dict[str, Any] = {"model": model, "minReplicas": serving.min_replicas}
    if standard:
        # Knative refuses these, and drains by itself.
        predictor["terminationGracePeriodSeconds"] = serving.pre_stop_seconds + _DRAIN_SECONDS
        predictor["securityContext"] = {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        model["lifecycle"] = {
            "preStop": {"exec": {"command": ["sleep", str(serving.pre_stop_seconds)]}}
        }
        model["startupProbe"] = {
            "httpGet": {"path": f"/v2/models/{name}/ready", "port": 8080},
            "periodSeconds": 5,
            "failureThreshold": math.ceil(serving.startup_seconds / 5),
        }
    if serving.service_account:
        predictor["serviceAccountName"] = serving.service_account
    if serving.logger is not None:
        predictor["logger"] = serving.logger.model_dump()
    predictor |= _scaling(serving)
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if serving.labels:
        metadata["labels"] = dict(serving.labels)
    metadata["annotations"] = {
        MODE_ANNOTATION: serving.mode,
        "serving.kserve.io/enable-prometheus-scraping": "true",
        **_autoscaler(serving),
        **serving.annotations,
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }


def released_service(base: Mapping[str, Any], release: Release) -> dict[str, Any]:
    """An InferenceService that serves what is released, as kustomize would make it.

    Args:
        base: What `base_service` gave.
        release: What is released; something must be.
    """
    if release.stable is None:
        raise ValueError("nothing is released")
    patch = yaml.safe_load(releases.write(release, predictor=base["spec"]["predictor"]))
    merged: dict[str, Any] = _merged(base, patch)
    return merged


def disruption_budget(name: str, *, namespace: str | None = None) -> dict[str, Any]:
    """A PodDisruptionBudget: a drained node takes one pod of the model at a time.

    Args:
        name: The InferenceService's name.
        namespace: Left out, the overlay sets it.
    """
    labels = {"serving.kserve.io/inferenceservice": name, "component": "predictor"}
    metadata = {"name": f"{name}-predictor", **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels},
            # A pod that never became ready must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _autoscaler(serving: Serving) -> dict[str, str]:
    if serving.mode == "Knative":
        # KServe's webhook refuses autoscalerClass kpa.
        return {KNATIVE_CLASS_ANNOTATION: "kpa.autoscaling.knative.dev"}
    return {AUTOSCALER_ANNOTATION: serving.autoscaling.kind}


def _scaling(serving: Serving) -> dict[str, Any]:
    scaling, most = serving.autoscaling, serving.max_replicas or max(1, serving.min_replicas)
    made: dict[str, Any] = {"maxReplicas": most}
    if scaling.kind in ("hpa", "kpa"):
        return {**made, "scaleMetric": scaling.metric, "scaleTarget": scaling.target}
    if scaling.kind != "keda":
        return made
    if scaling.query is None:
        target = {"type": "Utilization", "averageUtilization": scaling.target}
        source: dict[str, Any] = {
            "type": "Resource",
            "resource": {"name": scaling.metric, "target": target},
        }
    else:
        metric = {
            "backend": "prometheus",
            "serverAddress": scaling.prometheus,
            "query": scaling.query,
        }
        value = canonical(scaling.target or 1)
        source = {
            "type": "External",
            "external": {"metric": metric, "target": {"type": "Value", "value": value}},
        }
    return {**made, "autoScaling": {"metrics": [source]}}


def _merged(base: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396), which is what kustomize does to custom resources."""
    if not isinstance(base, Mapping) or not isinstance(patch, Mapping):
        return deepcopy(patch)
    made = json.loads(json.dumps(base))
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value) if isinstance(value, Mapping) else value
    return made
