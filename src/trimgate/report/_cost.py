"""What predictions cost, for any traffic: the table, and the numbers that the slider moves."""

from typing import Any

from trimgate.judge.records import Cost
from trimgate.report._card import CardInput
from trimgate.report._format import count, number, percent
from trimgate.report._headline import rows_per_call

# Predictions a month of the table's rows; the slider runs from the first to the last of them.
_TRAFFIC = tuple(10**power for power in range(6, 12))
_START = 100_000_000


def money(value: float) -> str:
    """An amount with three significant digits, and two decimals from one up."""
    if 1 <= abs(value) < 1000:
        return number(value, places=2)
    return count(round(value)) if abs(value) >= 1000 else number(value)


def cost_view(card: CardInput) -> dict[str, Any] | None:
    """The table of costs by traffic, and what the slider needs to make any other row.

    None without a winner, where no price is known, and where the timing is void.
    """
    benchmark = card.benchmark
    found = benchmark.cost if benchmark else None
    if found is None or benchmark is None or card.status == "baseline":
        return None
    if not benchmark.batches or benchmark.batches[0].state == "void":
        return None
    return {
        "rows": [_row(found, traffic) for traffic in _TRAFFIC],
        "start": _row(found, _START),
        "saves": found.baseline > found.candidate,
        "baseline": repr(found.baseline),
        "winner": repr(found.candidate),
        "low": repr(found.ratio.low),
        "high": repr(found.ratio.high),
        "currency": found.currency,
        "basis": _basis(card, found),
        "month": _month(found),
        "exponents": (len(str(_TRAFFIC[0])) - 1, len(str(_TRAFFIC[-1])) - 1),
        "value": len(str(_START)) - 1,
    }


def _row(found: Cost, traffic: int) -> dict[str, str]:
    scale = traffic / 1e6
    baseline, winner = found.baseline * scale, found.candidate * scale
    low, high = (
        baseline * (1 - 1 / end) if end > 0 else float("-inf")
        for end in (found.ratio.low, found.ratio.high)
    )
    return {
        "traffic": count(traffic),
        "baseline": money(baseline),
        "winner": money(winner),
        "saving": money(baseline - winner),
        "interval": f"[{money(low)}, {money(high)}]",
        "year": money(12 * (baseline - winner)),
    }


def _basis(card: CardInput, found: Cost) -> str:
    """What the amounts are made from."""
    source = f"{found.price} ({found.table})" if found.table else found.price.replace("_", " ")
    return (
        f"CPU time of {rows_per_call(card.target.batch_sizes[0])} per call, at "
        f"{number(found.price_per_core_hour)} {found.currency} for an hour of a core: {source}. "
        "Cores are reckoned in full use; what a machine costs while it waits is not in it."
    )


def _month(found: Cost) -> str:
    """What whole machines cost for the traffic that the config names; else empty."""
    if found.traffic is None or found.baseline_month is None or found.candidate_month is None:
        return ""
    return (
        f"For {number(found.traffic)} predictions a second, on whole machines of which "
        f"{percent(found.utilisation, 2)} is planned with: {money(found.baseline_month)} → "
        f"{money(found.candidate_month)} {found.currency} a month."
    )
