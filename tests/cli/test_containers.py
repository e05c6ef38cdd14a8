"""What `trimgate run --containers` gives to the tasks, and what it refuses; no engine is needed."""

from pathlib import Path

import pytest

from trimgate.cli._containers import check_containers, containers_for
from trimgate.config import parse_config, resolve_paths
from trimgate.errors import InvalidInput, TrimgateError
from trimgate.models.directory import ModelInfo
from trimgate.plan import Plan
from trimgate.recipes import plan_recipes


def a_plan(folder: Path, **sections) -> Plan:
    config = parse_config(
        {
            "name": "small",
            "model": {"path": "model.onnx"},
            "data": {"path": "rows.parquet", "label": "y"},
            "recipes": [{"steps": [{"technique": "optimize_graph"}]}],
            "gate": {"max_drop": {"accuracy": 0.01}},
            "mlflow": {"tracking_uri": "sqlite:///mlflow/mlflow.db"},
            **sections,
        }
    )
    config = resolve_paths(config, folder)
    info = ModelInfo(
        name="small", task="binary", family="trees", framework="sklearn",
        inputs=(), labels=(0, 1), features=("a",),
    )  # fmt: skip
    recipes, refused = plan_recipes(config.recipes, info, config.target, frozenset())
    return Plan(config, info, "accuracy", config.gate, tuple(recipes), refused, "", "")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("TRIMGATE_GIT_TOKEN", "token")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")


def test_only_what_releases_sees_store_keys_and_credentials(tmp_path):
    (tmp_path / "key.pem").write_text("key")
    plan = a_plan(tmp_path, promote={"signing": {"key": "key.pem"}})
    made = containers_for(plan, tmp_path, tmp_path / "work", {"TRIMGATE_CACHE": "/c"})
    assert made.reach.read == (tmp_path / "model.onnx", tmp_path / "rows.parquet")
    assert made.reach.write == (tmp_path / "work",)
    assert made.reach.environment == {"TRIMGATE_CACHE": "/c"}
    assert made.reach.network == "none"
    assert made.releasing.read == (tmp_path / "key.pem",)
    assert made.releasing.write == (tmp_path / "mlflow", tmp_path / "trimgate-store")
    assert made.releasing.environment.keys() >= {"AWS_SECRET_ACCESS_KEY", "TRIMGATE_GIT_TOKEN"}
    assert "PATH" not in made.releasing.environment
    assert made.releasing.network == "none"
    assert (tmp_path / "trimgate-store/releases.git/HEAD").is_file()


@pytest.mark.parametrize(
    "sections",
    [
        {"mlflow": {"tracking_uri": "http://mlflow:5000"}},
        {"promote": {"repository": "https://git.example.org/releases.git"}},
        {"promote": {"store": "s3://models", "repository": "https://git.example.org/r.git"}},
    ],
)
def test_a_network_only_where_a_server_is_named(tmp_path, sections):
    made = containers_for(a_plan(tmp_path, **sections), tmp_path, tmp_path / "work", {})
    assert (made.reach.network, made.releasing.network) == ("none", "bridge")


def test_a_builder_may_stand_beside_the_config(tmp_path):
    plan = a_plan(tmp_path, model={"path": "w.safetensors", "builder": "nets:build"})
    made = containers_for(plan, tmp_path, tmp_path / "work", {})
    assert tmp_path in made.reach.read
    assert made.reach.environment["PYTHONPATH"] == str(tmp_path)


def test_what_containers_cannot_do_is_refused(tmp_path):
    rollout = {"environment": "production"}
    with pytest.raises(InvalidInput, match=r"o\.yaml: rollout\.environment .*--containers"):
        check_containers(a_plan(tmp_path, rollout=rollout), "o.yaml")
    direct = {"promote": {"store": "s3://models"}, "deploy": {"namespace": "models"}}
    with pytest.raises(InvalidInput, match=r"o\.yaml: deploy: the kubeconfig .*--containers"):
        check_containers(a_plan(tmp_path, **direct), "o.yaml")


def test_no_engine_is_one_line(tmp_path):
    with pytest.raises(TrimgateError, match="no container engine answers: start Docker"):
        check_containers(a_plan(tmp_path), "o.yaml")
