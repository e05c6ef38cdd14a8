"""Load: planted servers that stall, answer late, or fail."""

import threading
import time

import numpy as np
import pytest

from trimgate.judge import load
from trimgate.judge.load import Block, Workers


class Planted:
    """A server of one thread that stalls once, at its n-th request."""

    def __init__(self, stall=0.0, at=100, service=0.0):
        self.lock, self.count = threading.Lock(), 0
        self.stall, self.at, self.service = stall, at, service

    def __call__(self, number):
        with self.lock:
            self.count += 1
            if self.count == self.at:
                time.sleep(self.stall)
            if self.service:
                time.sleep(self.service)


def test_a_stall_that_a_closed_loop_hides_shows_in_the_open_loop():
    """One request of 300 stalls for a second: a closed loop sees one slow answer, below its p99."""
    times = []
    server = Planted(stall=1.0)
    for number in range(300):
        start = time.perf_counter()
        server(number)
        times.append(time.perf_counter() - start)
    assert np.quantile(times, 0.99) < 0.2

    server = Planted(stall=1.0, at=150)
    with Workers(lambda: server, 4) as workers:
        due = load.arrivals(200, 1.5, np.random.default_rng(0))
        block = load.open_loop(workers, due, variant="candidate", grace=5.0)
    result = load.summarise_load([block, block], where="session", rate=200, concurrency=4)
    assert result.candidate.requests == 2 * len(due)
    assert result.candidate.p99 > 0.5
    assert result.candidate.p95 > 0.5, "all that were due during the stall had to wait"
    assert result.candidate.late > 40


def test_latency_counts_from_when_a_request_was_due():
    """Requests due all at once, one worker: the n-th waits for the n - 1 before it."""
    server = Planted(service=0.05)
    with Workers(lambda: server, 1) as workers:
        block = load.open_loop(workers, np.zeros(5), variant="candidate", grace=5.0)
    assert np.diff(block.latencies).min() > 0.04
    assert block.latencies[-1] > 0.25
    assert block.late == 4
    assert block.overslept <= 1


def test_what_cannot_be_sent_or_fails_counts_as_infinitely_slow():
    def broken(number):
        if number % 2:
            raise ConnectionError("no more files")

    blocks = [
        Block(variant="candidate", latencies=[0.001] * 90, seconds=1.0, errors=5, dropped=5)
    ] * 2
    point = load.summarise_load(blocks, where="session", rate=100, concurrency=1).candidate
    assert (point.requests, point.errors, point.dropped) == (200, 10, 10)
    assert point.p50 == 0.001
    assert point.p95 is None
    assert point.p99 is None
    assert point.p99_interval is None
    assert point.achieved == pytest.approx(90)

    with pytest.raises(ConnectionError, match="no more files"):
        Workers(lambda: broken, 2)


def test_errors_under_load_are_counted_and_told():
    class Fails:
        def __init__(self):
            self.sent = 0

        def __call__(self, number):
            self.sent += 1
            if self.sent > 15 and number % 4 == 0:
                raise ConnectionError("connection refused")

    with Workers(Fails, 2) as workers:
        due = np.linspace(0, 0.1, 40)
        block = load.open_loop(workers, due, variant="candidate", grace=5.0)
    assert 0 < block.errors <= 10
    assert len(block.latencies) == 40 - block.errors
    result = load.summarise_load([block, block], where="server", rate=400, concurrency=2)
    assert "connection refused" in result.reason


def test_a_server_that_is_too_slow_drops_and_is_told_so():
    server = Planted(service=0.05)
    with Workers(lambda: server, 1) as workers:
        due = np.linspace(0, 0.2, 40)  # 200 a second, and it does 20
        block = load.open_loop(workers, due, variant="candidate", grace=0.1)
    assert block.dropped > 20
    assert len(block.latencies) + block.dropped == 40
    result = load.summarise_load([block, block], where="session", rate=200, concurrency=1)
    assert result.candidate.p99 is None
    assert "does not keep up" in result.reason


def test_both_models_get_the_same_arrivals_in_turn():
    sent = {"baseline": [], "candidate": []}

    def recorder(name):
        return lambda: lambda number: sent[name].append(number)

    with Workers(recorder("baseline"), 1) as base, Workers(recorder("candidate"), 1) as cand:
        for own in sent.values():
            own.clear()
        blocks = load.load_blocks(
            {"baseline": base, "candidate": cand}, rate=300, seconds=0.8, seed=3
        )
    assert [b.variant for b in blocks].count("baseline") == 4
    assert sent["baseline"] == sent["candidate"]
    pairs = [{blocks[i].variant, blocks[i + 1].variant} for i in range(0, 8, 2)]
    assert pairs == [{"baseline", "candidate"}] * 4
    assert len({blocks[i].variant for i in range(0, 8, 2)}) == 2, "the order is not random"


def test_the_ratio_of_p99_is_paired_by_block():
    rng = np.random.default_rng(0)
    blocks = []
    for slow in (1.0, 2.0, 4.0, 8.0):  # the machine gets slower; the ratio stays
        times = np.sort(rng.exponential(1e-3, 300)) * slow
        for name, factor in (("baseline", 3.0), ("candidate", 1.0)):
            own = [float(t) for t in times * factor]
            blocks.append(Block(variant=name, latencies=own, seconds=1.0))
    result = load.summarise_load(blocks, where="session", rate=300, concurrency=1)
    assert result.valid
    assert result.p99_ratio.value == pytest.approx(3.0, rel=1e-6)
    assert result.p99_ratio.low == pytest.approx(3.0, rel=1e-6)
    own = result.candidate.p99_interval
    assert own.low < result.candidate.p99 < own.high
    assert own.high / own.low > 4, "blocks that differ so much leave p99 unknown"


def test_a_generator_that_overslept_makes_the_result_invalid():
    block = Block(variant="candidate", latencies=[0.001] * 200, seconds=1.0, overslept=50)
    result = load.summarise_load([block, block], where="session", rate=200, concurrency=1)
    assert not result.valid
    assert "too busy to send on time: 25%" in result.reason


def test_arrivals_are_a_poisson_process():
    due = load.arrivals(1000, 20.0, np.random.default_rng(1))
    assert 19_000 < len(due) < 21_000
    assert due.max() < 20
    gaps = np.diff(due)
    assert gaps.min() >= 0
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert load.arrivals(0.001, 0.1, np.random.default_rng(1)).tolist() == [0.0]


def test_callers_at_once_do_more_than_one():
    """Calls that wait 10 ms, four at a time, beside calls that wait 30 ms."""

    def sleeper(seconds):
        return lambda: lambda number: time.sleep(seconds)

    with Workers(sleeper(0.03), 4) as base, Workers(sleeper(0.01), 4) as cand:
        blocks = load.concurrent_blocks({"baseline": base, "candidate": cand}, seconds=1.6, seed=0)
    found = load.summarise_concurrent([blocks], callers=4, kind="threads", batch_size=10)
    assert found.callers == 4
    assert found.ratio.value > 1.5
    assert found.candidate > found.baseline
    assert found.baseline_p99 > 0.03


def test_a_call_that_fails_ends_the_block_with_its_error():
    def fails(number):
        if number == 30:
            raise ValueError("bad row")

    with Workers(lambda: fails, 1) as workers, pytest.raises(ValueError, match="bad row"):
        load.closed_loop(workers, 5.0, variant="candidate")
