"""What predictions cost, for any traffic: the table, and the numbers that the slider moves."""

from dataclasses import dataclass
from typing import Any

from trimgate.judge.records import BatchBenchmark, Interval
from trimgate.report._card import CardInput
from trimgate.report._format import count, number, percent
from trimgate.report._headline import rows_per_call
from trimgate.targets import Target

# Predictions a month of the table's rows; the slider runs from the first to the last of them.
_TRAFFIC = (100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
_START = 10_000_000


@dataclass(frozen=True)
class Costs:
    """What a million predictions cost, one call at a time.

    Attributes:
        baseline, winner: Money for a million predictions.
        ratio: Baseline cost / winner cost, with its interval.
    """

    baseline: float
    winner: float
    ratio: Interval


def per_million(batch: BatchBenchmark, cpu: float, target: Target) -> float | None:
    """Money for a million predictions: their CPU time, at the price of one of the threads.

    Args:
        batch: The timing.
        cpu: CPU seconds of a call of it.
        target: Its price per hour; without one the cost is not known.
    """
    if target.price_per_hour is None or batch.state == "void":
        return None
    return 1e6 * cpu / batch.batch_size * target.price_per_hour / 3600 / target.threads


def costs(card: CardInput) -> Costs | None:
    """What the two models cost; None without a winner, a price or a valid timing."""
    if card.benchmark is None or not card.benchmark.batches or card.status == "baseline":
        return None
    batch = card.benchmark.batches[0]
    baseline = per_million(batch, batch.baseline.cpu, card.target)
    winner = per_million(batch, batch.candidate.cpu, card.target)
    if not baseline or not winner:
        return None
    return Costs(baseline, winner, batch.cpu)


def money(value: float) -> str:
    """An amount with three significant digits, and two decimals from one up."""
    if 1 <= abs(value) < 1000:
        return number(value, places=2)
    return count(round(value)) if abs(value) >= 1000 else number(value)


def cost_view(card: CardInput) -> dict[str, Any] | None:
    """The table of costs by traffic, and what the slider needs to make any other row."""
    found = costs(card)
    if found is None:
        return None
    rows = [_row(found, traffic) for traffic in _TRAFFIC]
    start = _row(found, _START)
    saved = found.baseline - found.winner
    return {
        "rows": rows,
        "start": start,
        "saves": saved > 0,
        "baseline": repr(found.baseline),
        "winner": repr(found.winner),
        "low": repr(found.ratio.low),
        "high": repr(found.ratio.high),
        "share": percent(abs(saved) / found.baseline, 2),
        "basis": _basis(card),
        "exponents": (len(str(_TRAFFIC[0])) - 1, len(str(_TRAFFIC[-1])) - 1),
        "value": len(str(_START)) - 1,
    }


def _row(found: Costs, traffic: int) -> dict[str, str]:
    scale = traffic / 1e6
    baseline, winner = found.baseline * scale, found.winner * scale
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


def _basis(card: CardInput) -> str:
    """What the amounts are made from."""
    threads = card.target.threads
    return (
        f"CPU time of {rows_per_call(card.target.batch_sizes[0])} per call, at "
        f"{number(card.target.price_per_hour)} an hour for the target’s {count(threads)} "
        f"thread{'s' * (threads != 1)} in full use. What a machine costs while it waits is not "
        "in it."
    )
