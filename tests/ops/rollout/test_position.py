"""Where a rollout stands, from the history alone."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from trimgate.ops.git import Entry
from trimgate.ops.release import (
    Release,
    ReleasedModel,
    drop_canary,
    promote_canary,
    release_stable,
    set_share,
    start_canary,
)
from trimgate.ops.rollout.position import position


def model(digit):
    digest = digit * 64
    return ReleasedModel(
        storage_uri=f"/models/{digest}/",
        digest=f"sha256:{digest}",
        run=f"run-{digit}",
        verdict="pass",
        promoted="2026-11-25T12:00:00+00:00",
    )


EMPTY = Release(name="fraud", environment="production")
STABLE = release_stable(EMPTY, model("a"))
TEN = start_canary(STABLE, model("b"), 10)
FIFTY = set_share(TEN, 50)
DONE = promote_canary(FIFTY)


def history(*releases):
    """Entries, the newest first, from releases in the order of time."""
    begin = datetime(2026, 11, 25, tzinfo=UTC)
    return [
        Entry(f"r{number}", begin + timedelta(minutes=number), f"message {number}", release)
        for number, release in enumerate(releases)
    ][::-1]


def test_nothing_and_no_rollout():
    assert position([]) is None
    assert position(history(EMPTY)).state == "idle"
    assert position(history(EMPTY, STABLE)).state == "idle"


def test_running():
    place = position(history(EMPTY, STABLE, TEN, FIFTY))
    assert (place.state, place.share, place.model.digest[-1]) == ("running", 50, "b")
    assert place.step.revision == "r3"
    assert [entry.revision for entry in place.commits] == ["r3", "r2"]


def test_a_commit_that_changes_no_traffic_does_not_begin_the_step_anew():
    noted = TEN.model_copy(update={"canary": TEN.canary.model_copy(update={"version": "7"})})
    place = position(history(STABLE, TEN, noted))
    assert place.step.revision == "r1"
    assert [entry.revision for entry in place.commits] == ["r2", "r1"]


def test_promoted_and_rolled_back():
    place = position(history(STABLE, TEN, FIFTY, DONE))
    assert (place.state, place.share, place.model.digest[-1]) == ("promoted", 100, "b")
    assert [entry.revision for entry in place.commits] == ["r3", "r2", "r1"]
    for before in ([STABLE, TEN], [STABLE, TEN, FIFTY], [STABLE, TEN, FIFTY, DONE]):
        place = position(history(*before, STABLE))
        assert (place.state, place.model.digest[-1]) == ("rolled back", "b")
        assert place.step.revision == f"r{len(before)}"


def test_a_canary_that_comes_again_is_another_rollout():
    place = position(history(STABLE, TEN, STABLE, TEN))
    assert place.state == "running"
    assert [entry.revision for entry in place.commits] == ["r3"]


def test_a_release_without_canary_ends_the_story():
    other = release_stable(DONE, model("c"))
    assert position(history(STABLE, TEN, FIFTY, DONE, other)).state == "idle"


actions = st.lists(st.sampled_from(["start b", "start c", "share", "promote", "drop", "stable"]))


@given(actions)
def test_every_history_has_a_place_whose_commits_lead_back_to_before_the_canary(names):
    releases = [STABLE]
    for name in names:
        now = releases[-1]
        if name.startswith("start") and now.stable.digest[-1] != name[-1]:
            now = start_canary(now, model(name[-1]), 10)
        elif name == "share" and now.canary:
            now = set_share(now, now.traffic_percent % 99 + 1)
        elif name == "promote" and now.canary:
            now = promote_canary(now)
        elif name == "drop":
            now = drop_canary(now)
        elif name == "stable":
            now = release_stable(now, model("d"))
        if now != releases[-1]:
            releases.append(now)
    entries = history(*releases)
    place = position(entries)
    if place.state in ("running", "promoted"):
        before = entries[len(place.commits)].release
        assert list(place.commits) == entries[: len(place.commits)]
        assert place.model.digest not in {m.digest for m in (before.canary,) if m}
    else:
        assert place.commits == ()
