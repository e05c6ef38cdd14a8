"""MLPerf LoadGen, for real; and what it says when it is told something wrong."""

import time

import pytest

from trimgate.judge import loadgen

SUMMARY = """SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 806.44
Result is : INVALID
  Performance constraints satisfied : NO
Recommendations:
 * Reduce target QPS to improve latency.
50.00 percentile latency (ns)   : 37893683
90.00 percentile latency (ns)   : 67919587
99.00 percentile latency (ns)   : 80311688
"""


def test_a_verdict_of_invalid_is_reported_as_such():
    found = loadgen._read(SUMMARY, "Server", "candidate", 833.0)
    assert not found.valid
    assert found.reason == "Reduce target QPS to improve latency."
    assert found.p99 == pytest.approx(0.080311688)
    assert found.per_second == pytest.approx(806.44)
    assert not loadgen._read("", "Offline", "baseline", 1.0).valid


def test_a_run_that_was_told_a_far_too_high_rate_is_invalid():
    """Ten milliseconds a call, and it is told a tenth of one: the queue of Server explodes."""
    found = loadgen.run_loadgen(
        lambda number: time.sleep(0.01), 8,
        scenario="Server", variant="candidate", seconds_per_call=1e-3, seconds=0.1, seed=0,
    )  # fmt: skip
    assert found.expected == pytest.approx(500)
    assert not found.valid
    assert found.reason


def test_single_stream_latencies_are_those_of_the_calls():
    asked = []

    def predict(number):
        asked.append(number)
        time.sleep(0.002)

    found = loadgen.run_loadgen(
        predict, 8,
        scenario="SingleStream", variant="baseline", seconds_per_call=0.002, seconds=0.1, seed=0,
    )  # fmt: skip
    assert set(asked) <= set(range(8))
    assert len(asked) >= 50
    assert 0.002 <= found.p50 <= found.p90 <= found.p99
