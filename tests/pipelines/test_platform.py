"""What the compiled pipeline tells a cluster of each task."""

import json
from pathlib import Path

import pytest
from trimgate.pipelines.optimize import _platform, compile_yaml

from trimgate._yaml import documents
from trimgate.config import parse_config
from trimgate.errors import InvalidInput
from trimgate.models.directory import ModelInfo, TensorSpec
from trimgate.ops.kfp_containers import RELEASING
from trimgate.plan import Plan
from trimgate.recipes import plan_recipes

ROOT = Path(__file__).parents[2]
CLUSTER = {
    "node_selector": {"node.kubernetes.io/instance-type": "c7i.2xlarge"},
    "tolerations": [{"key": "dedicated", "value": "serving", "effect": "NoSchedule"}],
    "secrets": {"model-store": {"AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID"}},
    "secret_files": {"signing-key": "/keys"},
    "cache_volume": "trimgate-cache",
    "timeout_minutes": 30,
}


def compiled(
    tmp_path, *, framework="sklearn", family="trees", steps=(), **sections
) -> tuple[dict, dict, set]:
    """Executors, what the platform is told of them, and images; by component and display name."""
    config = parse_config(
        {
            "name": "golden",
            "model": {"path": "s3://models/golden.skops"},
            "data": {"path": "s3://data/rows.parquet", "label": "y"},
            "recipes": [{"steps": [*steps, {"technique": "optimize_graph"}]}],
            "gate": {"max_drop": {"accuracy": 0.01}},
            "mlflow": {"tracking_uri": "http://mlflow:5000"},
            "promote": {
                "store": "pvc://models/prod",
                "mounts": {"models": "/models"},
                "repository": "https://git.example.org/releases.git",
            },
            "rollout": {
                "environment": "production",
                "namespace": "models",
                "prometheus": "http://prometheus:9090",
            },
            **sections,
        }
    )
    info = ModelInfo(
        name="golden", task="binary", family=family, framework=framework,
        inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 2), features=("a", "b")),),
        labels=(0, 1), features=("a", "b"),
    )  # fmt: skip
    made, refused = plan_recipes(config.recipes, info, config.target, frozenset())
    plan = Plan(config, info, "accuracy", config.gate, tuple(made), refused, "", "")
    compile_yaml(plan, tmp_path / "p.yaml")
    spec, platform = documents((tmp_path / "p.yaml").read_text())
    executors = {
        name.removeprefix("exec-"): executor["container"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
        if "container" in executor
    }
    told = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return (
        executors,
        {name.removeprefix("exec-"): value for name, value in told.items()},
        {executor["image"] for executor in executors.values()},
    )


def component(name: str) -> str:
    return name.rstrip("0123456789-").replace("-", "_")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("compiled"), cluster=CLUSTER)


def test_every_task_has_resources_a_time_limit_and_no_root(whole):
    executors, told, _ = whole
    assert executors.keys() == told.keys()
    for name, executor in executors.items():
        assert executor["resources"].keys() >= {"resourceCpuRequest", "resourceMemoryLimit"}
        assert told[name]["securityContext"] == {
            "runAsUser": "65532", "runAsGroup": "65532", "runAsNonRoot": True,
        }  # fmt: skip
        assert told[name]["emptyDirMounts"] == [{"volumeName": "tmp", "mountPath": "/tmp"}]
        seconds = 30 * 60
        if name == "watch-rollout":
            seconds += 3 * (900 + 7200)
        assert told[name]["activeDeadlineSeconds"] == str(seconds)


def test_every_component_has_a_number_or_is_a_technique():
    folders = {file.parent for file in (ROOT / "components").glob("*/*/component.py")}
    techniques = {f.name for f in folders if f.parent.name == "optimization"}
    assert {f.name for f in folders} - techniques == _platform.MEASURED_MB.keys()
    assert {*_platform.TIMED, *_platform.ONCE, *RELEASING} <= _platform.MEASURED_MB.keys()


def test_timed_tasks_run_where_the_winner_will_on_cores_of_their_own(whole):
    executors, told, _ = whole
    timed = {name for name in told if component(name) in _platform.TIMED}
    assert {component(name) for name in timed} == {"benchmark", "check_serving"}
    for name, settings in told.items():
        if name in timed:
            resources = executors[name]["resources"]
            assert settings["nodeSelector"]["labels"] == CLUSTER["node_selector"]
            assert settings["tolerations"] == [{**CLUSTER["tolerations"][0], "operator": "Equal"}]
            assert resources["resourceCpuRequest"] == resources["resourceCpuLimit"] == "2"
            assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"]
        else:
            assert "nodeSelector" not in settings
            assert "tolerations" not in settings


def test_secrets_and_stores_are_for_the_tasks_that_release(whole):
    _, told, _ = whole
    releasing = {name for name in told if component(name) in RELEASING}
    assert {component(name) for name in releasing} == RELEASING - {"deploy_kserve"}
    for name, settings in told.items():
        text = json.dumps(settings)
        if name in releasing:
            assert settings["secretAsEnv"][0]["secretName"] == "model-store"
            assert settings["secretAsVolume"][0]["mountPath"] == "/keys"
            assert settings["podMetadata"]["labels"] == {_platform.RELEASES: "true"}
            assert [m["mountPath"] for m in settings["pvcMount"]] == ["/models"]
        else:
            assert "ecret" not in text
            assert "podMetadata" not in settings
            assert [m["mountPath"] for m in settings["pvcMount"]] == [_platform.CACHE]


def test_what_may_not_be_tried_twice_is_not(tmp_path):
    compiled(tmp_path)
    spec = documents((tmp_path / "p.yaml").read_text())[0]
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    tries = {
        task["componentRef"]["name"].removeprefix("comp-"): "retryPolicy" in task
        for dag in dags
        for task in dag["tasks"].values()
        if "importer" not in task["componentRef"]["name"]
        and "condition" not in task["componentRef"]["name"]
    }
    assert [name for name, retried in tries.items() if not retried] == ["reject"]


def test_without_a_cluster_section_nothing_is_mounted(tmp_path):
    _, told, images = compiled(tmp_path)
    assert images == {"trimgate/python-core:0.1.0"}
    for name, settings in told.items():
        assert "nodeSelector" not in settings
        assert "secretAsEnv" not in settings
        assert ("pvcMount" in settings) == (component(name) in RELEASING)


@pytest.mark.parametrize(
    ("framework", "steps"),
    [
        ("torch", ()),
        ("sklearn", ({"technique": "select_features", "keep": 1, "method": "shap"},)),
    ],
)
def test_the_image_with_torch_where_something_needs_it(tmp_path, framework, steps):
    _, _, images = compiled(tmp_path, framework=framework, steps=steps)
    assert images == {"trimgate/python-torch:0.1.0"}


def test_a_gpu_target_has_its_image_and_asks_for_one(tmp_path):
    executors, _, images = compiled(tmp_path, framework="torch", family="mlp", target="gpu")
    assert images == {"trimgate/python-gpu:0.1.0"}
    for name, executor in executors.items():
        asked = executor["resources"].get("accelerator", {}).get("resourceType")
        assert asked == ("nvidia.com/gpu" if component(name) in _platform.TIMED else None)


def test_bad_cluster_settings_name_the_key():
    with pytest.raises(InvalidInput, match=r"cluster\.cache_volume"):
        parse_config(
            {
                "name": "x",
                "model": {"path": "m.skops"},
                "data": {"path": "d.parquet", "label": "y"},
                "cluster": {"cache_volume": "Not A Name"},
            }
        )
