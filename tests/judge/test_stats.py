import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from trimgate.judge import _stats


@pytest.mark.parametrize("df", [1, 2, 3, 4, 6.5, 10, 74, 1e5])
@pytest.mark.parametrize("probability", [0.005, 0.05, 0.4, 0.5, 0.9, 0.975, 0.995])
def test_t_quantile_equals_scipy(df, probability):
    expected = stats.t.ppf(probability, df)
    assert _stats.t_quantile(probability, df) == pytest.approx(expected, rel=2e-4, abs=1e-9)


@given(st.integers(0, 3000), st.integers(0, 3000))
@settings(max_examples=100)
def test_mcnemar_is_the_exact_binomial_test(won, lost):
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert _stats.mcnemar(won, lost) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_seven_lost_and_none_won():
    assert _stats.mcnemar(0, 7) == pytest.approx(0.015625)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 500), st.sampled_from([0.9, 0.95]))
@settings(max_examples=100)
def test_tango_ends_are_where_the_score_test_turns(won, lost, others, confidence):
    rows = won + lost + others
    if rows == 0:
        return
    low, high = _stats.tango(won, lost, rows, confidence)
    estimate = (won - lost) / rows
    assert -1 <= low <= estimate <= high <= 1
    z = _stats.two_sided_z(confidence)
    if low > -1 + 1e-6:
        assert _stats.tango_z(won, lost, rows, low - 1e-7) > z * (1 - 1e-3)
        assert _stats.tango_z(won, lost, rows, low + 1e-7) < z * (1 + 1e-3)
    mirrored = _stats.tango(lost, won, rows, confidence)
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("won_lost_rows", [(1, 3, 44), (0, 7, 899), (12, 4, 200), (2, 0, 30)])
@pytest.mark.parametrize("difference", [-0.1, -0.01, 0.02, 0.15])
def test_tango_uses_the_restricted_maximum_likelihood(won_lost_rows, difference):
    """Against a numeric maximum of the likelihood with the difference held fixed."""
    won, lost, rows = won_lost_rows

    def negative_log_likelihood(lost_share):
        shares = [lost_share + difference, lost_share, 1 - 2 * lost_share - difference]
        return -sum(
            count * np.log(max(share, 1e-300))
            for count, share in zip((won, lost, rows - won - lost), shares, strict=True)
            if count
        )

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    found = optimize.minimize_scalar(
        negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}
    ).x
    variance = rows * (2 * found + difference - difference**2)
    expected = (won - lost - rows * difference) / np.sqrt(variance)
    assert _stats.tango_z(won, lost, rows, difference) == pytest.approx(expected, abs=1e-3)


def test_no_discordant_row_is_the_rule_of_three():
    z2 = _stats.two_sided_z(0.9) ** 2
    expected = z2 / (100 + z2)
    assert _stats.tango(0, 0, 100, 0.9) == pytest.approx((-expected, expected), abs=1e-9)
    assert _stats.rule_of_three(100, 0.9) == pytest.approx(expected)


@given(st.integers(0, 200), st.integers(1, 200))
@settings(max_examples=50)
def test_wilson_equals_scipy(successes, failures):
    rows = successes + failures
    expected = stats.binomtest(successes, rows).proportion_ci(0.9, method="wilson")
    assert _stats.wilson(successes, rows, 0.9) == pytest.approx(
        (expected.low, expected.high), abs=1e-9
    )


def test_tango_covers_on_the_side_that_a_gate_uses():
    """The one-sided 95 % bound is above the true difference in about 5 % of samples."""
    rng = np.random.default_rng(0)
    rows, lost, won = 1000, 0.025, 0.015
    draws = rng.multinomial(rows, [lost, won, 1 - lost - won], size=4000)
    pairs, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    above = sum(
        count
        for (bad, good), count in zip(pairs, counts, strict=True)
        if _stats.tango(int(good), int(bad), rows, 0.9)[0] > won - lost
    )
    assert above / 4000 == pytest.approx(0.05, abs=0.012)
