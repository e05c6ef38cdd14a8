"""Objects of KServe that the tests are about."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trimgate.models.directory import ModelInfo, RuntimeChoice, TensorSpec, seal, writing
from trimgate.ops.kserve import (
    Autoscaling,
    Logger,
    Resources,
    Serving,
    base_service,
    inference_graph,
    released_service,
    serving_runtime,
)
from trimgate.ops.release import Release, ReleasedModel, release_stable, start_canary

DIGESTS = {name: f"sha256:{digit * 64}" for name, digit in (("old", "a"), ("new", "b"))}


def released_model(which: str) -> ReleasedModel:
    digest = DIGESTS[which]
    return ReleasedModel(
        storage_uri=f"s3://models/production/fraud/{digest.removeprefix('sha256:')}/",
        digest=digest, run="run-1", verdict="pass", promoted="2026-11-25T12:00:00+00:00",
    )  # fmt: skip


def release(mode: str = "Standard", canary: int | None = None) -> Release:
    empty = Release(name="fraud", environment="production", mode=mode)
    stable = release_stable(empty, released_model("old"))
    return stable if canary is None else start_canary(stable, released_model("new"), canary)


def service(serving: Serving | None = None, canary: int | None = None) -> dict:
    serving = serving or Serving()
    return released_service(base_service("fraud", serving), release(serving.mode, canary))


def linear_model(folder: Path, *, engine: str = "onnxruntime", external: bool = False) -> Path:
    """A model directory with an ONNX form: two scores of four features."""
    rows, columns = 4, 2
    weights = numpy_helper.from_array(
        np.arange(rows * columns, dtype=np.float32).reshape(rows, columns) / 8, "w"
    )
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "w"], ["scores"])],
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", columns])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    names = tuple("abcd")
    with writing(folder) as partial:
        onnx.save(
            model,
            partial / "model.onnx",
            save_as_external_data=external,
            location="model.onnx.data",
            size_threshold=0,
        )
        (partial / "notes.txt").write_text("not served")
        info = ModelInfo(
            name="fraud",
            task="binary",
            family="linear",
            framework="onnx",
            inputs=(TensorSpec(name="X", dtype="float32", shape=(-1, rows), features=names),),
            outputs=(TensorSpec(name="scores", dtype="float32", shape=(-1, columns)),),
            score_output="scores",
            labels=(0, 1),
            features=names,
            runtime=RuntimeChoice(name=engine),
        )
        seal(partial, info)
    return folder


SERVINGS = {
    "plain": Serving(),
    "hpa": Serving(
        min_replicas=2, max_replicas=6, autoscaling=Autoscaling(kind="hpa", metric="cpu", target=70)
    ),
    "keda": Serving(
        min_replicas=0, max_replicas=4,
        autoscaling=Autoscaling(kind="keda", metric="memory", target=80),
    ),
    "keda-query": Serving(
        max_replicas=4,
        autoscaling=Autoscaling(
            kind="keda", target=20, query="sum(rate(requests_total[1m]))",
            prometheus="http://prometheus.monitoring:9090",
        ),
    ),
    "external": Serving(max_replicas=3, autoscaling=Autoscaling(kind="external")),
    "knative": Serving(mode="Knative", min_replicas=2),
    "kpa": Serving(
        mode="Knative", min_replicas=0, max_replicas=8,
        autoscaling=Autoscaling(kind="kpa", metric="concurrency", target=10),
    ),
    "triton": Serving(runtime="triton", runtime_version="26.06-py3"),
    "openvino": Serving(
        runtime="openvino", arguments=('--plugin_config={"INFERENCE_PRECISION_HINT":"f32"}',)
    ),
    "all": Serving(
        min_replicas=3, max_replicas=3, threads=2, pre_stop_seconds=5, startup_seconds=31,
        resources=Resources(cpu=0.25, cpu_limit=2.5, memory=700 * 2**20, gpus=1),
        logger=Logger(url="http://sink.logging/", mode="request"),
        annotations={"team": "risk"}, labels={"app.kubernetes.io/part-of": "fraud"},
    ),
}  # fmt: skip


def objects() -> dict[str, dict]:
    """Every kind of object that is built, by a name."""
    made = {}
    for name, serving in SERVINGS.items():
        made[name] = service(serving)
        made[f"{name}-canary"] = service(serving, canary=10)
    for kind in ("trimgate", "triton", "openvino"):
        for cluster in (False, True):
            made[f"runtime-{kind}-{cluster}"] = serving_runtime(
                kind, cluster=cluster, gpu=kind == "triton", pull_secret="pull"
            )
    made["graph"] = inference_graph("pipeline", ["prepare", "fraud", "explain"])
    return made
