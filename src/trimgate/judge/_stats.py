"""Closed-form statistics that the judge needs, without SciPy."""

import math
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal distribution."""
    return _NORMAL.inv_cdf(probability)


def normal_cdf(value: float) -> float:
    """Distribution function of the standard normal distribution."""
    return _NORMAL.cdf(value)


def two_sided_z(confidence: float) -> float:
    """The z of a two-sided interval: 1.96 for 0.95."""
    return normal_quantile(0.5 + confidence / 2)


def t_quantile(probability: float, df: float) -> float:
    """Quantile of Student's t distribution.

    Source: G. W. Hill, "Algorithm 396: Student's t-quantiles", CACM 13 (1970); exact for 1 and
    2 degrees of freedom, else good to about six digits for `df` of 3 and more.

    Args:
        probability: Above 0 and below 1.
        df: Degrees of freedom, at least 1; need not be whole.
    """
    if probability < 0.5:
        return -t_quantile(1 - probability, df)
    tail = 2 * (1 - probability)
    if tail >= 1:
        return 0.0
    if df < 2:  # between the two exact cases the wider one holds
        return 1 / math.tan(tail * math.pi / 2)
    if df < 3:
        return math.sqrt(2 / (tail * (2 - tail)) - 2)
    a = 1 / (df - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * df
    y = (d * tail) ** (2 / df)
    if y > 0.05 + a:
        x = normal_quantile(tail / 2)
        y = x * x
        if df < 5:
            c += 0.3 * (df - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        y = (
            (1 / (((df + 6) / (df * y) - 0.089 * d - 0.822) * (df + 2) * 3) + 0.5 / (df + 4)) * y
            - 1
        ) * (df + 1) / (df + 2) + 1 / y
    return math.sqrt(df * y)


def wilson(successes: float, rows: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, JASA 22, 1927)."""
    z = two_sided_z(confidence)
    share = successes / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def tango(won: float, lost: float, rows: float, confidence: float) -> tuple[float, float]:
    """Score interval of a difference of paired proportions, candidate minus baseline.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design", Statistics in Medicine 17 (1998). With no discordant row it
    is plus and minus z²/(rows + z²), so a tie on few rows is not a proof.

    Args:
        won: Rows that only the candidate has right.
        lost: Rows that only the baseline has right.
        rows: All rows.
        confidence: Two-sided.

    Returns:
        Lower and upper end, within [-1, 1].
    """
    z = two_sided_z(confidence)
    estimate = (won - lost) / rows
    low = _tango_end(won, lost, rows, z, -1.0, estimate)
    high = -_tango_end(lost, won, rows, z, -1.0, -estimate)
    return low, high


def _tango_end(won: float, lost: float, rows: float, z: float, low: float, high: float) -> float:
    """The smallest difference that the score test does not reject; bisected to 1e-12."""
    for _ in range(60):
        middle = (low + high) / 2
        if tango_z(won, lost, rows, middle) > z:
            low = middle
        else:
            high = middle
        if high - low < 1e-12:
            break
    return low


def tango_z(won: float, lost: float, rows: float, difference: float) -> float:
    """Tango's score statistic of the hypothesis that the true difference is `difference`."""
    a = 2.0 * rows
    b = -won - lost + (2.0 * rows - won + lost) * difference
    c = -lost * difference * (1.0 - difference)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = rows * (2 * q + difference * (1.0 - difference))
    distance = won - lost - rows * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def mcnemar(won: int, lost: int) -> float:
    """Exact two-sided McNemar test: the binomial test of `won` against `lost`.

    Returns:
        The p-value; 1.0 when no row is discordant.
    """
    discordant, fewer = won + lost, min(won, lost)
    if discordant == 0:
        return 1.0
    steps = np.arange(1, fewer + 1, dtype=np.float64)
    logs = np.concatenate([[0.0], np.cumsum(np.log((discordant - steps + 1) / steps))])
    log_tail = logs.max() + math.log(np.exp(logs - logs.max()).sum())
    return min(1.0, 2 * math.exp(log_tail - discordant * math.log(2)))


def rule_of_three(rows: float, confidence: float) -> float:
    """Upper bound of the share of rows that behave in a way that none of `rows` showed.

    It is the score bound z²/(rows + z²), the one that Wilson's and Tango's intervals give when
    the count is zero.
    """
    z = two_sided_z(confidence)
    return z * z / (rows + z * z)
