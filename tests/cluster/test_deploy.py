"""Deploying without Git: the command and the task, against a real API server."""

import functools
import threading
import uuid
from contextlib import contextmanager

import pytest
import yaml
from cluster.test_kserve import Controller
from ops.test_promotion import call, finished

from trimgate import tasks
from trimgate.config import load_config
from trimgate.errors import InvalidInput
from trimgate.models.directory import read
from trimgate.ops.kserve import Cluster, ClusterError, live_release


@contextmanager
def controller(cluster, name):
    """Plays KServe's controller while the block runs."""
    stop = threading.Event()

    def settle():
        while not stop.wait(0.1):
            if cluster.get("InferenceService", name):
                Controller(cluster, name).settle()

    thread = threading.Thread(target=settle)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def project(tmp_path, cluster, kubeconfig, monkeypatch):
    """A folder with a config that deploys, and two runs that passed."""
    name = f"m{uuid.uuid4().hex[:8]}"
    (tmp_path / "volume").mkdir()
    config = {
        "name": name,
        "model": {"path": "model.skops"},
        "data": {"path": "rows.parquet", "label": "fraud"},
        "mlflow": {"enabled": False},
        "promote": {"store": "pvc://models/trimgate", "mounts": {"models": "volume"}},
        "serving": {"logger": {"url": "http://sink"}},
        "deploy": {"namespace": cluster.namespace},
    }
    (tmp_path / "optimize.yaml").write_text(yaml.safe_dump(config))
    for number, run in enumerate(("one", "two"), 1):
        finished(tmp_path, run, float(number), name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    soon = functools.partialmethod(Cluster.wait_ready, settle=0.3, interval=0.1)
    monkeypatch.setattr(Cluster, "wait_ready", soon)
    return tmp_path


def published(project, run):
    section = load_config("optimize.yaml").promote
    settings = section.model_dump(mode="json", exclude={"store"}, exclude_none=True)
    uri = tasks.publish(
        str(project / "winners" / run), str(project / "trimgate-runs" / run), store=section.store,
        settings=settings, version="", tracking_uri="", registered_model="",
    )  # fmt: skip
    return uri, settings


def test_deployed_by_a_pipeline_then_a_canary_by_hand(project, cluster, capsys):
    config = load_config("optimize.yaml")
    tasks.check_deploy(config)
    assert cluster.get("InferenceService", config.name) is None, "asked, and not written"
    uri, settings = published(project, "one")
    with controller(cluster, config.name):
        tasks.deploy_kserve(
            uri, str(project / "trimgate-runs" / "one"), name=config.name, verdict="pass",
            store=config.promote.store, settings=settings, namespace=cluster.namespace,
            serving=config.serving.model_dump(mode="json", exclude_unset=True),
        )  # fmt: skip
        live = cluster.get("InferenceService", config.name)
        assert live_release(live).stable.digest == read(project / "winners/one").digest
        predictor = live["spec"]["predictor"]
        assert predictor["logger"]["url"] == "http://sink"
        assert predictor["model"]["args"] == ["--threads=1"]
        memory = predictor["model"]["resources"]["limits"]["memory"]
        assert memory not in ("1Gi", "1024Mi"), "of what was measured, not the default"

        published(project, "two")
        code, out, _ = call(capsys, "deploy", "two", "--percent", 10)
        assert code == 0
        assert "to 10 %" in out
        live = cluster.get("InferenceService", config.name)
        assert live_release(live).traffic_percent == 10
        # what was measured of a model is not known on another machine: the service keeps it
        for card in (project / "trimgate-runs").glob("*/card.json"):
            card.unlink()
        second = next(m for m in (project / "volume/trimgate" / config.name).iterdir()
                      if m.name not in uri)  # fmt: skip
        code, out, _ = call(capsys, "deploy", f"pvc://models/trimgate/{config.name}/{second.name}/")
        assert code == 0, out
        live = cluster.get("InferenceService", config.name)
        assert live_release(live).stable.digest == read(project / "winners/two").digest
        assert live["spec"]["predictor"]["model"]["resources"]["limits"]["memory"] == memory


def test_what_cannot_be_deployed_is_refused_first(project, cluster, capsys, monkeypatch):
    config = load_config("optimize.yaml")
    uri, settings = published(project, "one")
    file = next((project / "volume/trimgate" / config.name).glob("*/model.onnx"))
    good = file.read_bytes()
    file.write_bytes(good + b"\0")
    code, out, err = call(capsys, "deploy", uri)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "was altered after it was published" in err
    assert cluster.get("InferenceService", config.name) is None
    file.write_bytes(good)
    with pytest.raises(InvalidInput, match="only a model that passed"):
        tasks.deploy_kserve(
            uri, str(project / "trimgate-runs/one"), name=config.name, verdict="fail",
            store=config.promote.store, settings=settings, namespace="", serving={},
        )  # fmt: skip
    code, _, err = call(capsys, "deploy", "fraud")
    assert (code, err.count("\n")) == (2, 1)
    assert "is no run" in err
    raw = yaml.safe_load((project / "optimize.yaml").read_text())
    (project / "other.yaml").write_text(yaml.safe_dump({**raw, "name": "other"}))
    code, _, err = call(capsys, "deploy", uri, "--config", "other.yaml")
    assert (code, err.count("\n")) == (2, 1)
    assert "is another model than the config's" in err
    monkeypatch.setattr(Cluster, "get", lambda *_: {"metadata": {"name": config.name}, "spec": {}})
    with pytest.raises(InvalidInput, match="was not deployed by trimgate"):
        tasks.check_deploy(config)


def test_a_cluster_that_is_away_ends_the_run_before_it_begins(project, monkeypatch):
    config = load_config("optimize.yaml")
    raw = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "x"}}],
    }  # fmt: skip
    (project / "away").write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("KUBECONFIG", str(project / "away"))
    with pytest.raises(ClusterError, match="no API server answers at"):
        tasks.check_deploy(config)
