"""Quality against speed: every candidate with error bars, the front, labels that do not collide."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from trimgate.judge.records import Interval
from trimgate.report._format import TIMES, number
from trimgate.report._svg import (
    FONT,
    Box,
    Svg,
    linear_ticks,
    log_ticks,
    scale,
    shorten,
    text_width,
    tick_texts,
)

_WIDTH = 900.0
_RADIUS = 6.0
_LONGEST = 48
# A quality this many front heights below the front is drawn at the edge, lest it flatten the rest.
_REACH = 1.2


@dataclass(frozen=True)
class ParetoPoint:
    """One model in the plot.

    Attributes:
        label: Its name.
        speed: Speed-up; above 1 is faster than the baseline.
        quality: In the unit of the axis.
        kind: `winner`, `baseline` or `other`.
        title: All its numbers, shown on hover.
    """

    label: str
    speed: Interval
    quality: Interval
    kind: Literal["winner", "baseline", "other"] = "other"
    title: str = ""


@dataclass
class _Labels:
    """Places labels one after the other, each where it collides least."""

    area: Box
    taken: list[Box] = field(default_factory=list)

    def place(self, x: float, y: float, text: str) -> tuple[Box, bool]:
        """A box for a text beside the mark at (x, y), and whether it needs a leader line."""
        width, height = text_width(text, FONT), FONT + 3
        best: tuple[float, Box, bool] | None = None
        for ring, distance in enumerate((11, 24, 40, 60, 84)):
            for turn in range(12):
                angle = math.radians(turn * 30)
                box = _beside(x, y, width, height, distance, angle)
                if not box.inside(self.area):
                    continue
                # Right of the mark is where a reader looks first; far away is hard to follow.
                cost = (
                    sum(box.overlap(t) for t in self.taken) + 3 * ring + 0.4 * min(turn, 12 - turn)
                )
                if best is None or cost < best[0]:
                    best = (cost, box, ring > 0)
        if best is None:
            left = max(self.area.left, min(x, self.area.right - width))
            best = (0.0, Box(left, y - 26, left + width, y - 26 + height), True)
        self.taken.append(best[1])
        return best[1], best[2]


def front(points: Sequence[ParetoPoint], *, higher_is_better: bool = True) -> list[ParetoPoint]:
    """The points that no other beats in both speed and quality, slowest first."""
    sign = 1 if higher_is_better else -1
    kept: list[ParetoPoint] = []
    for point in sorted(points, key=lambda p: (-p.speed.value, -sign * p.quality.value)):
        if not kept or sign * point.quality.value > sign * kept[-1].quality.value:
            kept.append(point)
    return kept[::-1]


def pareto(
    points: Sequence[ParetoPoint],
    *,
    x_label: str,
    y_label: str,
    y_unit: str = "",
    y_signed: bool = True,
    higher_is_better: bool = True,
) -> str:
    """Quality against speed-up; up and right are better.

    The speed axis is logarithmic when the speed-ups span more than a factor of 5. An axis of a
    metric where less is better runs downwards.

    Args:
        points: The models; their error bars are the intervals.
        x_label: What the speed axis shows.
        y_label: What the quality axis shows.
        y_unit: Written after the quality ticks.
        y_signed: Whether the quality is a difference, shown with its sign.
        higher_is_better: Of the quality.

    Returns:
        An `<svg>` element 900 wide; empty without points.
    """
    points = [p for p in points if p.speed.value > 0 and _finite(p)]
    if not points:
        return ""
    best = front(points, higher_is_better=higher_is_better)
    height = 420.0 if len(points) <= 8 else 500.0
    area = Box(64, 34, _WIDTH - 20, height - 56)
    axes = _Axes(
        area,
        *_speed_axis(points, area),
        *_quality_axis(points, best, area, higher_is_better),
        higher_is_better,
    )
    said = ", ".join(p.label for p in best)
    svg = Svg(_WIDTH, height, f"{y_label} against {x_label}. On the front: {said}", "pareto")
    _grid(svg, axes, y_unit=y_unit, y_signed=y_signed)
    svg.text(area.left, 16, f"↑ {y_label}", "axis-label")
    suffix = ", logarithmic" if axes.log else ""
    svg.text(area.right, height - 8, f"{x_label}{suffix} →", "axis-label", "end")
    _front_line(svg, best, axes)
    _points(svg, points, best, axes)
    return svg.render()


@dataclass(frozen=True)
class _Axes:
    """Where data stands in the picture."""

    area: Box
    x: Callable[[float], float]
    log: bool
    x_range: tuple[float, float]
    y: Callable[[float], float]
    y_range: tuple[float, float]
    higher_is_better: bool

    def at(self, point: ParetoPoint) -> tuple[float, float]:
        """Coordinates of a point."""
        return self.x(point.speed.value), self.y(point.quality.value)

    def is_off(self, point: ParetoPoint) -> bool:
        """Whether a point is so bad that it stands at the edge instead."""
        low, high = self.y_range
        return not low <= point.quality.value <= high


def _finite(point: ParetoPoint) -> bool:
    return math.isfinite(point.speed.value) and math.isfinite(point.quality.value)


def _ends(interval: Interval) -> tuple[float, float]:
    low, high = interval.low, interval.high
    return (
        low if math.isfinite(low) else interval.value,
        high if math.isfinite(high) else interval.value,
    )


def _speed_axis(
    points: Sequence[ParetoPoint], area: Box
) -> tuple[Callable[[float], float], bool, tuple[float, float]]:
    values = [p.speed.value for p in points] + [1.0]
    ends = [e for p in points for e in _ends(p.speed) if e > 0]
    low, high = min(values + ends), max(values + ends)
    log = max(values) / min(values) > 5
    if log:
        room = (high / low) ** 0.09
        low, high = low / room, high * room
    else:
        room = 0.1 * (high - low) or 0.1
        low, high = max(0.0, low - room), high + room
    return scale(low, high, area.left, area.right, log=log), log, (low, high)


def _quality_axis(
    points: Sequence[ParetoPoint], best: Sequence[ParetoPoint], area: Box, higher_is_better: bool
) -> tuple[Callable[[float], float], tuple[float, float]]:
    low, high = _span(points)
    core_low, core_high = _span([*best, *(p for p in points if p.kind != "other")])
    reach = _REACH * (core_high - core_low)
    if higher_is_better and reach:
        low = max(low, core_low - reach)
    elif reach:
        high = min(high, core_high + reach)
    room = 0.12 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    bottom, top = (area.bottom, area.top) if higher_is_better else (area.top, area.bottom)
    return scale(low, high, bottom, top), (low, high)


def _span(points: Sequence[ParetoPoint]) -> tuple[float, float]:
    ends = [e for p in points for e in (*_ends(p.quality), p.quality.value)]
    return min(ends), max(ends)


def _grid(svg: Svg, axes: _Axes, *, y_unit: str, y_signed: bool) -> None:
    area, x, y = axes.area, axes.x, axes.y
    ticks = linear_ticks(*axes.y_range)
    for value, text in zip(ticks, tick_texts(ticks, y_unit, plus=y_signed), strict=True):
        svg.add("line", "grid", x1=area.left, x2=area.right, y1=y(value), y2=y(value))
        svg.text(area.left - 10, y(value) + 4, text, "tick-label", "end")
    ticks = log_ticks(*axes.x_range) if axes.log else linear_ticks(*axes.x_range, 7)
    for value, text in zip(ticks, tick_texts(ticks, TIMES), strict=True):
        svg.add("line", "grid", x1=x(value), x2=x(value), y1=area.top, y2=area.bottom)
        svg.text(x(value), area.bottom + 20, text, "tick-label", "middle")
    if axes.x_range[0] < 1 < axes.x_range[1]:
        svg.add("line", "same", x1=x(1), x2=x(1), y1=area.top, y2=area.bottom)
    if y_signed and axes.y_range[0] < 0 < axes.y_range[1]:
        svg.add("line", "same", x1=area.left, x2=area.right, y1=y(0), y2=y(0))


def _front_line(svg: Svg, best: Sequence[ParetoPoint], axes: _Axes) -> None:
    """Steps, since nothing is known to lie between two candidates."""
    path: list[str] = []
    for point in best:
        x, y = axes.at(point)
        path.append(f"M{axes.area.left:.1f},{y:.1f}" if not path else f"V{y:.1f}")
        path.append(f"H{x:.1f}")
    path.append(f"V{axes.area.bottom:.1f}")
    svg.add("path", "front", d="".join(path))


def _points(
    svg: Svg, points: Sequence[ParetoPoint], best: Sequence[ParetoPoint], axes: _Axes
) -> None:
    labels = _Labels(axes.area)
    for point in points:
        x, y = axes.at(point)
        reach = _RADIUS + (6 if point.kind == "winner" else 2)
        labels.taken.append(Box(x - reach, y - reach, x + reach, y + reach))
        (left, right), (top, bottom) = _bars(point, axes)
        labels.taken.append(Box(left, y - 2, right, y + 2))
        labels.taken.append(Box(x - 2, top, x + 2, bottom))
    before = axes.area.left
    for point in best:
        x, y = axes.at(point)
        labels.taken.append(Box(before, y - 2, x, y + 2))
        before = x
    for point in sorted(points, key=lambda p: p.kind == "winner"):
        _point(svg, point, axes, on_front=point in best)
    for point in sorted(points, key=lambda p: (p.kind == "other", p not in best)):
        _label(svg, labels, point, axes)


def _bars(point: ParetoPoint, axes: _Axes) -> tuple[list[float], list[float]]:
    """Ends of the error bars: left and right, top and bottom."""
    return (
        sorted(map(axes.x, _ends(point.speed))),
        sorted(map(axes.y, _ends(point.quality))),
    )


def _point(svg: Svg, point: ParetoPoint, axes: _Axes, *, on_front: bool) -> None:
    x, y = axes.at(point)
    (left, right), (top, bottom) = _bars(point, axes)
    kind = f"point {point.kind}" + (" on-front" if on_front else "")
    group = svg.group(kind, point.title or point.label)
    svg.add("line", "error", group, x1=left, x2=right, y1=y, y2=y)
    svg.add("line", "error", group, x1=x, x2=x, y1=top, y2=bottom)
    if point.kind == "winner":
        svg.add("circle", "halo", group, cx=x, cy=y, r=_RADIUS + 5)
    if axes.is_off(point):
        # Worse is always down: an arrow that points out of the picture.
        corners = ((x - 7, y - 13), (x + 7, y - 13), (x, y - 2))
        svg.add("polygon", "mark", group, points=" ".join(f"{a:.1f},{b:.1f}" for a, b in corners))
    elif point.kind == "baseline":
        side = 2 * _RADIUS - 2
        svg.add("rect", "mark", group, x=x - side / 2, y=y - side / 2, width=side, height=side)
    else:
        svg.add("circle", "mark", group, cx=x, cy=y, r=_RADIUS)


def _label(svg: Svg, labels: _Labels, point: ParetoPoint, axes: _Axes) -> None:
    x, y = axes.at(point)
    text = shorten(point.label, _LONGEST)
    if axes.is_off(point):
        y -= 9
        text += f" ({number(point.quality.value)})"
    box, leader = labels.place(x, y, text)
    if leader:
        near_x = min(max(x, box.left), box.right)
        near_y = min(max(y, box.top + 2), box.bottom - 2)
        svg.add("line", "leader", x1=x, y1=y, x2=near_x, y2=near_y)
    svg.text(box.left, box.bottom - 4, text, f"label {point.kind}")


def _beside(x: float, y: float, width: float, height: float, distance: float, angle: float) -> Box:
    """A box whose nearest edge is `distance` from (x, y) in the direction of the angle."""
    across, along = math.cos(angle), math.sin(angle)
    centre_x = x + across * distance + (width / 2) * _sign(across)
    centre_y = y - along * distance - (height / 2) * _sign(along)
    return Box(
        centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2
    )


def _sign(value: float) -> float:
    return 0.0 if abs(value) < 0.1 else math.copysign(1.0, value)
