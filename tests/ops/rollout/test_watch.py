"""The watcher keeps nothing: killed anywhere and started again, it comes to the same end."""

import urllib.request
from datetime import UTC, datetime

import pytest
from rollouts import config_repository, released

from trimgate.errors import InvalidInput
from trimgate.ops.git import ConfigRepository, GitError, ReleaseLog
from trimgate.ops.release import drop_canary, release_stable, start_canary
from trimgate.ops.rollout.metrics import Metrics
from trimgate.ops.rollout.observations import Golden, Observation, Pair, Traffic
from trimgate.ops.rollout.policy import RolloutPolicy
from trimgate.ops.rollout.watch import follow, watch

POLICY = RolloutPolicy(
    minimum_seconds=0, minimum_requests=10, interval=0.01, max_latency_ratio={}, golden=1
)


class Killed(BaseException):
    pass


class Sees:
    """A platform on which the given model answers otherwise than the stable one."""

    def __init__(self, bad=None, from_share=0):
        self.bad, self.from_share = bad, from_share

    def observe(self, place, policy):
        odd = self.bad == place.model.digest and place.share >= self.from_share
        now = datetime.now(UTC)
        pair = Pair(stable="1", canary="0" if odd else "1")
        return Observation(
            now=now,
            committed=place.since,
            applied=place.since,
            ready=True,
            golden=Golden(rows=1, problem="other label" if odd and place.share == 100 else None),
            stable=Traffic(requests=9000, errors=0),
            canary=Traffic(requests=1000, errors=0),
            pairs=(pair,) * 1000,
        )


class Dies:
    """Ends the watcher before or after the given call of a log or a platform."""

    def __init__(self, inner, lives):
        self._inner, self._lives = inner, lives

    def __getattr__(self, name):
        call = getattr(self._inner, name)

        def counted(*arguments, **named):
            self._lives.append(name)
            if len(self._lives) == self._lives.limit and self._lives.before:
                raise Killed
            result = call(*arguments, **named)
            if len(self._lives) == self._lives.limit:
                raise Killed
            return result

        return counted


class Lives(list):
    def __init__(self, limit, before):
        super().__init__()
        self.limit, self.before = limit, before


@pytest.fixture(scope="module")
def both(models):
    return released(models["stable"]), released(models["same"])


@pytest.fixture
def log(tmp_path, models, both):
    access = config_repository(tmp_path, models["stable"])
    with ConfigRepository.open(access) as copy:
        found = ReleaseLog(copy, "small", "production")
        found.change(lambda release: start_canary(release, both[1], 10), "Canary at 10 %")
        yield found


def subjects(log):
    return [entry.message.splitlines()[0] for entry in log.entries()][:-2]


@pytest.mark.parametrize("case", ["good", "bad at 50 %", "bad after the promotion"])
def test_killed_between_any_two_actions(log, both, tmp_path, case):
    platform = {
        "good": Sees(),
        "bad at 50 %": Sees(both[1].digest, 50),
        "bad after the promotion": Sees(both[1].digest, 100),
    }[case]
    count = 0
    while True:  # each watcher gets one action further than the one before
        lives = Lives(count % 3 + 2, count % 2 == 0)
        count += 1
        assert count < 40
        try:
            ended = watch(
                Dies(log, lives), Dies(platform, lives), POLICY, sleep=lambda seconds: None
            )
        except Killed:
            continue
        break
    assert count > 2
    assert ended.state == ("promoted" if case == "good" else "rolled back")
    assert log.current().canary is None
    steps = {
        "good": ["Canary promoted to stable", "Canary from 10 to 50 %", "Canary at 10 %"],
        "bad at 50 %": [
            "Revert the canary at 50 %: agreement, agreement by label",
            "Canary from 10 to 50 %",
            "Canary at 10 %",
        ],
        "bad after the promotion": [
            "Revert the canary at 100 %: golden inputs",
            "Canary promoted to stable",
            "Canary from 10 to 50 %",
            "Canary at 10 %",
        ],
    }[case]
    assert subjects(log) == steps
    assert log.current().stable.digest == both[case == "good"].digest
    again = watch(log, platform, POLICY)
    assert (again.state, again.revision) == (ended.state, ended.revision)


def test_people_may_end_it_meanwhile(log):
    class Meddles(Sees):
        def observe(self, place, policy):
            seen = super().observe(place, policy)
            log.change(drop_canary, "Not today")
            return seen

    ended = watch(log, Meddles(), POLICY, sleep=lambda seconds: None)
    assert ended.state == "rolled back"
    assert "Not today" in ended.reason
    assert subjects(log) == ["Not today", "Canary at 10 %"]


def test_no_rollout(log, both):
    log.change(drop_canary, "Not today")
    log.change(lambda release: release_stable(release, both[1]), "At once")
    with pytest.raises(InvalidInput, match="no rollout runs"):
        watch(log, Sees(), POLICY)


def test_a_repository_that_comes_back(log):
    class Flaky(Dies):
        failures = 3

        def __getattr__(self, name):
            def call(*arguments, **named):
                if name == "change" and Flaky.failures:
                    Flaky.failures -= 1
                    raise GitError("locked")
                return getattr(self._inner, name)(*arguments, **named)

            return call

    said = []
    ended = watch(Flaky(log, None), Sees(), POLICY, say=said.append, sleep=lambda seconds: None)
    assert ended.state == "promoted"
    assert [event.text for event in said if event.kind == "problem"] == [
        "the repository is not to be had: locked"
    ] * 3


def scraped(metrics):
    with metrics.served("127.0.0.1", 0) as port:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read()
    return dict(
        line.rsplit(" ", 1)
        for line in text.decode().splitlines()
        if not line.startswith("#") and "_created" not in line
    )


def test_metrics_show_the_canary_and_forget_it(log, both):
    metrics = Metrics("small", "production")
    of = 'environment="production",model="small"'
    seen = []

    def say(event):
        metrics(event)
        if event.kind == "look" and not seen:
            seen.append(scraped(metrics))

    watch(log, Sees(both[1].digest, 10), POLICY, say=say, sleep=lambda seconds: None)
    (during,) = seen
    assert during[f"trimgate_rollout_canary_percent{{{of}}}"] == "10.0"
    assert during[f'trimgate_rollout_disagreement{{bound="observed",{of}}}'] == "1.0"
    assert (
        float(during[f'trimgate_rollout_disagreement{{bound="low",{of}}}'])
        > POLICY.max_disagreement
    )
    assert during[f'trimgate_rollout_check{{check="agreement",{of}}}'] == "-1.0"
    assert during[f'trimgate_rollout_check{{check="ready",{of}}}'] == "1.0"
    after = scraped(metrics)
    assert after[f"trimgate_rollout_canary_percent{{{of}}}"] == "0.0"
    assert after[f'trimgate_rollout_ended_total{{{of},state="rolled back"}}'] == "1.0"
    assert after[f'trimgate_rollout_ended_total{{{of},state="promoted"}}'] == "0.0"
    assert not [name for name in after if "disagreement" in name or "_check{" in name]


def test_a_service_takes_one_rollout_after_the_other(log, both):
    """It waits while there is none, and says of each end once."""
    said, waits = [], []

    class Enough(Exception):
        pass

    def sleep(seconds):
        if not any(event.kind == "end" for event in said):
            return
        waits.append(seconds)
        if len(waits) == 2:  # the first canary was rolled back: somebody begins another
            log.change(lambda release: start_canary(release, both[1], 10), "Canary at 10 %")
            platform.bad = None
        if len(waits) == 40:
            raise Enough

    platform = Sees(both[1].digest, 50)
    with pytest.raises(Enough):
        follow(log, platform, POLICY, say=said.append, sleep=sleep)
    ends = [event.text.partition(":")[0] for event in said if event.kind == "end"]
    assert ends == ["rolled back", "promoted"]
