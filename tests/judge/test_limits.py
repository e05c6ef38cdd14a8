"""Limits that are really applied to child processes."""

import json
import os
import subprocess
import sys

import pytest

from trimgate.judge import limits
from trimgate.judge.limits import limited
from trimgate.targets import PROFILES, Target

EDGE = Target(name="edge", threads=1, memory_limit_mb=256, enforce=True)
TOLD = (
    "import json, os, resource; print(json.dumps([sorted(os.sched_getaffinity(0)), "
    "resource.getrlimit(resource.RLIMIT_DATA)[0]]))"
)


@pytest.fixture(autouse=True)
def _no_groups(monkeypatch, tmp_path):
    """Whatever control groups this machine has, none is delegated unless a test says so."""
    monkeypatch.setattr(limits, "_OWN", tmp_path / "none")
    monkeypatch.delenv(limits.GROUP, raising=False)


def run(found, code):
    command = found.command([sys.executable, "-c", code])
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_without_a_control_group_a_process_gets_fewer_cores_and_a_limit_on_data():
    with limited(EDGE, memory=True) as found:
        cpus, data = json.loads(run(found, TOLD).stdout)
        assert cpus == sorted(os.sched_getaffinity(0))[:1]
        assert data == 256 * 2**20
        assert "RLIMIT_DATA of 256 MiB" in found.words["memory"]
        assert found.words["cpus"].startswith("affinity to 1 of")


def test_memory_beyond_the_limit_is_refused_to_the_process():
    grab = "import sys; sys.stdout.write(str(len(bytearray({} * 2**20)) >> 20))"
    with limited(EDGE, memory=True) as found:
        assert run(found, grab.format(100)).stdout == "100"
        too_much = run(found, grab.format(400))
    assert too_much.returncode != 0
    assert "MemoryError" in too_much.stderr


def test_a_process_that_holds_both_models_has_the_cores_limited_and_not_the_memory():
    with limited(EDGE, memory=False) as found:
        cpus, data = json.loads(run(found, TOLD).stdout)
        assert (len(cpus), data) == (1, -1)
        assert "memory" not in found.words


def test_only_a_target_that_says_so_is_limited():
    assert PROFILES["edge-cpu"].enforce
    with limited(PROFILES["cloud-cpu"], memory=True) as found:
        assert found.words == {}
        assert found.command(["x"]) == ["x"]


@pytest.mark.parametrize(
    ("memory", "cpu"),
    [("memory.max", "cpu.max"), ("memory.limit_in_bytes", None)],
)
def test_a_delegated_control_group_is_used(monkeypatch, tmp_path, memory, cpu):
    """The files of a control group, in a folder that stands for one."""
    monkeypatch.setenv(limits.GROUP, str(tmp_path))
    group = tmp_path / f"trimgate-{os.getpid()}"
    group.mkdir()
    for name in filter(None, (memory, cpu, "cgroup.procs")):
        (group / name).write_text("")
    target = EDGE.model_copy(update={"cpus": 0.5})
    with limited(target, memory=True) as found:
        assert (group / memory).read_text() == str(256 * 2**20)
        assert found.words["memory"] == f"control group, {memory} of 256 MiB"
        if cpu:
            assert (group / cpu).read_text() == "50000 100000"
            assert "quota of 0.5 cores" in found.words["cpus"]
        else:
            assert "takes no quota of 0.5 cores" in found.words["cpus"]
        assert json.loads(run(found, TOLD).stdout)[1] == -1, "the control group holds the memory"
        assert int((group / "cgroup.procs").read_text()) > 0, "the process entered it"


def test_a_part_of_a_core_without_a_control_group_is_said():
    with limited(EDGE.model_copy(update={"cpus": 0.5}), memory=False) as found:
        assert "a quota of 0.5 cores needs a writable control group" in found.words["cpus"]


def test_the_group_beside_the_own_is_taken_where_it_is_delegated(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "_ROOT", tmp_path)
    (tmp_path / "user" / "app").mkdir(parents=True)
    monkeypatch.setattr(limits, "_OWN", tmp_path / "own")
    (tmp_path / "own").write_text("0::/user/app\n")
    assert limits._delegated() is None
    (tmp_path / "user" / "cgroup.subtree_control").write_text("cpu\n")
    assert limits._delegated() is None, "it limits no memory"
    (tmp_path / "user" / "cgroup.subtree_control").write_text("cpu memory\n")
    assert limits._delegated() == tmp_path / "user"
