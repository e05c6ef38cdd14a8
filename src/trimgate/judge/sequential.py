"""Intervals that hold at every look, so that one may look as often as one likes.

An interval of 95 % that is computed again and again while data come in misses the truth at some
look far more often than in 5 % of the cases. A confidence sequence misses it at any look, ever,
in 5 % at most; nothing has to be known of when and how often one looks.

Source: H. Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math.
Stat. 41 (1970), and S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform,
nonparametric, nonasymptotic confidence sequences", Ann. Stat. 49 (2021): the likelihood ratio of a
mixture is a martingale under the truth, which by Ville's inequality exceeds 1/alpha with a
probability of alpha at most. The mixture here is the Beta distribution, so all ends are exact.
"""

import math
from collections.abc import Sequence

_STEPS = 44  # halvings of [0, 1]: to 1e-13


def proportion_low(successes: float, rows: float, alpha: float, guess: float = 0.5) -> float:
    """Lower end of a proportion, below the truth at every look but for a probability `alpha`.

    Args:
        successes: Rows that show it, at most `rows`.
        rows: All rows so far.
        alpha: One-sided.
        guess: The proportion near which the interval shall be narrow, chosen before the data:
            the limit that it will be compared with.
    """
    return 1.0 - proportion_high(rows - successes, rows, alpha, 1.0 - guess)


def proportion_high(successes: float, rows: float, alpha: float, guess: float = 0.5) -> float:
    """Upper end of a proportion; see `proportion_low`."""
    if rows <= 0 or successes >= rows:
        return 1.0
    a, b = _prior(guess)
    log_mixture = _log_beta(a + successes, b + rows - successes) - _log_beta(a, b)
    low, high = successes / rows, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _log_ratio(log_mixture, successes, rows, middle) < -math.log(alpha):
            low = middle
        else:
            high = middle
    return high


def rows_to_stay_below(
    successes: float, rows: float, limit: float, alpha: float, most: int = 10**9
) -> int | None:
    """About how many more rows show that a proportion is at most `limit`.

    Args:
        successes: Rows that show it so far.
        rows: All rows so far.
        limit: What is to be shown.
        alpha: One-sided.
        most: More are not counted.

    Returns:
        0 when it is shown; None when rows like those so far would never show it.
    """
    a, b = _prior(limit)

    def shown(more: float) -> bool:
        count, total = successes + share * more, rows + more
        mixture = _log_beta(a + count, b + total - count) - _log_beta(a, b)
        return _log_ratio(mixture, count, total, limit) >= -math.log(alpha)

    share = successes / rows if rows else 0.0
    if share >= limit:
        return None
    if shown(0):
        return 0
    more = 1
    while not shown(more):
        more *= 2
        if more > most:
            return None
    low = more // 2
    while more - low > max(1, low // 50):
        middle = (low + more) // 2
        low, more = (low, middle) if shown(middle) else (middle, more)
    return more


def rate_ratio(
    own: tuple[float, float], other: tuple[float, float], alpha: float, limit: float = 1.0
) -> tuple[float, float]:
    """Ends of the ratio of two rates of events, each one-sided at `alpha`.

    Given how many events there are in all, the number of those that are `own` is binomial (J.
    Przyborowski, H. Wilenski, "Homogeneity of results in testing samples from Poisson series",
    Biometrika 31, 1940); its confidence sequence is turned into one of the ratio.

    Args:
        own: Events, and trials of those whose rate is the numerator.
        other: Events and trials of the denominator.
        alpha: One-sided.
        limit: The ratio near which the interval shall be narrow.

    Returns:
        Lower and upper end; 0 and infinity where nothing can be said.
    """
    events = own[0] + other[0]
    if not (own[1] > 0 and other[1] > 0 and events > 0):
        return 0.0, math.inf
    odds = own[1] / other[1]
    guess = limit * odds / (1 + limit * odds)

    def ratio(share: float) -> float:
        return math.inf if share >= 1 else share / (1 - share) / odds

    return (
        ratio(proportion_low(own[0], events, alpha, guess)),
        ratio(proportion_high(own[0], events, alpha, guess)),
    )


def quantile(
    edges: Sequence[float], counts: Sequence[float], probability: float, alpha: float
) -> tuple[float, float]:
    """Ends of a quantile that is known from a histogram, each one-sided at `alpha`.

    Source: S. R. Howard, A. Ramdas, "Sequential estimation of quantiles with applications to A/B
    testing and best-arm identification", Bernoulli 28 (2022): a value is in the interval unless
    the count of rows below it could not come from that probability. Between the edges of a bucket
    its rows are taken to lie evenly on a logarithmic scale, so an end is known no better than the
    buckets are wide.

    Args:
        edges: Upper edges of the buckets, rising and above 0; what lies above the last is in a
            bucket without an end.
        counts: Rows in each bucket, one more than edges.
        probability: Which quantile, such as 0.5.
        alpha: One-sided.

    Returns:
        Lower and upper end; 0 and infinity where nothing can be said.
    """
    rows = sum(counts)
    if rows <= 0:
        return 0.0, math.inf
    few, many = _plausible_counts(rows, probability, alpha)
    low = 0.0 if few is None else _at(edges, counts, few)
    high = math.inf if many is None else _at(edges, counts, many)
    return low, high


def _plausible_counts(
    rows: float, probability: float, alpha: float
) -> tuple[float | None, float | None]:
    """The fewest and the most rows below the quantile that are not implausible; None: any."""
    a, b = _prior(probability)
    ends: list[float | None] = []
    for extreme in (0.0, rows):

        def implausible(count: float) -> bool:
            mixture = _log_beta(a + count, b + rows - count) - _log_beta(a, b)
            return _log_ratio(mixture, count, rows, probability) >= -math.log(alpha)

        if not implausible(extreme):
            ends.append(None)
            continue
        outside, inside = extreme, rows * probability
        for _ in range(_STEPS):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if implausible(middle) else (outside, middle)
        ends.append(outside)
    return ends[0], ends[1]


def _at(edges: Sequence[float], counts: Sequence[float], wanted: float) -> float:
    """The value below which `wanted` rows lie."""
    below = 0.0
    for position, count in enumerate(counts):
        if below + count >= wanted and count > 0:
            if position == len(edges):
                return math.inf
            upper = edges[position]
            lower = edges[position - 1] if position else upper / 2
            return lower * float((upper / lower) ** ((wanted - below) / count))
        below += count
    return math.inf


def _prior(guess: float) -> tuple[float, float]:
    """Parameters of the mixture: the guess in the mean, and wide."""
    guess = min(max(guess, 1e-9), 1 - 1e-9)
    rarer = min(guess, 1 - guess)
    return 0.5 * guess / rarer, 0.5 * (1 - guess) / rarer


def _log_ratio(log_mixture: float, successes: float, rows: float, share: float) -> float:
    """Log of the mixture's likelihood over that of `share`."""
    likelihood = 0.0
    for count, probability in ((successes, share), (rows - successes, 1 - share)):
        if count > 0:
            likelihood += count * math.log(probability) if probability > 0 else -math.inf
    return log_mixture - likelihood


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
