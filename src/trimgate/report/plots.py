"""The pictures of the card: pure functions from numbers to inline SVG.

They carry no colours: the card's style sheet gives them by class, so that light, dark and print
each have their own. Every text in them is escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trimgate.judge.records import Interval, Timing
from trimgate.report._format import TIMES, Cell, seconds
from trimgate.report._pareto import ParetoPoint, front, pareto
from trimgate.report._svg import Svg, scale, text_width

__all__ = ["LatencyRow", "ParetoPoint", "forest", "front", "latency_bars", "pareto"]

Side = Literal["above", "below"]


@dataclass(frozen=True)
class LatencyRow:
    """One bar of `latency_bars`.

    Attributes:
        label: Whose time it is.
        kind: `baseline` or `winner`.
        p50, p95, p99: Seconds; None is not drawn.
    """

    label: str
    kind: Literal["baseline", "winner"]
    p50: float
    p95: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, label: str, kind: Literal["baseline", "winner"], timing: Timing) -> "LatencyRow":
        """The bar of a benchmark's timing."""
        return cls(label, kind, timing.p50, timing.p95, timing.p99)


def forest(
    observed: Interval | None,
    limit: float | None,
    outcome: Literal["pass", "fail", "inconclusive"],
    *,
    allowed: Side | None,
    neutral: float | None,
    shown: Cell,
    shown_limit: str,
) -> str:
    """An interval against the limit of a rule.

    Args:
        observed: Value and interval; without a width only the point is drawn.
        limit: The rule's limit.
        outcome: Colours the interval.
        allowed: The side of the limit that passes; the other side is shaded.
        neutral: The value that means "no change" (0 for differences, 1 for ratios), marked.
        shown: The observed value as the card shows it, for screen readers.
        shown_limit: The limit as the card shows it.

    Returns:
        An `<svg>` element 260 x 46; empty when there is nothing to draw.
    """
    if observed is None or limit is None:
        return ""
    values = [observed.low, observed.value, observed.high, limit]
    if neutral is not None and _near(neutral, values):
        values.append(neutral)
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) or abs(high) * 0.1 or 1.0
    width, height, middle = 260.0, 46.0, 15.0
    x = scale(low - margin, high + margin, 4, width - 4)
    svg = Svg(width, height, f"{shown} against the limit {shown_limit}: {outcome}", "forest")
    if allowed:
        start, end = (0.0, x(limit)) if allowed == "above" else (x(limit), width)
        svg.add("rect", "refused", x=start, y=2.0, width=end - start, height=26.0, rx=3.0)
    svg.add("line", "axis", x1=0.0, x2=width, y1=middle, y2=middle)
    if neutral in values and neutral is not None and neutral != limit:
        svg.add("line", "neutral", x1=x(neutral), x2=x(neutral), y1=2.0, y2=28.0)
    svg.add("line", "limit", x1=x(limit), x2=x(limit), y1=0.0, y2=30.0)
    kind = f"interval {outcome}"
    if observed.high > observed.low:
        left, right = x(observed.low), x(observed.high)
        svg.add("line", kind, x1=left, x2=right, y1=middle, y2=middle)
        for end in (left, right):
            svg.add("line", kind, x1=end, x2=end, y1=middle - 5, y2=middle + 5)
    _mark(svg, x(observed.value), middle, outcome)
    _axis_labels(svg, x(limit), f"limit {shown_limit}", neutral, x, neutral in values, limit)
    return svg.render()


def latency_bars(rows: Sequence[LatencyRow], title: str) -> str:
    """Medians as bars with ticks at the 95th and 99th percentile, on one linear scale.

    Args:
        rows: Baseline and winner of one interleaved measurement.
        title: What a screen reader says first.

    Returns:
        An `<svg>` element 380 wide.
    """
    width, bar, gap, left, right = 380.0, 18.0, 14.0, 68.0, 72.0
    height = len(rows) * (bar + gap) + 6
    longest = max((max(r.p50, r.p95 or 0, r.p99 or 0) for r in rows), default=0) or 1.0
    x = scale(0, longest, left, width - right)
    told = "; ".join(
        f"{r.label}: " + ", ".join(f"{n} {seconds(v)}" for n, v in _percentiles(r)) for r in rows
    )
    svg = Svg(width, height, f"{title}. {told}", "bars")
    for index, row in enumerate(rows):
        top = 6 + index * (bar + gap)
        middle = top + bar / 2
        details = ", ".join(f"{n} {seconds(v)}" for n, v in _percentiles(row))
        group = svg.group(f"bar {row.kind}", f"{row.label}: {details}")
        svg.text(left - 10, middle + 4, row.label, "name", "end", group)
        length = max(1.5, x(row.p50) - left)
        svg.add("rect", "body", group, x=left, y=top, width=length, height=bar, rx=2.5)
        ends = [x(row.p50)]
        for name, value in _percentiles(row)[1:]:
            ends.append(x(value))
            svg.add("line", "reach", group, x1=ends[0], x2=ends[-1], y1=middle, y2=middle)
            half = 6.0 if name == "p95" else 4.0
            svg.add(
                "line", "tick", group, x1=ends[-1], x2=ends[-1], y1=middle - half, y2=middle + half
            )
        svg.text(max(ends) + 8, middle + 4, seconds(row.p50), "value", "start", group)
    return svg.render()


def _percentiles(row: LatencyRow) -> list[tuple[str, float]]:
    pairs = (("p50", row.p50), ("p95", row.p95), ("p99", row.p99))
    return [(name, value) for name, value in pairs if value is not None]


def _near(neutral: float, values: Sequence[float]) -> bool:
    """Whether drawing the neutral value would not squash the rest."""
    low, high = min(values), max(values)
    return (
        min(abs(neutral - low), abs(neutral - high)) <= 4 * (high - low) or low <= neutral <= high
    )


def _mark(svg: Svg, x: float, y: float, outcome: str) -> None:
    """A disc for pass, a square for fail, a diamond for inconclusive: shape, not only colour."""
    if outcome == "pass":
        svg.add("circle", f"mark {outcome}", cx=x, cy=y, r=5.0)
    elif outcome == "fail":
        svg.add("rect", f"mark {outcome}", x=x - 4.5, y=y - 4.5, width=9.0, height=9.0)
    else:
        corners = ((x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        svg.add("polygon", f"mark {outcome}", points=points)


def _axis_labels(
    svg: Svg,
    at: float,
    text: str,
    neutral: float | None,
    x: object,
    drawn: bool,
    limit: float,
) -> None:
    """The limit's label under its line, and the neutral value's where there is room for it."""
    width = 260.0
    half = text_width(text, 11) / 2
    centre = min(max(at, half + 1), width - half - 1)
    svg.text(centre, 43, text, "limit-label", "middle")
    if neutral is None or not drawn or neutral == limit or not callable(x):
        return
    name = "0" if neutral == 0 else f"1{TIMES}"
    place = x(neutral)
    if abs(place - centre) > half + 12:
        svg.text(place, 43, name, "neutral-label", "middle")
