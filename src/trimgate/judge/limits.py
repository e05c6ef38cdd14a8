"""A target's limits on cores and memory, applied to the processes that measure.

Memory: a control group of version 2 next to this process's own, where its parent is delegated
(writable, with the memory controller on), or the one that `TRIMGATE_CGROUP` names (version 2, or a
memory group of version 1); else RLIMIT_DATA, which Linux counts over private writable memory, so
that it holds for what a model allocates but not for mapped files. Cores: the affinity; a part of a
core needs the control group.
"""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trimgate.targets import Target

GROUP = "TRIMGATE_CGROUP"
"""Environment variable: a control group that was delegated to this program."""

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_SCRIPT = Path(__file__).with_name("_limited.py")
_PERIOD_US = 100_000
_MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What a process is held to.

    Attributes:
        words: By limit (`cpus`, `memory`), how it is applied, for the record.
        cpus: Cores that it may run on; empty for all.
        data: RLIMIT_DATA in bytes; 0 for none.
        groups: Control groups that it enters.
    """

    words: dict[str, str] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()
    data: int = 0
    groups: tuple[Path, ...] = ()

    @property
    def memory(self) -> bool:
        """Whether memory is limited."""
        return "memory" in self.words

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command within these limits."""
        if not (self.cpus or self.data or self.groups):
            return list(command)
        wanted = {
            "cpus": list(self.cpus),
            "data": self.data,
            "groups": [str(group) for group in self.groups],
        }
        return [sys.executable, "-I", str(_SCRIPT), json.dumps(wanted), *command]


@contextlib.contextmanager
def limited(target: Target, *, memory: bool) -> Iterator[Limits]:
    """The limits of a target whose `enforce` is set; a control group is removed at the end.

    Args:
        target: Gives `cpus` and `memory_limit_mb`.
        memory: Whether the process holds one model alone, so that the target's memory is its own.
    """
    if not target.enforce:
        yield Limits()
        return
    cpus = target.cpus or target.threads
    wanted = (target.memory_limit_mb or 0) * _MIB if memory else 0
    words: dict[str, str] = {}
    allowed = _cores(math.ceil(cpus), words)
    group = None
    if wanted or cpus < len(allowed or [0]):
        group = _make_group()
    held = _limit_group(group, wanted, cpus if cpus < len(allowed or [0]) else 0, words)
    data = 0
    if wanted and not held:
        data = wanted
        words["memory"] = (
            f"RLIMIT_DATA of {target.memory_limit_mb} MiB, as no control group is writable here: "
            "mapped files do not count"
        )
    try:
        yield Limits(words, allowed, data, () if group is None else (group,))
    finally:
        if group is not None:
            with contextlib.suppress(OSError):  # a child that was killed may not be gone yet
                group.rmdir()


def _cores(count: int, words: dict[str, str]) -> tuple[int, ...]:
    if not hasattr(os, "sched_setaffinity"):
        words["cpus"] = "not limited: this system has no affinity; the engine's threads are"
        return ()
    mine = sorted(os.sched_getaffinity(0))
    words["cpus"] = f"affinity to {min(count, len(mine))} of {len(mine)} cores"
    if count > len(mine):
        words["cpus"] += f" (the target has {count})"
    return tuple(mine[:count])


def _make_group() -> Path | None:
    """A new control group for a child, or None where none may be made."""
    parent = _delegated()
    if parent is None:
        return None
    group = parent / f"trimgate-{os.getpid()}"
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        return None
    return group


def _delegated() -> Path | None:
    """The group in which new ones can be made."""
    if named := os.environ.get(GROUP):
        return Path(named)
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        return None
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    parent = (_ROOT / own).parent
    controllers = parent / "cgroup.subtree_control"
    if not own or not controllers.is_file() or not os.access(parent, os.W_OK):
        return None
    return parent if "memory" in controllers.read_text().split() else None


def _limit_group(group: Path | None, memory: int, cpus: float, words: dict[str, str]) -> bool:
    """Writes the limits into a group; whether the memory's is held by it."""
    if group is None:
        if cpus:
            words["cpus"] += f"; a quota of {cpus:g} cores needs a writable control group"
        return False
    held = False
    for name in ("memory.max", "memory.limit_in_bytes"):
        if memory and not held and _write(group / name, str(memory)):
            held = True
            words["memory"] = f"control group, {name} of {memory // _MIB} MiB"
            _write(group / "memory.swap.max", "0")
    if cpus:
        if _write(group / "cpu.max", f"{round(cpus * _PERIOD_US)} {_PERIOD_US}"):
            words["cpus"] += f", and a control group's quota of {cpus:g} cores"
        else:
            words["cpus"] += f"; the control group takes no quota of {cpus:g} cores"
    return held


def _write(file: Path, text: str) -> bool:
    if not file.is_file():
        return False
    try:
        file.write_text(text)
    except OSError:
        return False
    return True
