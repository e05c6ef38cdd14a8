"""A little SVG: elements that escape their text, axis ticks, scales, text widths."""

import math
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trimgate.report._format import MINUS, number

FONT = 12.5


class Svg:
    """An SVG picture; `add` and `text` append to it, `render` gives it as text.

    Args:
        width, height: Of the coordinate system; the page scales it.
        label: What a screen reader says in its place.
        kind: CSS class.
    """

    def __init__(self, width: float, height: float, label: str, kind: str) -> None:
        self.root = ET.Element(
            "svg",
            {
                "class": f"plot {kind}",
                "viewBox": f"0 0 {width:g} {height:g}",
                "role": "img",
                "aria-label": label,
            },
        )

    def group(self, kind: str, title: str | None = None) -> ET.Element:
        """A group, with a title that shows on hover."""
        group = ET.SubElement(self.root, "g", {"class": kind})
        if title:
            ET.SubElement(group, "title").text = title
        return group

    def add(self, tag: str, kind: str, parent: ET.Element | None = None, **at: float | str) -> None:
        """A shape; numbers are rounded to a tenth, `_` in names becomes `-`."""
        fixed = {
            k.replace("_", "-"): v if isinstance(v, str) else f"{v:.1f}" for k, v in at.items()
        }
        ET.SubElement(self.root if parent is None else parent, tag, {"class": kind, **fixed})

    def text(
        self,
        x: float,
        y: float,
        text: str,
        kind: str = "",
        anchor: str = "start",
        parent: ET.Element | None = None,
    ) -> None:
        """Text with its baseline at `y`; `anchor` is start, middle or end."""
        at = {"class": kind, "x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
        ET.SubElement(self.root if parent is None else parent, "text", at).text = text

    def render(self) -> str:
        """The picture as an `<svg>` element; all text in it is escaped."""
        return ET.tostring(self.root, encoding="unicode")


def text_width(text: str, font: float = FONT) -> float:
    """About how wide a text is: generous, since the reader's font is not known."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return font * (0.58 * (len(text) - wide) + 1.05 * wide)


def shorten(text: str, length: int) -> str:
    """The text, its middle left out when it is longer than `length` characters."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head].rstrip()}…{text[-(length - 1 - head) :].lstrip()}"


def linear_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers in [low, high], about as many as wanted."""
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten in [low, high]; only the powers over three decades."""
    marks = (1, 2, 5) if high / low < 1000 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**e for e in decades for m in marks if low <= m * 10.0**e <= high]


def tick_texts(ticks: Sequence[float], unit: str = "", *, plus: bool = False) -> list[str]:
    """Ticks with as many decimals as the finest needs."""
    places = 0
    while places < 6 and any(abs(t - round(t, places)) > 1e-9 * max(1, abs(t)) for t in ticks):
        places += 1
    texts = [number(t, places=places) for t in ticks]
    if plus:
        texts = [
            t if t.startswith(MINUS) or float(v) == 0 else f"+{t}"
            for t, v in zip(texts, ticks, strict=True)
        ]
    return [t + unit for t in texts]


def scale(
    low: float, high: float, start: float, end: float, *, log: bool = False
) -> Callable[[float], float]:
    """A function from data in [low, high] to coordinates in [start, end]; clamps outside."""
    change = math.log if log else float

    def place(value: float) -> float:
        value = min(max(value, low), high)
        part = (change(value) - change(low)) / (change(high) - change(low))
        return start + part * (end - start)

    return place


@dataclass(frozen=True)
class Box:
    """A rectangle that a label, a mark or an error bar takes."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """The area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def inside(self, outer: "Box") -> bool:
        """Whether it lies wholly in another box."""
        return (
            self.left >= outer.left
            and self.right <= outer.right
            and self.top >= outer.top
            and self.bottom <= outer.bottom
        )
