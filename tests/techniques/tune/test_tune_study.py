"""Studies that are killed, shared by processes, or have several objectives."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trimgate.processes import descendants
from trimgate.techniques import Context, parse_step
from trimgate.techniques.tune import TECHNIQUE, Choices, Range, Subset, TuneConfig, _tasks
from trimgate.techniques.tune._choose import best
from trimgate.techniques.tune._space import Space
from trimgate.techniques.tune._study import LOG, mend_log
from trimgate.training import Measure

SPACE = {"C": {"low": 1e-4, "high": 100.0, "log": True}}


def tune(**said: Any) -> TuneConfig:
    config = parse_step({"technique": "tune", **said})
    assert isinstance(config, TuneConfig)
    return config


@pytest.fixture
def weak(cancer: Context, bring: Any, matrix: Any) -> Path:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-4, random_state=0))
    return bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)


# Applies the step in a process of its own; each trial takes a while and leaves a line.
CHILD = """
import json, sys, time
from pathlib import Path
from trimgate.data.dataset import Dataset
from trimgate.targets import Target
from trimgate.techniques import Context, parse_step
from trimgate.techniques.tune import TECHNIQUE, _tasks

job = json.loads(sys.argv[1])
evaluate = _tasks.TrainTask.evaluate
def slow(self, parameters, report):
    with open(job["lines"], "a") as stream:
        stream.write(json.dumps(parameters) + "\\n")
    time.sleep(job["pause"])
    return evaluate(self, parameters, report)
_tasks.TrainTask.evaluate = slow
context = Context(Dataset.load(job["train"]), Dataset.load(job["validation"]), "log_loss",
                  Target(name="test"), seed=0, work=Path(job["work"]))
TECHNIQUE.apply(Path(job["source"]), Path(job["out"]), parse_step(job["step"]), context)
"""


def start(job: dict[str, Any]) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(job)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes", "nsga2", "grid"])
def test_a_killed_study_goes_on(
    sampler: str, weak: Path, cancer: Context, tmp_path: Path
) -> None:
    space = {**SPACE, "tol": {"low": 1e-5, "high": 1e-2, "log": True}}
    step = {"technique": "tune", "space": space, "sampler": sampler, "trials": 8}
    cancer.train.save(tmp_path / "train")
    cancer.validation.save(tmp_path / "validation")
    job = {
        "source": str(weak), "out": str(tmp_path / "out"), "work": str(tmp_path / "work"),
        "train": str(tmp_path / "train"), "validation": str(tmp_path / "validation"),
        "lines": str(tmp_path / "lines"), "pause": 0.3, "step": step,
    }  # fmt: skip
    child = start(job)
    deadline = time.monotonic() + 120
    while len(lines(tmp_path / "lines")) < 4 and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    begun = lines(tmp_path / "lines")
    assert 4 <= len(begun) < 8
    assert not (tmp_path / "out").exists()

    work = replace(cancer, work=tmp_path / "work")
    tried: list[str] = []
    evaluate = _tasks.TrainTask.evaluate
    with pytest.MonkeyPatch.context() as patch:

        def noted(self: Any, parameters: Any, report: Any) -> Any:
            tried.append(json.dumps(parameters))
            return evaluate(self, parameters, report)

        patch.setattr(_tasks.TrainTask, "evaluate", noted)
        info = TECHNIQUE.apply(weak, tmp_path / "out", parse_step(step), work)
    # the trial that was cut off is tried again, and none of those that were finished
    assert begun[-1] in (tried if sampler == "grid" else tried[:1])
    assert not set(tried) & set(begun[:-1])
    assert len(tried) + len(begun) - 1 == 8
    assert info.notes["tune"]["trials"] == info.notes["tune"]["complete"] == 8
    if sampler != "nsga2":  # its parents may come from the trial that was cut off
        whole = TECHNIQUE.apply(weak, tmp_path / "whole", parse_step(step), cancer)
        assert whole.digest == info.digest


def test_workers_end_with_the_process_that_started_them(
    weak: Path, cancer: Context, tmp_path: Path
) -> None:
    step = {"technique": "tune", "space": SPACE, "sampler": "random", "trials": 80, "workers": 2}
    cancer.train.save(tmp_path / "train")
    cancer.validation.save(tmp_path / "validation")
    job = {
        "source": str(weak), "out": str(tmp_path / "out"), "work": str(tmp_path / "work"),
        "train": str(tmp_path / "train"), "validation": str(tmp_path / "validation"),
        "lines": str(tmp_path / "lines"), "pause": 0, "step": step,
    }  # fmt: skip
    child = start(job)
    log, deadline = tmp_path / "work" / LOG, time.monotonic() + 200
    while len(lines(log)) < 30 and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.02)
    workers = descendants(child.pid)
    assert len(workers) >= 1
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    work = replace(cancer, work=tmp_path / "work")
    notes = TECHNIQUE.apply(weak, tmp_path / "out", parse_step(step), work).notes["tune"]
    assert notes["trials"] == notes["complete"] == 80


def test_what_a_kill_leaves_is_mended(tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(b'{"a":1}\n{"b":')
    (tmp_path / f"{LOG}.lock").symlink_to(tmp_path / LOG)
    mend_log(tmp_path)
    assert (tmp_path / LOG).read_bytes() == b'{"a":1}\n'
    assert [file.name for file in tmp_path.iterdir()] == [LOG]


def test_workers_share_a_study(weak: Path, cancer: Context, tmp_path: Path) -> None:
    context = replace(cancer, work=tmp_path / "work")
    config = tune(space=SPACE, trials=7, workers=2, pruner="median")
    notes = TECHNIQUE.apply(weak, tmp_path / "out", config, context).notes["tune"]
    assert notes["trials"] == 7
    assert notes["complete"] + notes["pruned"] == 7
    assert notes["metric_after"] < notes["metric_before"]
    # nothing is left to do, and nothing is done again
    log = (tmp_path / "work" / LOG).read_bytes()
    TECHNIQUE.apply(weak, tmp_path / "again", config, context)
    assert (tmp_path / "work" / LOG).read_bytes().count(b"\n") <= log.count(b"\n") + 2


def test_a_worker_that_dies_costs_one_trial(
    weak: Path, cancer: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker to begin a trial ends itself, as the kernel does when memory is short."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"mark = {str(tmp_path / 'mark')!r}\n"
        "def die(*_):\n"
        "    try:\n"
        "        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))\n"
        "    except FileExistsError:\n"
        "        return\n"
        "    os.kill(os.getpid(), 9)\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'sklearn.linear_model._linear_loss' or name == 'cmaes':\n"
        "            die()\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    space = {**SPACE, "tol": {"low": 1e-5, "high": 1e-2, "log": True}}
    # cmaes is imported when a worker draws its first trial
    config = tune(space=space, trials=6, workers=2, sampler="cmaes")
    context = replace(cancer, work=tmp_path / "work")
    notes = TECHNIQUE.apply(weak, tmp_path / "out", config, context).notes["tune"]
    assert (tmp_path / "mark").exists()
    assert notes["trials"] == notes["complete"] == 6


def test_the_front_and_the_rule(
    cancer: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    context = replace(cancer, metric="roc_auc")
    model = RandomForestClassifier(60, random_state=0, n_jobs=1)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    config = tune(
        sampler="nsga2", objectives=["metric", "latency"], trials=9, tolerance=0.02,
        space={"n_estimators": {"low": 2, "high": 60, "log": True},
               "max_depth": {"choices": [1, 6]}},
    )  # fmt: skip
    info = TECHNIQUE.apply(source, tmp_path / "out", config, context)
    notes = info.notes["tune"]
    front = notes["front"]
    assert all(
        a["metric"] > b["metric"] or a["latency"] < b["latency"]
        for a in front for b in front if a != b
    )  # fmt: skip
    top = max(point["metric"] for point in front)
    near = [point for point in front if point["metric"] >= top - 0.02]
    assert notes["best"] == min(near, key=lambda point: point["latency"])
    assert notes["best"]["latency"] < 1
    assert info.recipe[-1]["technique"] == "tune"


def test_size_is_an_objective_that_repeats(
    cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = RandomForestClassifier(40, random_state=0, n_jobs=1)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    config = tune(objectives=["metric", "size"], trials=5, tolerance=0.1)
    context = replace(cancer, metric="roc_auc")
    info = conformance.check(TECHNIQUE, config, source, context, tmp_path)
    assert info.notes["tune"]["best"]["size"] < 1


class Tried:
    def __init__(self, number: int, *values: float) -> None:
        self.number, self.values = number, values


def test_the_fastest_within_the_tolerance_is_taken() -> None:
    measure = Measure("accuracy", np.zeros(2), (0, 1))
    trials = [Tried(0, 0.95, 1.0), Tried(1, 0.946, 0.5), Tried(2, 0.90, 0.1), Tried(3, 0.949, 0.5)]
    chosen = best(trials, ("metric", "latency"), measure, 0.005)
    assert chosen.number == 3  # as fast as 1, and better
    assert best(trials, ("metric",), measure, 0.005).number == 0
    error = Measure("rmse", np.zeros(2))
    rising = [Tried(0, 10.0, 1.0), Tried(1, 10.04, 0.5), Tried(2, 10.2, 0.1)]
    assert best(rising, ("metric", "latency"), error, 0.005).number == 1


RANGES = st.one_of(
    st.builds(
        lambda low, more, log: Range(low=low, high=low + more, log=log),
        st.integers(1, 20), st.integers(0, 50), st.booleans(),
    ),
    st.builds(
        lambda low, more, log: Range(low=low, high=low + more, log=log, integer=False),
        st.floats(1e-3, 10), st.floats(0, 10), st.booleans(),
    ),
    st.builds(
        lambda low, count, step: Range(low=low, high=low + count * step, step=step),
        st.integers(0, 9), st.integers(0, 6), st.integers(1, 4),
    ),
    st.builds(
        lambda values: Choices(choices=tuple(values)),
        st.lists(
            st.one_of(st.text(max_size=3), st.integers(), st.none(), st.lists(st.integers())),
            min_size=1, max_size=4, unique_by=repr,
        ),
    ),
    st.builds(lambda names: Subset(subset=tuple(names)),
              st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["p", "q", "r"]), RANGES, min_size=1), st.integers(1, 9))
def test_points_of_a_grid_are_read_back(parameters: dict[str, Any], most: int) -> None:
    space = Space.of(parameters, {})
    points = space.grid(most, 0)
    assert 1 <= len(points) <= most
    assert len({json.dumps(point) for point in points}) == len(points)
    for point in points:
        values = space.decoded(point)
        assert set(values) == set(parameters)
        assert space.encoded(values) == point


def test_numbers_know_their_kind() -> None:
    space = Space.of(
        {"a": Range(low=0, high=1), "b": Range(low=0, high=1),
         "c": Choices(choices=(0.5, 1)), "d": Choices(choices=("sqrt", 1))},
        {"a": 0.3, "b": 1, "d": 0.3},
    )  # fmt: skip
    a, b, c, d = space.parameters.values()
    assert isinstance(a, Range)
    assert isinstance(b, Range)
    assert (a.integer, b.integer) == (False, True)
    assert c == Choices(choices=(0.5, 1.0))
    assert isinstance(d, Choices)
    assert [type(choice) for choice in d.choices] == [str, float]


def test_a_large_grid_is_sampled_without_being_made() -> None:
    space = Space.of({"x": Subset(subset=tuple(f"n{i}" for i in range(60)))}, {})
    assert len(space.grid(5, 0)) == 5
