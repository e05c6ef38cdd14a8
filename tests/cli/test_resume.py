"""Runs that are stopped half-way, run again, run at the same time, and with other input."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import released
from skops import io
from trimgate.pipelines.optimize import build

from trimgate.cli._common import plan_from
from trimgate.models.directory import read
from trimgate.ops.kfp_local import code_digest, run_local

FIRST = "check and split rows"
JUDGED = "baseline: quality on validation"


@pytest.fixture(scope="module")
def stopped(project, helpers):
    """The project after a run was terminated, and a second one killed, half-way."""
    config = project / "optimize.yaml"
    first = helpers.Running(config).until(f"{JUDGED}: done").until(": ...")
    below = first.below()
    terminated = first.stop(signal.SIGTERM)
    left = [pid for pid in below if helpers.alive(pid)]
    second = helpers.Running(config).until("ONNX: quality on validation: done").until(": ...")
    orphans = second.below()
    second.stop(signal.SIGKILL)
    return first, below, terminated, left, second, orphans


@pytest.fixture(scope="module")
def finished(project, helpers, stopped):
    """Two runs at the same time, after the two that were stopped."""
    helpers.gone(stopped[-1])
    runs = [helpers.Running(project / "optimize.yaml") for _ in range(2)]
    return [(run.end(), run) for run in runs]


def test_terminated(project, helpers, stopped):
    first, below, (code, error), left, *_ = stopped
    assert code == 128 + signal.SIGTERM
    assert "Traceback" not in error
    assert below
    assert not left
    assert {FIRST, "baseline", JUDGED} <= set(first.started())


def test_killed(helpers, stopped):
    *_, second, orphans = stopped
    # What the first run had done is taken from it.
    assert second.started()
    assert not {FIRST, "baseline", JUDGED} & set(second.started())
    assert orphans
    assert helpers.gone(orphans)


def test_nothing_half_written(project, helpers, finished):
    assert not helpers.half_written(project)
    for file in project.rglob("model.json"):
        read(file.parent, verify=True)


def test_runs_at_the_same_time(project, finished):
    cards = []
    for (code, error), run in finished:
        assert code == 0, error
        assert not error
        assert FIRST not in run.started()
        assert JUDGED not in run.started()
        text = "\n".join(run.lines)
        assert "tasks, " in text
        assert "of them from earlier runs" in text
        (card,) = [line.split()[1] for line in run.lines if line.startswith("card ")]
        cards.append(json.loads(Path(card).with_name("card.json").read_text()))
    assert cards[0]["run"] != cards[1]["run"]
    for key in ("winner", "baseline_test", "winner_test"):
        assert json.dumps(cards[0][key]) == json.dumps(cards[1][key])
    assert [c["selection"]["winner"] for c in cards] == ["ONNX", "ONNX"]


def test_result_equals_an_undisturbed_run(project, finished, tmp_path):
    """The model that was made after the interruptions is the one that a run in one go makes."""
    from trimgate.data import load_splits
    from trimgate.models import ModelSource, import_model
    from trimgate.plan import sample
    from trimgate.targets import PROFILES
    from trimgate.techniques import Context, get, parse_step

    splits = load_splits(project / "rows.parquet", label="target", method="random")
    source = ModelSource(path=project / "model.skops", name="cancer", task="binary")
    import_model(source, sample(splits.train), tmp_path / "baseline")
    context = Context(
        train=splits.train, validation=splits.validation, metric="accuracy",
        target=PROFILES["cloud-cpu"], seed=0,
    )  # fmt: skip
    step = parse_step({"technique": "optimize_graph"})
    made = get("optimize_graph").apply(tmp_path / "baseline", tmp_path / "onnx", step, context)
    release, _ = released(project / "optimize.yaml")
    assert release.digest == made.digest


def test_rejected(project, helpers, finished):
    """The rule is one that only the gate looks at, so that there is a winner to reject."""
    before = released(project / "optimize.yaml")
    gate = {"max_drop": {"accuracy": 0.02}, "max_served_p99_ms": 1e-6}
    config = helpers.quick_config(project, "strict.yaml", gate=gate)
    run = helpers.Running(config, "--fail-on-reject")
    assert run.end() == (3, "")
    assert run.started()[0] == "select the winner"
    text = "\n".join(run.lines)
    assert "REJECTED" in text
    assert "✗ max_served_p99_ms: " in text
    assert not any(line.startswith("released ") for line in run.lines)
    assert helpers.Running(config).end() == (0, "")
    assert released(project / "optimize.yaml") == before


# --------------------------------------------------------------------- what is taken from a run


class Stop(BaseException):
    """The first task that would be carried out."""


@pytest.fixture(scope="module")
def settled(project, helpers, finished):
    """One more run: of two at the same time each may have kept some of the tasks."""
    assert helpers.Running(project / "optimize.yaml").end() == (0, "")


@pytest.fixture
def again(project, settled, tmp_path, monkeypatch):
    """Gives the first task that the same project would carry out now."""
    kept = tmp_path / "kept"
    shutil.copytree(project, kept, copy_function=shutil.copy2)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))

    def first(**changes) -> str:
        config = project / "optimize.yaml"
        if changes:
            import yaml

            raw = yaml.safe_load(config.read_text())
            config = project / "changed.yaml"
            config.write_text(yaml.safe_dump({**raw, **changes}))
        started = []

        def on_event(event):
            if event.kind == "start":
                started.append(event.task)
                raise Stop

        with pytest.raises(Stop):
            run_local(
                build(plan_from(str(config)), code=code_digest()), {"run": "again"},
                root=project / "trimgate-runs" / "work", log=tmp_path / "log.txt",
                on_event=on_event,
            )  # fmt: skip
        return started[0]

    yield first
    shutil.rmtree(project)
    shutil.copytree(kept, project, copy_function=shutil.copy2)


LAST = {"card", "promote"}  # the card names its run, and a release is never taken from a cache


def test_nothing_changed(again):
    assert again() in LAST


def test_other_rows(project, again):
    frame = pd.read_parquet(project / "rows.parquet")
    frame[:-1].to_parquet(project / "rows.parquet", index=False)
    assert again() == FIRST


def test_other_model(project, again):
    model = io.load(project / "model.skops", trusted=io.get_untrusted_types(
        file=project / "model.skops"))  # fmt: skip
    model.init_.class_prior_ = np.array([0.4, 0.6])
    io.dump(model, project / "model.skops")
    assert again() == "baseline"


def test_other_metric(again):
    # The runner is free in the order of tasks that do not wait for each other.
    tasks = {JUDGED, "baseline: quality on test", "ONNX"}
    assert again(metric="roc_auc", gate={"max_drop": {"roc_auc": 0.02}}) in tasks


def test_other_gate(again):
    assert again(gate={"max_drop": {"accuracy": 0.03}}) == "select the winner"


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"\xff\xfe", b'{"train": {"uri": 1}}'])
def test_damaged_cache_entry(project, again, content):
    for file in (project / "trimgate-runs" / "work" / "cache").glob("*.json"):
        file.write_bytes(content)
    assert again() == FIRST


def _made(project: Path, name: str) -> Path:
    return next(f for f in sorted(project.rglob(name)) if "work" in f.parts)


def test_deleted_artifact(project, again):
    shutil.rmtree(_made(project, "model.skops").parent)
    assert again() == "baseline"


def test_deleted_file_of_an_artifact(project, again):
    _made(project, "model.skops").unlink()
    assert again() == "baseline"


def test_altered_file_of_an_artifact(project, again):
    file = _made(project, "rows.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    assert again() == FIRST
