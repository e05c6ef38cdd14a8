import json

import pytest

from trimgate.config import json_schema, load_config, parse_config
from trimgate.errors import InvalidInput

GOOD = {"name": "fraud", "model": {"path": "m.skops"}, "data": {"path": "d.parquet", "label": "y"}}


def changed(path, value):
    """GOOD with one key set, by dotted path."""
    raw = json.loads(json.dumps(GOOD))
    *sections, key = path.split(".")
    inner = raw
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[key] = value
    return raw


def test_least_config():
    config = parse_config(GOOD)
    assert config.recipes == "default"
    assert config.gate is None
    assert config.target.name == "cloud-cpu"


def test_paths_are_relative_to_the_file(tmp_path):
    file = tmp_path / "sub" / "optimize.yaml"
    file.parent.mkdir()
    file.write_text(
        "name: a\nmodel: {path: ../m.onnx}\ndata: {path: 's3://b/d.parquet', label: y}\n"
        "mlflow: {tracking_uri: 'sqlite:///x.db'}\n"
    )
    config = load_config(file)
    assert config.model.path == str(tmp_path / "m.onnx")
    assert config.data.path == "s3://b/d.parquet"
    assert config.promote.store == str(file.parent / "trimgate-store")
    assert config.mlflow.tracking_uri == f"sqlite:///{file.parent}/x.db"


def test_profile_with_changes():
    config = parse_config(changed("target", {"profile": "edge-cpu", "threads": 2}))
    assert (config.target.name, config.target.threads) == ("edge-cpu", 2)
    assert config.target.memory_limit_mb == 512


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("objectiv", "latency", ["objectiv", "unknown key", "did you mean 'objective'?"]),
        ("model.pth", "x", ["model.pth", "unknown key", "did you mean 'path'?"]),
        ("data.split", {"method": "stratifed"}, ["data.split.method", "'stratifed'"]),
        ("data.split", {"method": "temporal"}, ["`by` names the time column"]),
        ("data.split", {"validation": 0.6, "test": 0.5}, ["must leave rows for train"]),
        ("data.train", "t.csv", ["exclude each other"]),
        ("name", "No Spaces", ["name = 'No Spaces'"]),
        ("name", "2nd", ["name = '2nd'", "begin with a letter"]),
        ("name", "a" * 40, ["has 40 characters, and 39 is the most", "Kubernetes takes 63"]),
        ("deploy", {}, ["promote.store", "is not to be read by the cluster's pods"]),
        ("deploy", {"percent": 0}, ["deploy.percent = 0"]),
        ("promote", {"store": "s3://m/a"}, ["promote.store", "or `deploy`"]),
        ("serving", {"replicas": 2}, ["serving.replicas", "did you mean 'min_replicas'?"]),
        ("serving", {"runtime": "triton"},
         ["target.runtimes = [", "triton runs models on onnxruntime", "set [onnxruntime]"]),
        ("serving", {"mode": "Knative"}, ["serving.mode", "the mode is Standard", "leave it out"]),
        ("serving", {"autoscaling": {"kind": "kpa", "metric": "rps", "target": 9}},
         ["serving", "kpa does not scale in Standard mode"]),
        ("seed", "many", ["seed = 'many'", "integer"]),
        ("seed", -1, ["seed = -1"]),
        ("target", "cloud", ["no target profile 'cloud'", "edge-cpu"]),
        ("target", {"name": "edge-cpu", "threads": 2}, ["write `profile: edge-cpu`"]),
        ("target", {"name": ["edge-cpu"]}, ["target.name", "string"]),
        ("target", {"profile": ["edge-cpu"]}, ["no target profile ['edge-cpu']"]),
        (
            "target",
            {"profile": "edge-cpu", "thread": 2},
            ["target.thread", "did you mean 'threads'?"],
        ),
        (
            "mlflow",
            {"tracking_uri": "https://me:hunter2@mlflow"},
            ["mlflow.tracking_uri", "holds a password", "MLFLOW_TRACKING_PASSWORD"],
        ),
        ("metric", "acuracy", ["metric", "'acuracy'", "no such metric"]),
        ("recipes", [], ["recipes"]),
        ("recipes", [{"steps": []}], ["recipes.0.steps"]),
        ("recipes", [{"steps": [{"technique": "quantise"}]}], ["'quantise'", "is not a technique"]),
        (
            "recipes",
            [{"steps": [{"technique": "quantize", "schem": "x"}]}],
            ["quantize.schem", "scheme"],
        ),
        ("recipes", "defaults", ["recipes"]),
        ("gate", {"max_drop": {"accuracy": -1}}, ["gate.max_drop.accuracy", "-1"]),
        ("gate", {"max_dropp": {}}, ["gate.max_dropp", "did you mean 'max_drop'?"]),
        ("benchmark", {"seconds": 0}, ["benchmark.seconds = 0"]),
        ("model.builder", "os.system", ["model.builder", "'os.system'"]),
    ],
)
def test_one_clear_line(path, value, said):
    with pytest.raises(InvalidInput) as caught:
        parse_config(changed(path, value), file="optimize.yaml")
    message = str(caught.value)
    assert message.startswith("optimize.yaml: ")
    assert "\n" not in message
    for text in said:
        assert text in message


DIRECT = {**GOOD, "promote": {"store": "s3://m/a"}, "deploy": {"namespace": "models"}}


@pytest.mark.parametrize(
    ("section", "more", "other"),
    [
        ("promote", {"repository": "https://git/a/b"}, "promote.repository"),
        ("promote", {"environments": {"production": {}}}, "promote.environments"),
        ("rollout", {"environment": "production"}, "rollout.environment"),
    ],
)
def test_deploy_or_git(section, more, other):
    assert parse_config(DIRECT).deploy.percent == 100
    with pytest.raises(InvalidInput, match=rf"^deploy: deploys without Git, and `{other}`"):
        parse_config({**DIRECT, section: {**DIRECT.get(section, {}), **more}})


def test_serving_has_the_mode_of_the_repository():
    assert parse_config(GOOD).serving.mode == "Standard"
    knative = {"autoscaling": {"kind": "kpa", "metric": "rps", "target": 9}, "min_replicas": 0}
    config = parse_config({**GOOD, "promote": {"deployment_mode": "Knative"}, "serving": knative})
    assert (config.serving.mode, config.serving.min_replicas) == ("Knative", 0)


def test_another_model_server():
    served = {**GOOD, "serving": {"runtime": "openvino"}}
    served["target"] = {"profile": "edge-cpu", "runtimes": ["openvino"]}
    assert parse_config(GOOD).layout is None
    assert parse_config(served).layout == "openvino"
    watched = {"namespace": "models", "prometheus": "http://prometheus:9090"}
    with pytest.raises(InvalidInput, match=r"^serving\.runtime = 'openvino': a canary is watched"):
        parse_config({**served, "rollout": watched})


def test_missing_key():
    with pytest.raises(InvalidInput, match=r"data\.label: the key is missing; add `label: ...`"):
        parse_config({**GOOD, "data": {"path": "d.csv"}})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the file is missing"),
        (b"name: [", "is not YAML at line"),
        (b"- a\n", "must be a mapping"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"name: !!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_bad_file(tmp_path, content, said):
    file = tmp_path / "optimize.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        load_config(file)


def test_schema_names_every_technique():
    schema = json.loads(json_schema())
    assert "step_quantize" in schema["$defs"]
    assert schema["additionalProperties"] is False
    assert "average_precision" in schema["properties"]["metric"]["anyOf"][0]["enum"]
    references = json.dumps(schema)
    for name in ("prune", "select_features", "optimize_graph", "runtime"):
        assert f"step_{name}" in references


def test_a_misspelt_objective_is_named_by_its_key():
    raw = {
        "name": "m",
        "model": {"path": "m.skops"},
        "data": {"path": "rows.parquet", "label": "y"},
        "objective": {"latency": 1, "sizes": 2},
    }
    with pytest.raises(InvalidInput, match=r"^objective\.sizes = 'sizes': input should be 'laten"):
        parse_config(raw)
