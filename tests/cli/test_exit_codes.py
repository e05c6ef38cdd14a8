"""What the command ends with, and what it says then."""

import os
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from skops import io

import trimgate.plan
from trimgate.cli import main


@pytest.fixture
def home(project, tmp_path, monkeypatch):
    """A folder that the command is called in, with nothing from earlier runs."""
    for name in ("model.skops", "rows.parquet", "optimize.yaml"):
        shutil.copyfile(project / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    return tmp_path


def one_line(error: str) -> str:
    assert error.count("\n") == 1, error
    assert error.startswith("trimgate: ")
    assert "Traceback" not in error
    return error.removeprefix("trimgate: ").strip()


def test_killed_worker(helpers, home):
    run = helpers.Running("optimize.yaml").until("check and split rows: ...")
    os.kill(run.below()[-1], signal.SIGKILL)
    code, error = run.end()
    assert code == 1
    line = one_line(error)
    assert "the task 'check and split rows' failed: its process was killed" in line
    log = Path(line.rpartition(" is in ")[2])
    assert log.is_file()
    assert "Traceback" not in "\n".join(run.lines)


def test_interrupted(helpers, home):
    # Python takes no notice of Ctrl-C where a shell started the tests in the background.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    run = helpers.Running("optimize.yaml", **heeding).until("check and split rows: ...")
    below = run.below()
    code, error = run.stop(signal.SIGINT)
    assert code == 130
    assert one_line(error) == "interrupted; the same command goes on from what is done"
    assert helpers.gone(below, 0)
    assert not helpers.half_written(home)


def test_bad_input_found_by_a_task(home, monkeypatch, capsys):
    """Here a file that changed while the run was planned."""
    monkeypatch.setattr(trimgate.plan, "files_digest", lambda _: "0" * 64)
    assert main(["run", "optimize.yaml"]) == 2
    line = one_line(capsys.readouterr().err)
    assert line == f"{home}/rows.parquet: changed since the run was planned; start the run again"
    assert not list((home / "trimgate-runs").glob("cancer-*"))


@pytest.fixture
def small(home):
    """A tiny model and many rows: the rows are what fills the disk."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(20_000, 4)), columns=list("abcd"))
    rows["target"] = (rows["a"] + rng.normal(size=len(rows)) > 0).astype(int)
    rows.to_parquet(home / "rows.parquet", index=False)
    model = LogisticRegression().fit(rows[list("abcd")][:1000], rows["target"][:1000])
    io.dump(model, home / "model.skops")
    return home


def limited(size: int):
    """Options of a process whose files may not grow larger, as on a disk that is full."""
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}


def test_no_space_for_a_task(helpers, small):
    run = helpers.Running("optimize.yaml", **limited(200_000))
    code, error = run.end()
    assert code == 1
    line = one_line(error)
    assert "the task 'check and split rows' failed: " in line
    assert "File too large" in line
    assert not helpers.half_written(small)
    assert not list(small.rglob("dataset.json"))


def test_no_space_to_begin_with(helpers, small):
    run = helpers.Running("optimize.yaml", **limited(100))
    code, error = run.end()
    assert code == 1
    assert "File too large; free some space, and the same command goes on" in one_line(error)
    assert not (small / "trimgate-runs").exists()


def test_no_space_for_the_log(home, monkeypatch, capsys):
    monkeypatch.setattr("trimgate.pipelines.optimize.compile_yaml", _full)
    assert main(["run", "optimize.yaml"]) == 1
    line = one_line(capsys.readouterr().err)
    assert line.startswith("pipeline.yaml: No space left on device; free some space, and the same")
    assert not list((home / "trimgate-runs").iterdir())


def _full(*_):
    raise OSError(28, "No space left on device", "pipeline.yaml")
