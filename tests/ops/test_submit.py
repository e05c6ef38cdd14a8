import pytest
from kfp import compiler, dsl

from trimgate.errors import InvalidInput
from trimgate.ops.kfp_submit import submit

TOKEN = "token-that-must-not-be-logged"
REMOTE = {"model_uri": "s3://models/m.skops", "mlflow_tracking_uri": "http://mlflow:5000"}


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def use(model_uri: str, mlflow_tracking_uri: str):
    print(model_uri, mlflow_tracking_uri)


@dsl.pipeline(name="tiny")
def tiny(model_uri: str = "/home/me/m.skops", mlflow_tracking_uri: str = "sqlite:///mlflow.db"):
    use(model_uri=model_uri, mlflow_tracking_uri=mlflow_tracking_uri)


@pytest.fixture
def package(tmp_path):
    file = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(tiny, str(file))
    return file


def test_submit(kubeflow, package):
    run_id, page = submit(
        package,
        host=kubeflow.url,
        token=TOKEN,
        namespace="team",
        experiment="speed",
        run_name="first",
        service_account="runner",
        arguments=REMOTE,
    )
    assert run_id == "run-1"
    assert page == f"{kubeflow.url}/#/runs/details/run-1"
    (run,) = kubeflow.state["runs"]
    assert run["experiment_id"] == "exp-0"
    assert run["display_name"] == "first"
    assert run["service_account"] == "runner"
    assert run["runtime_config"]["parameters"] == REMOTE
    spec = run["pipeline_spec"]
    assert "root" in spec.get("pipeline_spec", spec)
    assert kubeflow.state["experiments"][0]["display_name"] == "speed"


def test_the_experiment_is_found_again(kubeflow, package):
    for _ in range(2):
        submit(package, host=kubeflow.url, token=TOKEN, arguments=REMOTE)
    assert len(kubeflow.state["experiments"]) == 1
    assert len(kubeflow.state["runs"]) == 2


def test_wrong_token(kubeflow, package):
    with pytest.raises(
        InvalidInput, match=r"the server refused \(401 .*give a valid token"
    ) as caught:
        submit(package, host=kubeflow.url, token="wrong", arguments=REMOTE)
    assert "wrong" not in str(caught.value)
    assert kubeflow.state["runs"] == []


def test_nobody_answers(package):
    with pytest.raises(InvalidInput, match="no Kubeflow Pipelines API answers there"):
        submit(package, host="http://127.0.0.1:9", arguments=REMOTE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({**REMOTE, "modle_uri": "x"}, "modle_uri: the pipeline has no such parameter"),
        (
            {"mlflow_tracking_uri": "http://m"},
            "model_uri = '/home/me/m.skops': lies on this machine",
        ),
        ({"model_uri": "s3://m/x"}, "mlflow_tracking_uri = 'sqlite:///mlflow.db': lies on this"),
    ],
)
def test_parameters_that_a_pod_cannot_use(kubeflow, package, arguments, said):
    with pytest.raises(InvalidInput, match=said):
        submit(package, host=kubeflow.url, token=TOKEN, arguments=arguments)
    assert kubeflow.state["calls"] == []


def test_not_a_pipeline(tmp_path):
    file = tmp_path / "p.yaml"
    with pytest.raises(InvalidInput, match="the file is missing"):
        submit(file, host="http://127.0.0.1:9")
    file.write_text("a: 1\n")
    with pytest.raises(InvalidInput, match="is not a compiled pipeline"):
        submit(file, host="http://127.0.0.1:9")
