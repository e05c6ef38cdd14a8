import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimgate.judge.objective import gains, label, timed_batches, weighted_gain, weights_of, words
from trimgate.judge.records import Interval


def test_one_name_is_one_weight():
    assert weights_of("size") == {"size": 1.0}
    assert label("size") == "size"
    assert words("size") == "smaller"


def test_weights_are_shares():
    assert weights_of({"latency": 3, "size": 1}) == {"latency": 0.75, "size": 0.25}
    assert label({"latency": 3, "size": 1}) == "latency (75%) and size (25%)"


@pytest.mark.parametrize("bad", [{}, {"size": 0.0}, {"size": -1.0}, {"size": float("nan")}])
def test_bad_weights(bad):
    with pytest.raises(ValueError, match="weight above 0"):
        weights_of(bad)


def test_gains_are_above_one_where_the_candidate_is_better(make_benchmark):
    found = gains(make_benchmark(value=2.0, size=25, rss=50 * 2**20))
    assert {name: gain.value for name, gain in found.items()} == {
        "latency": 2.0,
        "throughput": 2.0,
        "size": 4.0,
        "memory": 4.0,
        "cost": 2.0,
    }


@given(st.floats(0.01, 0.99))
def test_the_weighted_gain_lies_between_the_gains(weight):
    found = {
        "latency": Interval(value=2.0, low=1.9, high=2.1),
        "size": Interval(value=8.0, low=8.0, high=8.0),
    }
    gain = weighted_gain(found, {"latency": weight, "size": 1 - weight})
    assert 1.99 <= gain.value <= 8.01
    assert gain.low <= gain.value <= gain.high


def test_timings_that_count(make_benchmark):
    benchmark = make_benchmark()
    assert timed_batches(benchmark, "size") == []
    assert timed_batches(benchmark, {"cost": 1, "size": 1}) == [benchmark.batches[0]]
