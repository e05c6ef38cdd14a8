"""Axes with lines, steps, marks and intervals on them, for the small charts of the card.

A series is told by its dash and the shape of its marks as well as by its colour: the baseline is
dashed with squares, the winner solid with discs.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from trimgate.report._format import number
from trimgate.report._svg import FONT, Box, Svg, linear_ticks, log_ticks, scale, tick_texts

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """A range with its ticks.

    Attributes:
        low, high: The data at its ends.
        label: What it shows.
        ticks, texts: Where the grid lines stand, and what is written there.
        log: Whether it is logarithmic.
    """

    low: float
    high: float
    label: str
    ticks: tuple[float, ...]
    texts: tuple[str, ...]
    log: bool = False


def linear_axis(
    low: float,
    high: float,
    label: str,
    *,
    show: Callable[[float], str] | None = None,
    unit: str = "",
    wanted: int = 5,
    plus: bool = False,
) -> Axis:
    """An axis with round ticks.

    Args:
        low: Its lower end.
        high: Its upper end; where it equals the lower one, the axis is widened.
        label: What it shows.
        show: Makes the text of a tick; by default a plain number with `unit`.
        unit: Written after each tick.
        wanted: About so many ticks.
        plus: Whether ticks above zero have a plus.
    """
    if not high > low:
        room = abs(low) * 0.1 or 1.0
        low, high = low - room, high + room
    ticks = linear_ticks(low, high, wanted)
    texts = [_short(show(t)) for t in ticks] if show else tick_texts(ticks, unit, plus=plus)
    return Axis(low, high, label, tuple(ticks), tuple(texts))


def log_axis(
    low: float, high: float, label: str, *, show: Callable[[float], str] | None = None
) -> Axis:
    """A logarithmic axis of positive values, with ticks at 1, 2 and 5 times powers of ten."""
    if not high > low:
        low, high = low / 1.5, high * 1.5
    ticks = log_ticks(low, high)
    if len(ticks) < 2:  # less than a decade without two of them
        ticks = [t for t in linear_ticks(low, high, 4) if t > 0]
    texts = [_short((show or number)(t)) for t in ticks]
    return Axis(low, high, label, tuple(ticks), tuple(texts), log=True)


class Chart:
    """A picture with two axes; `render` gives it as an `<svg>` element.

    Args:
        x, y: The axes.
        label: What a screen reader says in its place.
        kind: CSS class.
        width, height: Of the coordinate system; the page scales it.
        left: Room for the texts of the y axis.
    """

    def __init__(
        self,
        x: Axis,
        y: Axis,
        label: str,
        kind: str = "",
        *,
        width: float = 400.0,
        height: float = 300.0,
        left: float = 54.0,
    ) -> None:
        self.svg = Svg(width, height, label, f"chart {kind}".rstrip())
        self.area = Box(left, 28, width - 14, height - 44)
        self.x = scale(x.low, x.high, self.area.left, self.area.right, log=x.log)
        self.y = scale(y.low, y.high, self.area.bottom, self.area.top, log=y.log)
        self._grid(x, y, height)

    def line(
        self, points: Sequence[Point], kind: str, title: str = "", *, steps: bool = False
    ) -> None:
        """A line through the points; with `steps` each value holds until the next x."""
        if not points:
            return
        path = []
        for index, (x, y) in enumerate(points):
            a, b = self.x(x), self.y(y)
            if index == 0:
                path.append(f"M{a:.1f},{b:.1f}")
            elif steps:
                path.append(f"H{a:.1f}V{b:.1f}")
            else:
                path.append(f"L{a:.1f},{b:.1f}")
        group = self.svg.group(f"series {kind}", title or None)
        self.svg.add("path", "line", group, d="".join(path))

    def mark(self, x: float, y: float, kind: str, title: str = "", *, shift: float = 0.0) -> None:
        """A mark whose shape tells what it is (see `shape`)."""
        group = self.svg.group(f"series {kind}", title or None)
        self.shape(self.x(x) + shift, self.y(y), kind, group)

    def interval(self, x: float, low: float, high: float, kind: str, *, shift: float = 0.0) -> None:
        """An error bar at x, between two values of y."""
        if not (math.isfinite(low) and math.isfinite(high)):
            return
        group = self.svg.group(f"series {kind}")
        at, top, bottom = self.x(x) + shift, self.y(high), self.y(low)
        self.svg.add("line", "error", group, x1=at, x2=at, y1=top, y2=bottom)
        for end in (top, bottom):
            self.svg.add("line", "error", group, x1=at - 3, x2=at + 3, y1=end, y2=end)

    def shape(self, x: float, y: float, kind: str, group: Element | None = None) -> None:
        """A square for the baseline, a cross for a failure, a diamond for doubt, else a disc."""
        words = kind.split()
        if "baseline" in words:
            self.svg.add("rect", "mark", group, x=x - 4, y=y - 4, width=8.0, height=8.0)
        elif "fail" in words:
            path = f"M{x - 5:.1f},{y - 5:.1f}l10,10M{x + 5:.1f},{y - 5:.1f}l-10,10"
            self.svg.add("path", "cross", group, d=path)
        elif "inconclusive" in words:
            corners = ((x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y))
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
            self.svg.add("polygon", "mark", group, points=points)
        else:
            self.svg.add("circle", "mark", group, cx=x, cy=y, r=4.5)

    def across(self, y: float, text: str = "", kind: str = "same") -> None:
        """A horizontal line through the whole picture, with a text above its right end."""
        at = self.y(y)
        self.svg.add("line", kind, x1=self.area.left, x2=self.area.right, y1=at, y2=at)
        if text:
            self.svg.text(self.area.right - 2, at - 5, text, "note", "end")

    def upright(self, x: float, text: str = "", kind: str = "same") -> None:
        """A vertical line through the whole picture, with a text at its top."""
        at = self.x(x)
        self.svg.add("line", kind, x1=at, x2=at, y1=self.area.top, y2=self.area.bottom)
        if text:
            left = at + 6 + len(text) * FONT * 0.5 < self.area.right
            self.svg.text(
                at + 5 if left else at - 5, self.area.top + 11, text, "note",
                "start" if left else "end",
            )  # fmt: skip

    def render(self) -> str:
        """The picture as an `<svg>` element; all text in it is escaped."""
        return self.svg.render()

    def _grid(self, x: Axis, y: Axis, height: float) -> None:
        area = self.area
        for value, text in zip(y.ticks, y.texts, strict=True):
            at = self.y(value)
            self.svg.add("line", "grid", x1=area.left, x2=area.right, y1=at, y2=at)
            self.svg.text(area.left - 8, at + 4, text, "tick-label", "end")
        last = -math.inf
        for value, text in zip(x.ticks, x.texts, strict=True):
            at, half = self.x(value), len(text) * FONT * 0.29
            self.svg.add("line", "grid", x1=at, x2=at, y1=area.top, y2=area.bottom)
            if at - half > last + 6:  # a text that would touch the one before it is left out
                self.svg.text(at, area.bottom + 17, text, "tick-label", "middle")
                last = at + half
        self.svg.text(4, 14, f"↑ {y.label}" if y.label else "", "axis-label")
        suffix = ", logarithmic" if x.log else ""
        text = f"{x.label}{suffix} →" if x.label else ""
        self.svg.text(area.right, height - 7, text, "axis-label", "end")


def _short(text: str) -> str:
    """A tick without decimals that say nothing: "1.00 ms" is "1 ms"."""
    return re.sub(r"(\.\d*?)0+(?!\d)", lambda m: m.group(1) if len(m.group(1)) > 1 else "", text)


def ends(values: Iterable[float], *, room: float = 0.08) -> tuple[float, float]:
    """Least and largest of the finite values, with some room around them."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    margin = room * (high - low) or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def log_ends(values: Iterable[float], *, room: float = 0.12) -> tuple[float, float]:
    """The same for positive values on a logarithmic axis."""
    low, high = ends((math.log(v) for v in values if v > 0), room=room)
    return math.exp(low), math.exp(high)
