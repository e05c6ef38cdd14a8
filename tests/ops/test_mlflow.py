"""The registry, on a real MLflow server with PostgreSQL."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from ops.models_to_publish import model
from ops.postgres import MlflowServer, Postgres, programs
from report.sample_edge_cards import SAMPLES

from trimgate.config import load_config
from trimgate.errors import InvalidInput
from trimgate.models.directory import read
from trimgate.ops import mlflow as registry
from trimgate.ops.mlflow import (
    RegistryError,
    record_published,
    record_run,
    resolve,
    set_champion,
)
from trimgate.ops.signing import sign
from trimgate.ops.store import open_store
from trimgate.tasks import fetch_model


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


@pytest.mark.parametrize("attempt", range(3))
def test_two_runs_at_once(server, tmp_path, attempt):
    """Both make the model, and both set its alias, for the first time."""
    name = f"both{attempt}"
    runs = [f"{name}-left", f"{name}-right"]
    with ThreadPoolExecutor() as pool:
        recorded = pool.map(lambda run: record(server, tmp_path / run, run, name=name), runs)
        versions = dict(zip(runs, recorded, strict=True))
    assert sorted(versions.values()) == ["1", "2"]
    for run, version in versions.items():
        found = registry.version_of(f"models:/{name}/{version}", tracking_uri=server.url)
        assert found.run == run
    newest = registry.version_of(f"models:/{name}@challenger", tracking_uri=server.url)
    assert newest.version == "2"


def test_the_slower_of_two_runs_leaves_the_newest_as_challenger(server, tmp_path, monkeypatch):
    """The faster run makes its version, and sets the alias, just before the slower one does."""
    of_client = MlflowClient.set_registered_model_alias
    faster = iter(["fast"])

    def overtaken(client, *arguments):
        for run in faster:
            record(server, tmp_path, run, name="overtaken")
        of_client(client, *arguments)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", overtaken)
    assert record(server, tmp_path, "slow", name="overtaken") == "1"
    found = registry.version_of("models:/overtaken@challenger", tracking_uri=server.url)
    assert (found.version, found.run) == ("2", "fast")


def test_an_alias_that_another_made_meanwhile(server, tmp_path, monkeypatch):
    version = record(server, tmp_path, "alias", name="alias")
    taken = MlflowException("duplicate key value", error_code=BAD_REQUEST)
    answers = iter([taken])
    of_client = MlflowClient.set_registered_model_alias

    def second_time(client, *arguments):
        for error in answers:
            raise error
        of_client(client, *arguments)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", second_time)
    set_champion("alias", version, tracking_uri=server.url)
    found = registry.version_of("models:/alias@champion", tracking_uri=server.url)
    assert found.version == version


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


def test_a_server_that_is_away_is_one_line(monkeypatch):
    monkeypatch.setattr(registry.time, "sleep", lambda _: None)
    with pytest.raises(RegistryError, match=r"^MLflow at http://127.0.0.1:9 cannot be reached"):
        resolve("models:/fraud@champion", tracking_uri="http://127.0.0.1:9")


def test_a_run_begins_with_a_version(server, tmp_path, keys):
    directory = model(tmp_path / "model", name="kept")
    digest = read(directory).digest
    sign(directory, key=keys / "a.pem")
    uri = open_store(tmp_path / "store").put(directory)
    client = MlflowClient(tracking_uri=server.url)
    client.create_registered_model("kept")
    run = client.create_run("0").info
    tags = {"trimgate.digest": digest, "trimgate.verdict": "pass"}
    client.create_model_version("kept", f"{run.artifact_uri}/m", run_id=run.run_id, tags=tags)
    set_champion("kept", "1", tracking_uri=server.url)

    def begin(path="models:/kept@champion", **changes):
        raw = {
            "name": "kept", "model": {"path": path}, "data": {"path": "d.parquet", "label": "y"},
            "mlflow": {"tracking_uri": server.url}, **changes,
        }  # fmt: skip
        (tmp_path / "optimize.yaml").write_text(yaml.safe_dump(raw))
        config = load_config(tmp_path / "optimize.yaml")
        return fetch_model(config, tmp_path / "models", "optimize.yaml")

    with pytest.raises(InvalidInput, match=r"^optimize\.yaml: model\.path = .*is not published"):
        begin()
    record_published("kept", "1", uri, tracking_uri=server.url)
    config, found = begin(promote={"signing": {"verify_key": str(keys / "a.pub")}})
    assert found == uri
    place = Path(config.model.path)
    assert place.parent == tmp_path / "models"
    assert place.name in uri
    assert read(place, verify=True).digest == digest
    # what was fetched is there, also when the store is not
    shutil.rmtree(tmp_path / "store")
    assert begin("models:/kept/1")[0] == config.model_copy(update={"promote": begin()[0].promote})
    for changes, words in (
        ({"path": "models:/kept/7"}, "there is no such version in the registry"),
        ({"path": "models:/kept"}, "is no URI of a model version; give models:/<name>@<alias>"),
        ({"mlflow": {"enabled": False}}, "needs the registry"),
        ({"promote": {"signing": {"verify_key": str(keys / "b.pub")}}}, "another key signed it"),
    ):
        with pytest.raises(InvalidInput, match=words):
            begin(**changes)
    (place / "model.onnx").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="was altered"):
        begin()
    assert begin("model.onnx")[1] == ""


@pytest.mark.parametrize("uri", ["models:/fraud", "models:/fraud/latest", "fraud@champion"])
def test_what_is_no_version(uri):
    with pytest.raises(InvalidInput, match="is no URI of a model version"):
        resolve(uri, tracking_uri="sqlite:///unused.db")
