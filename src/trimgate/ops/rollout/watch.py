"""The watcher: looks, decides, and commits what follows, until the rollout has ended.

It keeps nothing: where the rollout stands it reads from Git, how the canary fares from the
platform. Killed between any two actions and started again, it comes to the same end.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NoReturn

from trimgate.errors import InvalidInput, TrimgateError
from trimgate.judge.records import RuleResult
from trimgate.ops.git import GitError, ReleaseLog
from trimgate.ops.release import (
    Release,
    ReleasedModel,
    promote_canary,
    set_share,
)
from trimgate.ops.rollout.decide import Decision, decide
from trimgate.ops.rollout.platforms import Platform
from trimgate.ops.rollout.policy import RolloutPolicy
from trimgate.ops.rollout.position import Position, position

logger = logging.getLogger("trimgate.rollout")


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: `look`: a look and what follows from it; `commit`: a change was pushed; `problem`:
            the release file could not be read or changed, which is tried again; `end`.
        text: In words, one line.
        share: The canary's share of the traffic in percent.
        decision: Of a look.
        revision: Of a commit.
    """

    time: datetime
    kind: Literal["look", "commit", "problem", "end"]
    text: str
    share: int
    decision: Decision | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Ended:
    """How a rollout ended.

    Attributes:
        state: `promoted` or `rolled back`.
        reason: In words.
        model: The model that was rolled out.
        revision: The commit that ended it.
    """

    state: Literal["promoted", "rolled back"]
    reason: str
    model: ReleasedModel
    revision: str


def watch(
    log: ReleaseLog,
    platform: Platform,
    policy: RolloutPolicy,
    *,
    say: Callable[[Event], None] = lambda event: None,
    sleep: Callable[[float], None] = time.sleep,
    patience: float | None = None,
) -> Ended:
    """Takes the rollout that the release file says to its end.

    Args:
        log: The release file.
        platform: Where it is served.
        policy: What the canary has to show.
        say: Told what happens.
        sleep: Waits between two looks.
        patience: Seconds in which the release file may fail to be read or changed, one time after
            the other; the policy's `step_timeout` when left out.

    Raises:
        InvalidInput: No rollout runs and none was the last thing that happened.
        TrimgateError: The repository was not to be had for longer than `patience`.
        OSError: The same.
    """
    place: Position | None = current(log)
    began = datetime.now(UTC)
    failing: float | None = None
    patience = policy.step_timeout if patience is None else patience
    while True:
        try:
            if place is None:
                place = current(log)
            ended = _step(log, platform, policy, place, say, began)
            failing = None
        except InvalidInput:
            raise
        except (TrimgateError, OSError) as error:
            now = time.monotonic()
            failing = now if failing is None else failing
            text = f"the repository is not to be had: {error}"
            say(Event(datetime.now(UTC), "problem", text, place.share if place else 0))
            if now - failing >= patience:
                raise
            ended = None
        if ended is not None:
            say(
                Event(
                    datetime.now(UTC),
                    "end",
                    f"{ended.state}: {ended.reason}",
                    100 if ended.state == "promoted" else 0,
                    revision=ended.revision,
                )
            )
            return ended
        place = None
        sleep(policy.interval)


def follow(
    log: ReleaseLog,
    platform: Platform,
    policy: RolloutPolicy,
    *,
    say: Callable[[Event], None] = lambda event: None,
    sleep: Callable[[float], None] = time.sleep,
) -> NoReturn:
    """Takes each rollout to its end, and waits for the next one; as a service does.

    Args and Raises: As `watch`; that none runs is no mistake here.
    """
    ended: str | None = None
    while True:
        try:
            place = position(log.entries())
        except (GitError, OSError) as error:
            say(Event(datetime.now(UTC), "problem", f"the repository is not to be had: {error}", 0))
            place = None
        if place is not None and place.state != "idle":
            revision = (place.step or place.newest).revision
            if ended is None and place.state == "rolled back":
                ended = revision  # before this began
            if revision != ended:
                ended = watch(log, platform, policy, say=say, sleep=sleep).revision
                continue
        sleep(policy.interval)


def current(log: ReleaseLog) -> Position:
    """Where the rollout stands.

    Raises:
        InvalidInput: There is none.
    """
    place = position(log.entries())
    if place is None or place.state == "idle":
        raise InvalidInput(
            "no rollout runs here", mend="`trimgate rollout start` begins one with a canary"
        )
    return place


def look(
    platform: Platform, policy: RolloutPolicy, place: Position, began: datetime | None = None
) -> Decision | None:
    """One look and what follows from it; None when the rollout was rolled back.

    Args:
        platform: Where it is served.
        policy: What the canary has to show.
        place: Where the rollout stands.
        began: When the watcher did. The time-outs of a model that was promoted run from then at
            the earliest: one that was promoted long ago is not reverted since it cannot be seen.
    """
    if place.state == "rolled back":
        return None
    seen = platform.observe(place, policy)
    if place.state == "promoted" and began is not None:
        seen = seen.model_copy(update={"committed": max(seen.committed, began)})
    return decide(seen, policy, place.share)


def _step(
    log: ReleaseLog,
    platform: Platform,
    policy: RolloutPolicy,
    place: Position,
    say: Callable[[Event], None],
    began: datetime,
) -> Ended | None:
    """One look and the commit that follows from it."""
    model = place.model
    if model is None:
        raise InvalidInput("no rollout runs here")
    decision = look(platform, policy, place, began)
    if decision is None:
        return Ended("rolled back", _why(place), model, (place.step or place.newest).revision)
    now = datetime.now(UTC)
    text = f"{_title(place)}: {decision.action}: {decision.reason}"
    say(Event(now, "look", text, place.share, decision))
    if decision.action == "hold":
        return None
    if decision.action == "advance" and place.share == 100:
        return Ended("promoted", decision.reason, model, (place.step or place.newest).revision)
    if decision.action == "advance":
        share = policy.after(place.share)
        revision = log.change(_advance(place, share), _message(place, share, decision))
        told = "promoted to stable" if share == 100 else f"canary at {share} %"
    else:
        revision = log.revert(place.commits, _revert_message(place, decision))
        share, told = 0, "reverted"
    if revision is not None:
        say(Event(datetime.now(UTC), "commit", f"{told} ({revision[:10]})", share, None, revision))
    return None


def _advance(place: Position, share: int) -> Callable[[Release], Release]:
    """The next step, if the release is still the one that was looked at."""
    seen = place.newest.release

    def make(release: Release) -> Release:
        if (release.canary, release.stable) != (seen.canary, seen.stable) or (
            release.traffic_percent != seen.traffic_percent
        ):
            return release  # somebody else changed it meanwhile: look again
        if share == 100:
            return promote_canary(release, datetime.now(UTC).isoformat(timespec="seconds"))
        return set_share(release, share)

    return make


def _title(place: Position) -> str:
    return "all traffic" if place.share == 100 else f"canary at {place.share} %"


def _message(place: Position, share: int, decision: Decision) -> str:
    what = (
        "Canary promoted to stable" if share == 100 else f"Canary from {place.share} to {share} %"
    )
    return f"{what}\n\n{_listed(decision.checks)}"


def _revert_message(place: Position, decision: Decision) -> str:
    bad = tuple(check for check in decision.checks if check.outcome != "pass")
    title = f"Revert the canary at {place.share} %: {_short(decision)}"
    return f"{title}\n\n{decision.reason}\n\n{_listed(bad)}"


def _short(decision: Decision) -> str:
    bad = [check.rule for check in decision.checks if check.outcome == "fail"]
    return ", ".join(bad) if bad else "time is up"


def _listed(checks: tuple[RuleResult, ...]) -> str:
    marks = {"pass": "+", "fail": "-", "inconclusive": "?"}
    return "\n".join(f"{marks[check.outcome]} {check.rule}: {check.reason}" for check in checks)


def _why(place: Position) -> str:
    """The reason that the commit gives which ended the rollout."""
    message = (place.step or place.newest).message.strip()
    parts = [part.strip() for part in message.split("\n\n")]
    return parts[1] if message.startswith("Revert") and len(parts) > 1 else parts[0]
