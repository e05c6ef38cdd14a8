"""How many rows would decide a rule that is inconclusive."""

import math
from collections.abc import Callable

from trimgate.judge import _stats
from trimgate.judge.records import Flips, Interval

POWER = 0.8
_MOST = 1_000_000_000


def rows_for_accuracy(flips: Flips, margin: float, confidence: float) -> int | None:
    """Rows after which the paired accuracy gate decides, with about 80 % power.

    The shares of won and lost rows are taken to stay as they are. The answer is the least n
    at which the end of Tango's interval that has to clear the margin does so by 0.84 standard
    errors (the 80 % quantile). With no discordant row that is z²(1 - margin) / margin. By
    simulation the power is 77 to 84 % with a dozen discordant rows or more, and down to 65 %
    when there were only a few.

    Args:
        flips: What was seen.
        margin: Largest drop allowed, above or equal to 0.
        confidence: One-sided.

    Returns:
        None when more rows would not decide it, as the drop sits on the margin.
    """
    won, lost = flips.won / flips.rows, flips.lost / flips.rows
    level = 2 * confidence - 1
    spread = math.sqrt(max(won + lost - (won - lost) ** 2, 0.0))
    passes = won - lost > -margin

    def decided(rows: float) -> bool:
        slack = _stats.normal_quantile(POWER) * spread / math.sqrt(rows)
        low, high = _stats.tango(won * rows, lost * rows, rows, level)
        return low - slack > -margin if passes else high + slack < -margin

    return _search(decided, flips.rows)


def rows_for_interval(
    worsening: Interval, margin: float, rows: int, confidence: float
) -> int | None:
    """Rows after which the gate decides, with 80 % power, for a bootstrapped metric.

    From the usual sample size of a non-inferiority test: the standard error, read off the
    interval, shrinks with the square root of the rows, and has to become
    |margin - worsening| / (z_confidence + z_power).

    Args:
        worsening: By how much the candidate is worse, at the gate's two-sided level.
        margin: Largest worsening allowed.
        rows: Rows it was seen on.
        confidence: One-sided.

    Returns:
        None when more rows would not decide it.
    """
    z = _stats.normal_quantile(confidence)
    distance = margin - worsening.value
    half = worsening.high - worsening.value if distance > 0 else worsening.value - worsening.low
    if distance == 0 or half <= 0:
        return None
    needed = rows * (half / z * (z + _stats.normal_quantile(POWER)) / distance) ** 2
    return max(rows + 1, math.ceil(needed)) if needed < _MOST else None


def rows_for_share(seen: float, limit: float, rows: int, confidence: float) -> int | None:
    """The same for a share of rows with Wilson's interval, compared with a limit."""
    level, spread = 2 * confidence - 1, math.sqrt(seen * (1 - seen))
    below = seen < limit

    def decided(count: float) -> bool:
        slack = _stats.normal_quantile(POWER) * spread / math.sqrt(count)
        low, high = _stats.wilson(seen * count, count, level)
        return high + slack <= limit if below else low - slack > limit

    return _search(decided, rows)


def _search(decided: Callable[[float], bool], rows: int) -> int | None:
    low, high = rows, rows + 1
    while not decided(high):
        low, high = high, high * 2
        if high > _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
