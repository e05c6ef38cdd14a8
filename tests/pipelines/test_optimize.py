"""The optimize pipeline: what it compiles to, and whole runs of it under kfp.local."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import released, write_config
from trimgate.pipelines._lint import problems
from trimgate.pipelines.optimize import _platform, compile_yaml

from trimgate._yaml import documents
from trimgate.cli import main
from trimgate.config import load_config, parse_config
from trimgate.models.directory import ModelInfo, TensorSpec, read
from trimgate.plan import Plan
from trimgate.recipes import plan_recipes
from trimgate.report import CardInput

GOLDEN = Path(__file__).parent / "golden"


def a_plan(family, framework, data, recipes="default", search=None, **sections):
    """A plan made without files, so that the compiled text is the same everywhere."""
    config = parse_config(
        {
            "name": "golden",
            "model": {"path": "s3://models/golden.skops"},
            "data": {**data, "label": "y"},
            "recipes": recipes,
            "gate": {"max_drop": {"accuracy": 0.01}},
            "mlflow": {"tracking_uri": "http://mlflow:5000"},
            "promote": {"store": "/store"},
            **({"search": search} if search else {}),
            **sections,
        }
    )
    info = ModelInfo(
        name="golden",
        task="binary",
        family=family,
        framework=framework,
        inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 2), features=("a", "b")),),
        labels=(0, 1),
        features=("a", "b"),
    )
    made, refused = plan_recipes(config.recipes, info, config.target, frozenset())
    return Plan(config, info, "accuracy", config.gate, tuple(made), refused, "", "")


TREES = [
    {"steps": [{"technique": "optimize_graph"}]},
    {"steps": [{"technique": "prune"}]},
    {"steps": [{"technique": "select_features", "keep": 1}, {"technique": "prune"}]},
]
CASES = {
    "trees": ("trees", "sklearn", {"path": "s3://data/rows.parquet"}, TREES),
    "search": (
        "trees",
        "sklearn",
        {"path": "s3://data/rows.parquet"},
        TREES,
        {"rungs": 2, "rows": 500, "budget": {"minutes": 30, "trials": 2}},
    ),
    "onnx": (
        "mlp",
        "onnx",
        {k: f"s3://data/{k}.parquet" for k in ("train", "validation", "test")},
        [{"name": "int8", "steps": [{"technique": "quantize", "scheme": "static-int8"}]}],
    ),
}
ONE = ("trees", "sklearn", {"path": "s3://data/rows.parquet"}, TREES[:1])
RELEASES = {
    "rollout": {
        "promote": {"store": "s3://models/trimgate", "repository": "https://git.example.com/a/b"},
        "rollout": {
            "environment": "production", "namespace": "models",
            "prometheus": "http://prometheus.monitoring:9090", "steps": [5, 100],
        },
    },
    "deploy": {
        "promote": {"store": "s3://models/trimgate", "signing": {"verify_key": "/keys/verify.pem"}},
        "serving": {
            "runtime": "triton",
            "max_replicas": 4, "autoscaling": {"kind": "hpa", "metric": "cpu", "target": 70},
        },
        "target": {"profile": "cloud-cpu", "runtimes": ["onnxruntime"]},
        "deploy": {"namespace": "models", "percent": 10},
    },
}  # fmt: skip


def masked(text):
    """Without the SDK's version, and without what differs between Python versions."""
    return re.sub(r"sdkVersion: kfp-[\d.]+", "sdkVersion: kfp-X", text)


def the_plan(case):
    return a_plan(*CASES[case]) if case in CASES else a_plan(*ONE, **RELEASES[case])


@pytest.mark.parametrize("case", [*CASES, *RELEASES])
def test_golden(case, tmp_path):
    file = tmp_path / "pipeline.yaml"
    compile_yaml(the_plan(case), file)
    text = masked(file.read_text())
    golden = GOLDEN / f"{case}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text(), "changed on purpose? UPDATE_GOLDEN=1 pytest tests/pipelines"


@pytest.mark.parametrize("case", CASES)
def test_compiled_pipeline_is_clean(case, tmp_path):
    file = tmp_path / "pipeline.yaml"
    compile_yaml(a_plan(*CASES[case]), file, images="registry.example.com/team")
    text = file.read_text()
    assert "pip install" not in text
    assert "TRIMGATE_CODE" not in text
    images = set(re.findall(r"image: (\S+)", text))
    assert images == {"registry.example.com/team/trimgate/python-core:0.1.0"}
    spec = documents(text)[0]
    assert list(problems(spec)) == []
    compile_yaml(a_plan(*CASES[case]), tmp_path / "again.yaml", images="registry.example.com/team/")
    assert (tmp_path / "again.yaml").read_text() == text
    assert sorted(f.name for f in tmp_path.iterdir()) == ["again.yaml", "pipeline.yaml"]


def test_shared_steps_stand_once(tmp_path):
    compile_yaml(a_plan(*CASES["trees"]), tmp_path / "p.yaml")
    tasks = documents((tmp_path / "p.yaml").read_text())[0]["root"]["dag"]["tasks"]
    names = [task["taskInfo"]["name"] for task in tasks.values()]
    assert names.count("prune") == 1
    assert "prune → ONNX" in names
    assert len([n for n in names if n.endswith(": speed")]) == 3
    assert "gate" in names
    assert "select the winner" in names


def test_a_winner_is_promoted_and_rolled_out_or_deployed(tmp_path):
    done = {}
    for case in RELEASES:
        compile_yaml(the_plan(case), tmp_path / f"{case}.yaml")
        spec = documents((tmp_path / f"{case}.yaml").read_text())[0]
        passed = next(c for n, c in spec["components"].items() if n.startswith("comp-condition")
                      and "publish" in c["dag"]["tasks"])  # fmt: skip
        done[case] = {t["taskInfo"]["name"]: t for t in passed["dag"]["tasks"].values()}
    assert list(done["deploy"]) == ["deploy", "sign and publish"]
    assert set(done["rollout"]) == {"sign and publish", "promote", "roll out"}
    assert "promote" in done["rollout"]["roll out"]["dependentTasks"]
    given = done["deploy"]["deploy"]["inputs"]["parameters"]
    serving = given["serving"]["runtimeValue"]["constant"]
    assert serving["autoscaling"] == {"kind": "hpa", "metric": "cpu", "target": 70}
    assert "resources" not in serving, "they are taken from what was measured"
    published = {case: done[case]["sign and publish"]["inputs"]["parameters"] for case in done}
    assert "layout" not in published["rollout"]
    assert published["deploy"]["layout"]["runtimeValue"]["constant"] == "triton"
    (_, told) = documents((tmp_path / "deploy.yaml").read_text())
    settings = told["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-deploy-kserve"]
    assert settings["podMetadata"]["labels"] == {_platform.RELEASES: "true"}


def test_recipes_are_tried_on_a_sample_before_their_full_cost(tmp_path):
    compile_yaml(a_plan(*CASES["search"]), tmp_path / "p.yaml")
    tasks = documents((tmp_path / "p.yaml").read_text())[0]["root"]["dag"]["tasks"]
    by_name = {task["taskInfo"]["name"]: task for task in tasks.values()}
    assert {"sample 1", "sample 2", "who goes on 1", "who goes on 2"} <= set(by_name)

    def value(name, key):
        return by_name[name]["inputs"]["parameters"][key]

    def constant(name, key):
        return value(name, key)["runtimeValue"]["constant"]

    assert [constant(f"sample {n}", "rows") for n in (1, 2)] == [500, round(500 / 0.34)]
    assert constant("who goes on 2", "most") == 2
    assert constant("who goes on 2", "seconds") == 1800
    assert constant("who goes on 1", "most") == 0, "the budget counts for the full cost"
    for later, judge in (("prune (sample 2)", "1"), ("prune", "2")):
        producer = value(later, "screened")["taskOutputParameter"]["producerTask"]
        assert tasks[producer]["taskInfo"]["name"] == f"who goes on {judge}"
    assert constant("prune", "recipes") == ["prune"]
    assert "screened" not in by_name["prune (sample 1)"]["inputs"]["parameters"]


@pytest.mark.pipeline
def test_a_search_under_a_budget(cancer, tmp_path, capsys):
    for name in ("model.skops", "rows.parquet"):
        (tmp_path / name).symlink_to(cancer / name)
    write_config(
        tmp_path / "optimize.yaml",
        recipes=[
            *({"steps": [{"technique": "prune", "amount": x}]} for x in (0.5, 0.9)),
            {"steps": [{"technique": "optimize_graph"}]},
        ],
        search={"rows": 400, "keep": 0.3, "budget": {"minutes": 10, "trials": 2}},
        mlflow={"enabled": False},
    )
    assert main(["run", str(tmp_path / "optimize.yaml")]) == 0
    card = CardInput.model_validate_json((only_run(tmp_path) / "card.json").read_bytes())
    stopped = [c.name for c in card.candidates if c.refusal]
    assert len(stopped) == 1
    assert all(c.refusal.startswith("not tried in full: ") for c in card.candidates if c.refusal)
    assert card.selection.winner not in stopped
    out = capsys.readouterr().out
    assert "2 of 3 recipes go on" in out


def only_run(folder):
    (run,) = [f for f in (folder / "trimgate-runs").iterdir() if f.name != "work"]
    return run


@pytest.fixture(scope="module")
def passed(cancer, tmp_path_factory):
    """A whole run that passes: its folder and what the terminal showed."""
    folder = tmp_path_factory.mktemp("passed")
    for name in ("model.skops", "rows.parquet"):
        (folder / name).symlink_to(cancer / name)
    write_config(folder / "optimize.yaml")
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()) as out:
        code = main(["run", str(folder / "optimize.yaml"), "--fail-on-reject"])
    return folder, code, out.getvalue()


@pytest.mark.pipeline
def test_pass_is_released_and_recorded(passed):
    folder, code, out = passed
    assert code == 0
    assert "PASSED" in out
    release, place = released(folder / "optimize.yaml")
    info = read(place, verify=True)
    assert info.has_onnx
    assert info.runtime.name == "onnxruntime"
    card = CardInput.model_validate_json((only_run(folder) / "card.json").read_bytes())
    assert card.status == "pass"
    assert card.winner.digest == release.digest
    assert (release.run, release.verdict, release.version) == (card.run, "pass", "1")
    assert all(card.served.checks.values())
    assert {p.name for p in only_run(folder).iterdir()} == {
        "card.html", "card.md", "card.json", "pull-request.md", "log.txt", "pipeline.yaml",
        "optimize.yaml",
    }  # fmt: skip
    assert card.examples is None, "rows are shown only where the config asks for them"


@pytest.mark.pipeline
def test_mlflow_holds_the_run(passed):
    from mlflow import MlflowClient

    folder, _, _ = passed
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    where = client.get_experiment_by_name("trimgate").experiment_id
    runs = client.search_runs([where])
    parent = next(r for r in runs if r.data.tags["trimgate.kind"] == "run")
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert [c.info.run_name for c in children] == ["ONNX"]
    assert children[0].data.params["step1.technique"] == "optimize_graph"
    assert children[0].data.metrics["speedup.batch_1"] > 0
    assert parent.data.tags["trimgate.verdict"] == "pass"
    assert {a.path for a in client.list_artifacts(parent.info.run_id, "card")} >= {"card/card.html"}
    (version,) = client.search_model_versions("name='cancer'")
    release, _ = released(folder / "optimize.yaml")
    assert version.tags["trimgate.digest"] == release.digest
    assert version.tags["trimgate.verdict"] == "pass"
    assert client.get_model_version_by_alias("cancer", "challenger").version == version.version
    assert version.tags["trimgate.uri"] == release.storage_uri
    promote = ["promote", "models:/cancer@challenger", "--to", "production"]
    assert main([*promote, "--config", str(folder / "optimize.yaml")]) == 0
    assert client.get_model_version_by_alias("cancer", "champion").version == version.version


@pytest.mark.pipeline
def test_independent_reproduction_of_the_card(passed):
    """The accuracy on the card, computed by scikit-learn on onnxruntime's raw answers."""
    import onnxruntime
    from sklearn.metrics import accuracy_score

    from trimgate.plan import load_data

    folder, _, _ = passed
    config = load_config(folder / "optimize.yaml")
    test = load_data(config).load().test
    _, place = released(folder / "optimize.yaml")
    session = onnxruntime.InferenceSession(place / "model.onnx")
    matrix = np.column_stack(list(test.features.values())).astype(np.float32)
    answers = session.run(None, {session.get_inputs()[0].name: matrix})
    scores = next(a for a in answers if a.ndim == 2)
    card = CardInput.model_validate_json((only_run(folder) / "card.json").read_bytes())
    expected = accuracy_score(test.labels, scores.argmax(axis=1))
    assert card.winner_test.metrics["accuracy"].interval.value == pytest.approx(expected)
    assert card.winner_test.rows == len(test)


@pytest.mark.pipeline
def test_report_shows_the_run_again(passed, capsys):
    folder, _, _ = passed
    run = only_run(folder)
    before = (run / "card.html").read_text()
    assert main(["report", str(run)]) == 0
    assert "PASSED" in capsys.readouterr().out
    assert (run / "card.html").read_text() == before
    assert main(["report", str(run), "--format", "markdown"]) == 0
    assert capsys.readouterr().out.startswith("# Passed")
    assert main(["report", str(run), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "cancer"


@pytest.mark.pipeline
def test_second_run_reuses_the_first(passed, capsys):
    folder, _, _ = passed
    assert main(["run", str(folder / "optimize.yaml")]) == 0
    assert "of them from earlier runs" in capsys.readouterr().out


@pytest.mark.pipeline
def test_reject_is_a_result(cancer, tmp_path, capsys):
    config = write_config(
        tmp_path / "optimize.yaml",
        model={"path": str(cancer / "model.skops")},
        data={
            "path": str(cancer / "rows.parquet"),
            "label": "target",
            "split": {"method": "random"},
        },
        gate={"max_drop": {"accuracy": 0.02}, "min": {"accuracy": 0.9999}},
        mlflow={"enabled": False},
        report={"example_rows": 4, "hide": ["mean_area"]},
    )
    assert main(["run", str(config)]) == 0
    out = capsys.readouterr().out
    assert "PASSED" not in out
    card = CardInput.model_validate_json((only_run(tmp_path) / "card.json").read_bytes())
    assert card.examples is not None
    assert len(card.examples.columns) == 12
    assert "mean_area" not in card.examples.columns
    assert "REJECTED" in out or "INCONCLUSIVE" in out
    assert released(tmp_path / "optimize.yaml") is None
    assert (only_run(tmp_path) / "card.md").read_text().startswith(("# Rejected", "# Inconclusive"))
    assert main(["run", str(config), "--fail-on-reject"]) == 3
