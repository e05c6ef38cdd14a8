"""The registry, on a real MLflow server with PostgreSQL."""

import threading

import pytest
from mlflow import MlflowClient
from ops.models_to_publish import model
from ops.postgres import MlflowServer, Postgres, programs
from report.sample_edge_cards import SAMPLES

from trimgate.errors import InvalidInput
from trimgate.ops import mlflow as registry
from trimgate.ops.mlflow import record_published, record_run, resolve, set_champion


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An MLflow server on a PostgreSQL of its own."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    database = Postgres()
    mlflow = MlflowServer("", tmp_path_factory.mktemp("mlflow"))
    try:
        mlflow.backend = database.start()
        mlflow.start()
        yield mlflow
    finally:
        mlflow.kill()
        database.stop()


def record(server, folder, run, outcome="pass", name="fraud"):
    folder.mkdir(exist_ok=True)
    files = folder / f"{run}-files"
    files.mkdir(exist_ok=True)
    for suffix in ("md", "html", "json"):
        (files / f"card.{suffix}").write_text("card")
    winner = folder / f"{run}-model"
    if not winner.exists():
        model(winner)
    return record_run(
        SAMPLES["passing"]().model_copy(update={"run": run}),
        files,
        winner,
        outcome=outcome,
        tracking_uri=server.url,
        experiment="tests",
        registered_model=name,
    )


def test_a_version_from_challenger_to_champion(server, tmp_path):
    version = record(server, tmp_path, "run-1")
    assert record(server, tmp_path, "run-1") == version, "recorded once"
    where = {"tracking_uri": server.url}
    found = registry.version_of(f"models:/fraud/{version}", **where)
    card = SAMPLES["passing"]()
    assert (found.digest, found.verdict, found.run) == (card.winner.digest, "pass", "run-1")
    with pytest.raises(InvalidInput, match="is not published"):
        resolve("models:/fraud@challenger", **where)
    record_published("fraud", version, "s3://models/fraud/aa/", **where)
    assert resolve("models:/fraud@challenger", **where).uri == "s3://models/fraud/aa/"
    assert resolve(f"models:/fraud/{version}", **where).version == version
    with pytest.raises(InvalidInput, match="no such version"):
        resolve("models:/fraud@champion", **where)
    set_champion("fraud", version, **where)
    server.kill()
    server.start()
    assert resolve("models:/fraud@champion", **where).version == version
    second = record(server, tmp_path, "run-2")
    assert int(second) == int(version) + 1
    assert registry.version_of("models:/fraud@challenger", **where).version == second
    assert resolve("models:/fraud@champion", **where).version == version


def test_two_runs_at_once(server, tmp_path):
    versions, errors = {}, []

    def one(run):
        try:
            versions[run] = record(server, tmp_path / run, run, name="both")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(run,)) for run in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(versions.values()) == ["1", "2"]
    for run, version in versions.items():
        found = registry.version_of(f"models:/both/{version}", tracking_uri=server.url)
        assert found.run == run


@pytest.mark.parametrize(("owner", "call"), [(registry, "_child"), (MlflowClient, "set_tag")])
def test_an_interrupted_recording_is_replaced(server, tmp_path, monkeypatch, owner, call):
    """Before the version is made, and after it."""
    name = f"cut{call}"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(owner, call, stop)
        with pytest.raises(KeyboardInterrupt):
            record(server, tmp_path, name, name=name)
    version = record(server, tmp_path, name, name=name)
    client = MlflowClient(tracking_uri=server.url)
    where = client.get_experiment_by_name("tests").experiment_id
    runs = client.search_runs([where], f"tags.`trimgate.run` = '{name}'")
    assert [v.version for v in client.search_model_versions(f"name = '{name}'")] == [version]
    parents = [r for r in runs if r.data.tags["trimgate.kind"] == "run"]
    assert [r.info.status for r in parents] == ["FINISHED"]
    assert len(runs) - 1 == len(SAMPLES["passing"]().candidates)


def test_only_what_passed(server, tmp_path):
    assert record(server, tmp_path, "failed", outcome="fail", name="none") == ""
    with pytest.raises(InvalidInput, match="no such version"):
        set_champion("none", "1", tracking_uri=server.url)
    client = MlflowClient(tracking_uri=server.url)
    client.create_registered_model("foreign")
    run = client.create_run("0").info
    client.create_model_version("foreign", f"{run.artifact_uri}/model", run_id=run.run_id)
    with pytest.raises(InvalidInput, match="not registered by trimgate"):
        resolve("models:/foreign/1", tracking_uri=server.url)


@pytest.mark.parametrize("uri", ["models:/fraud", "models:/fraud/latest", "fraud@champion"])
def test_what_is_no_version(uri):
    with pytest.raises(InvalidInput, match="is no URI of a model version"):
        resolve(uri, tracking_uri="sqlite:///unused.db")
