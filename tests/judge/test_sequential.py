"""Intervals that may be looked at again and again."""

import bisect
import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trimgate.judge.sequential import (
    proportion_high,
    proportion_low,
    quantile,
    rate_ratio,
    rows_to_stay_below,
)

shares = st.floats(0.001, 0.999)
counts = st.tuples(st.integers(0, 3000), st.integers(0, 3000)).map(lambda t: (min(t), max(t)))


@given(counts, shares, st.floats(0.001, 0.5))
def test_ends_enclose_the_share_and_mirror_each_other(count, guess, alpha):
    successes, rows = count
    low = proportion_low(successes, rows, alpha, guess)
    high = proportion_high(successes, rows, alpha, guess)
    assert 0 <= low <= high <= 1
    if rows:
        assert low - 1e-9 <= successes / rows <= high + 1e-9
    assert high == pytest.approx(1 - proportion_low(rows - successes, rows, alpha, 1 - guess))


@given(counts, shares)
def test_more_successes_never_lower_an_end(count, guess):
    successes, rows = count
    assume(successes < rows)
    for end in (proportion_low, proportion_high):
        assert end(successes + 1, rows, 0.05, guess) >= end(successes, rows, 0.05, guess) - 1e-9


def test_known_values():
    # Without an error the mixture is a quotient of two Beta functions.
    high = proportion_high(0, 416, 0.05, 0.01)
    ratio = math.lgamma(49.5 + 416) + math.lgamma(50) - math.lgamma(49.5) - math.lgamma(50 + 416)
    assert ratio - 416 * math.log(1 - high) == pytest.approx(math.log(20), abs=1e-6)
    assert rows_to_stay_below(0, 0, 0.01, 0.05) in range(405, 430)
    assert rows_to_stay_below(0, 500, 0.01, 0.05) == 0
    assert rows_to_stay_below(20, 500, 0.01, 0.05) is None
    assert proportion_high(0, 0, 0.05) == 1
    assert rate_ratio((0, 100), (0, 100), 0.05) == (0, math.inf)


def test_looking_again_and_again_errs_no_more_often_than_alpha():
    # With a fixed-size interval at 95 %, one of two such runs would err at some look.
    generator = random.Random(0)
    wrong = 0
    for _ in range(200):
        successes = 0
        for rows in range(1, 301):
            successes += generator.random() < 0.05
            if rows % 5 == 0 and proportion_low(successes, rows, 0.05, 0.05) > 0.05:
                wrong += 1
                break
    assert wrong / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_ratio_of_rates_counts_the_shares_of_the_traffic():
    low, high = rate_ratio((40, 1000), (360, 9000), 0.05)
    assert low < 1 < high < 2
    low, _ = rate_ratio((40, 400), (36, 3600), 0.05, 2)
    assert 4 < low < 10
    assert rate_ratio((0, 400), (36, 3600), 0.05, 1.5)[0] == 0


@pytest.mark.parametrize("probability", [0.5, 0.95])
def test_quantile_of_a_histogram(probability):
    generator = random.Random(1)
    edges = [0.0001 * 1.1**step for step in range(100)]
    values = [generator.lognormvariate(-6, 0.3) for _ in range(2000)]
    found = [0.0] * 101
    for value in values:
        found[bisect.bisect_left(edges, value)] += 1
    truth = math.exp(-6 + 0.3 * {0.5: 0.0, 0.95: 1.6449}[probability])
    low, high = quantile(edges, found, probability, 0.025)
    assert low < truth < high < 1.3 * low
    assert quantile(edges, [0.0] * 101, 0.5, 0.05) == (0, math.inf)
    few = [0.0] * 101
    few[50] = 3
    assert quantile(edges, few, 0.95, 0.05)[1] == math.inf
