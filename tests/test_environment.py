"""What the machine is said to be."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trimgate import environment

CPUINFO = """processor\t: 0
model name\t: Test CPU 9000
flags\t\t: fpu avx2 avx512f {flags}

processor\t: 1
model name\t: Another
flags\t\t: fpu amx_int8
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Pretends to be an x86 CPU with the given flags."""

    def pretend(flags: str) -> None:
        (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags=flags))
        environment.cpu_flags.cache_clear()
        environment.cpu_model.cache_clear()

    monkeypatch.setattr(environment, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(environment, "_CGROUP", tmp_path)
    monkeypatch.setattr(environment, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    yield pretend
    environment.cpu_flags.cache_clear()
    environment.cpu_model.cache_clear()


def test_this_machine_as_json() -> None:
    record = environment.describe()
    assert json.loads(json.dumps(record)) == record
    assert record["cores"] == environment.cores() >= 1
    assert record["memory"] > 1 << 28
    assert record["packages"]["numpy"]
    assert record["cpu"]
    assert len(record["load_average"]) == 3
    assert set(record["flags"]) <= environment.cpu_flags()


@pytest.mark.parametrize(
    ("flags", "dot", "bf16"),
    [
        ("", False, False),
        ("avx512_vnni", True, False),
        ("avx_vnni", True, False),
        ("avx512_bf16", False, True),
        ("amx_int8 amx_bf16", True, True),
    ],
)
def test_flags_of_the_first_processor(
    flags: str, dot: bool, bf16: bool, machine: Callable[[str], None]
) -> None:
    machine(flags)
    assert environment.cpu_model() == "Test CPU 9000"
    assert environment.cpu_flags() == {"fpu", "avx2", "avx512f", *flags.split()}
    assert environment.has_int8_dot_product() is dot
    assert environment.has_bfloat16() is bf16


def test_a_machine_that_does_not_tell(machine: Callable[[str], None], tmp_path: Path) -> None:
    environment.cpu_flags.cache_clear()
    assert environment.cpu_flags() == frozenset()
    assert environment.describe()["flags"] == []


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        ({}, None, None),
        ({"cpu.max": "150000 100000\n", "memory.max": "536870912\n"}, 1.5, 536870912),
        ({"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
        (
            {
                "cpu/cpu.cfs_quota_us": "200000",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "1073741824",
            },
            2.0,
            1 << 30,
        ),
        (
            {
                "cpu/cpu.cfs_quota_us": "-1",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "9223372036854771712",
            },
            None,
            None,
        ),
        (  # the tightest of the own group and those above it
            {
                "own": "0::/kubepods/pod1\n",
                "kubepods/cpu.max": "300000 100000",
                "kubepods/memory.max": "536870912",
                "kubepods/pod1/cpu.max": "50000 100000",
                "kubepods/pod1/memory.max": "max",
                "kubepods/pod1/cpuset.cpus.effective": "2-3",
            },
            0.5,
            536870912,
        ),
        (
            {
                "own": "3:cpuset:/\n2:cpu,cpuacct:/docker/a\n1:memory:/docker/a\n0::/\n",
                "cpu/docker/a/cpu.cfs_quota_us": "150000",
                "cpu/docker/a/cpu.cfs_period_us": "100000",
                "memory/docker/a/memory.limit_in_bytes": "1073741824",
                "cpuset/cpuset.effective_cpus": "0-1",
            },
            1.5,
            1 << 30,
        ),
    ],
)
def test_limits_of_the_control_group(
    files: dict[str, str],
    cpus: float | None,
    memory: int | None,
    machine: Callable[[str], None],
    tmp_path: Path,
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    machine("")
    record = environment.describe()
    assert record["cpu_limit"] == cpus
    assert record["memory_limit"] == memory
    sets = [text for name, text in files.items() if name.split("/")[-1].startswith("cpuset")]
    assert record["cpuset"] == (sets[0] if sets else None)


def test_threads_wait_only_while_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with environment.waiting_threads():
        assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_WAIT_POLICY" not in os.environ, "timing children inherit it"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with environment.waiting_threads():
        assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    environment.wait_patiently()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE", "the user's word stays"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    environment.wait_patiently()
    assert os.environ.pop("OMP_WAIT_POLICY") == "PASSIVE"
