"""What this machine is: facts that decide what may be tried and that stand beside every number."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NUMERIC_FLAGS = (
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx_vnni",
    "avx_vnni_int8",
    "avx512_bf16",
    "avx_ne_convert",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
    "asimddp",
    "bf16",
    "i8mm",
    "sve",
)
"""Instruction sets that change which optimization pays, as Linux names them."""

_PACKAGES = (
    "trimgate",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-ep-openvino",
    "openvino",
    "scikit-learn",
    "scikit-learn-intelex",
    "skl2onnx",
    "xgboost",
    "xgboost-cpu",
    "lightgbm",
    "torch",
    "torch-pruning",
    "transformers",
    "tokenizers",
    "kfp",
    "mlflow",
    "kserve",
)
_CPUINFO = Path("/proc/cpuinfo")
_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the CPU as Linux names them; empty where it does not tell."""
    fields = _cpuinfo()
    return frozenset((fields.get("flags") or fields.get("Features") or "").split())


@functools.cache
def cpu_model() -> str:
    """The CPU's model name."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """Logical cores that this process may run on (its affinity, not the machine's count)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_int8_dot_product() -> bool:
    """Whether the CPU multiplies 8-bit integers without overflow in 16 bits (VNNI or its like).

    On an x86 CPU without it, unsigned times signed products saturate, so that INT8 weights
    must keep to 7 bits ("reduce range").
    """
    vnni = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"}
    return bool(cpu_flags() & vnni) or platform.machine() not in ("x86_64", "AMD64")


def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware rather than by emulation."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def describe() -> dict[str, Any]:
    """The environment record that stands beside measurements (JSON values).

    Returns:
        CPU model and flags, cores, limits of the control groups, load, memory in bytes,
        frequency governor where it can be read, operating system, Python and package versions.
    """
    return {
        "cpu": cpu_model(),
        "flags": [flag for flag in NUMERIC_FLAGS if flag in cpu_flags()],
        "cores": cores(),
        "cpu_limit": _cpu_limit(),
        "memory_limit": _memory_limit(),
        "cpuset": _cpuset(),
        "memory": _memory(),
        "load_average": list(os.getloadavg()),
        "governor": _first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "machine": platform.machine(),
        "os": _os_name(),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "packages": _versions(),
    }


def _cpuinfo() -> dict[str, str]:
    """The fields of the first processor in /proc/cpuinfo."""
    if not _CPUINFO.is_file():
        return {}
    first = _CPUINFO.read_text(errors="replace").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _groups(controller: str) -> Iterator[Path]:
    """This process's control group and those above it, of version 2 and of version 1.

    In a container with a view of its own the group is the root; without one its path is told.
    """
    places = {"": _CGROUP, controller: _CGROUP / controller}
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        lines = []
    owns = dict.fromkeys(places, "/")
    for line in lines:
        _, names, path = line.split(":", 2)
        owns.update({name: path for name in names.split(",") if name in owns})
    for name, root in places.items():
        own = root / owns[name].lstrip("/")
        yield from (place for place in (own, *own.parents) if place.is_relative_to(root))


def _cpu_limit() -> float | None:
    """CPUs that the control groups grant (version 2 and version 1); None is no limit."""
    limits = []
    for group in _groups("cpu"):
        quota, _, period = (_first_line(group / "cpu.max") or "max").partition(" ")
        if quota == "max":
            quota = _first_line(group / "cpu.cfs_quota_us") or "-1"
            period = _first_line(group / "cpu.cfs_period_us") or "100000"
        if int(quota) > 0:
            limits.append(int(quota) / int(period or 100_000))
    return min(limits, default=None)


def _memory_limit() -> int | None:
    """Bytes that the control groups grant; None is no limit."""
    limits = []
    for group in _groups("memory"):
        text = _first_line(group / "memory.max") or _first_line(group / "memory.limit_in_bytes")
        # version 1 writes "no limit" as the largest page-aligned integer
        if text and text != "max" and int(text) < 1 << 60:
            limits.append(int(text))
    return min(limits, default=None)


def _cpuset() -> str | None:
    """Logical cores that the control group grants, as Linux lists them (`0-3,8`)."""
    names = ("cpuset.cpus.effective", "cpuset.effective_cpus")
    told = (_first_line(group / name) for group in _groups("cpuset") for name in names)
    return next((text for text in told if text), None)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@contextlib.contextmanager
def waiting_threads() -> Iterator[None]:
    """Lets OpenMP pools that are loaded in here sleep while they wait; children spin as ever.

    By default libgomp's threads spin. Where others use the cores, or a container has fewer of
    them than it sees, training and predictions of histogram boosting took ten times as long.
    What the user set in the environment stays.
    """
    if _WAIT in os.environ:
        yield
        return
    os.environ[_WAIT] = "PASSIVE"
    try:
        yield
    finally:
        del os.environ[_WAIT]


def wait_patiently() -> None:
    """As `waiting_threads`, for this process for good and for those that it starts."""
    os.environ.setdefault(_WAIT, "PASSIVE")


_WAIT = "OMP_WAIT_POLICY"  # libgomp reads it once, when it is loaded
