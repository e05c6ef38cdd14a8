"""Where a rollout stands, from the history of the release file alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from trimgate.ops.git import Entry
from trimgate.ops.release import Release, ReleasedModel

State = Literal["idle", "running", "promoted", "rolled back"]


@dataclass(frozen=True)
class Position:
    """Where a rollout stands.

    Attributes:
        state: `idle`: none was ever begun, or it was followed by other releases.
        model: The model that is, or was, rolled out.
        share: Its share of the traffic in percent; 100 once it was promoted.
        step: The commit from which that share follows.
        commits: Those of the rollout, the newest first; a roll-back reverts them.
        newest: The newest commit.
    """

    state: State
    newest: Entry
    model: ReleasedModel | None = None
    share: int = 0
    step: Entry | None = None
    commits: tuple[Entry, ...] = ()

    @property
    def since(self) -> datetime:
        """When the state began."""
        return (self.step or self.newest).time


def position(entries: Sequence[Entry]) -> Position | None:
    """Where a rollout stands.

    Args:
        entries: Commits that changed the file, the newest first.

    Returns:
        None when nothing was ever released.
    """
    if not entries:
        return None
    newest = entries[0]
    key = _key(newest.release)
    same = _while(entries, lambda entry: _key(entry.release) == key)
    step, before = same[-1], entries[len(same) :]
    canary, stable = newest.release.canary, newest.release.stable
    if canary is not None:
        own = _while(entries, lambda entry: _digest(entry.release.canary) == canary.digest)
        return Position("running", newest, canary, newest.release.traffic_percent, step, tuple(own))
    if not before:
        return Position("idle", newest)
    tried = before[0].release.canary
    if tried is not None:
        if _digest(stable) != tried.digest:
            return Position("rolled back", newest, tried, 0, step)
        own = _while(before, lambda entry: _digest(entry.release.canary) == tried.digest)
        return Position("promoted", newest, stable, 100, step, (*same, *own))
    earlier = position(before)
    if earlier is not None and earlier.state == "promoted":
        base = entries[len(same) + len(earlier.commits) :]
        if base and _digest(base[0].release.stable) == _digest(stable):
            return Position("rolled back", newest, earlier.model, 0, step)
    return Position("idle", newest)


def _while(entries: Sequence[Entry], holds: Callable[[Entry], bool]) -> list[Entry]:
    found = []
    for entry in entries:
        if not holds(entry):
            break
        found.append(entry)
    return found


def _key(release: Release) -> tuple[str | None, str | None, int]:
    return _digest(release.stable), _digest(release.canary), release.traffic_percent


def _digest(model: ReleasedModel | None) -> str | None:
    return None if model is None else model.digest
