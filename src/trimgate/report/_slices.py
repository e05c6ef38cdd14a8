"""Slices as a forest plot: each difference with its intervals, its rows and the margin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from trimgate.judge.records import Evaluation, Interval, Slice
from trimgate.report._card import CardInput
from trimgate.report._format import (
    Cell,
    count,
    difference_style,
    metric_style,
    number,
    percent,
    sentence,
    signed,
    with_interval,
    words,
)
from trimgate.report._svg import Box, Svg, linear_ticks, scale, shorten, tick_texts

Outcome = Literal["pass", "fail", "inconclusive", "unjudged"]

_RULE = "slices.max_drop"
_MOST = 60
_MOST_LISTED = 400
_ROW, _TOP = 26.0, 34.0
_HALF_NOTE = 34  # of the width of the note on the margin
_WIDTH = 900.0
_AREA = Box(282, _TOP, 668, 0)
_TITLES = {"score_band": "Bands of the baseline’s score", "time_window": "Windows of time"}
_SAID = {
    "pass": "within the margin",
    "fail": "broken",
    "inconclusive": "not decided",
    "unjudged": "not judged",
}


@dataclass(frozen=True)
class _Line:
    """A slice as it is drawn; the unit of the intervals is that of the axis."""

    slice: Slice
    outcome: Outcome
    own: Interval | None
    corrected: Interval | None
    shown: Cell


def slices_view(card: CardInput) -> dict[str, Any] | None:
    """The forest plot and the table behind it; None when no slice was looked at.

    A slice is within the margin when its own interval is, and broken when its interval
    corrected for all slices lies wholly beyond the margin.
    """
    test = card.winner_test
    if test is None or not test.slices or card.status == "baseline":
        return None
    metric = test.primary
    higher = test.metrics[metric].higher_is_better if metric in test.metrics else True
    margins = _margins(card, metric)
    margin = margins.every
    lines = [_line(s, metric, higher, margins) for s in test.slices]
    judged = [line for line in lines if line.own]
    worst = sorted(judged, key=lambda line: line.own.low if higher else -line.own.high)  # type: ignore[union-attr]
    drawn = judged if len(judged) <= _MOST else [x for x in judged if x in worst[:_MOST]]
    counts = {o: sum(line.outcome == o for line in lines) for o in _SAID}
    picture = _draw(test, drawn, margin, higher) if drawn else ""
    return {
        "picture": Markup(picture),  # noqa: S704  (the drawing escapes its texts)
        "rows": [_row(line, metric) for line in lines[:_MOST_LISTED]],
        "undrawn": count(len(judged) - len(drawn)) if len(judged) > len(drawn) else "",
        "unlisted": count(len(lines) - _MOST_LISTED) if len(lines) > _MOST_LISTED else "",
        "metric": sentence(words(metric)),
        "counts": [(_SAID[o], count(n)) for o, n in counts.items() if n],
        "judged": count(len(judged)),
        "margin": "" if margin is None else _limit(margin, metric, higher),
        "level": "" if not judged else percent(_level(judged), 3),
    }


@dataclass(frozen=True)
class _Margins:
    """The drops that the gate allows slices.

    Attributes:
        every: Of a slice without a margin of its own; None where the gate names none.
        own: By name of the slice.
        level: Two-sided level of the gate's intervals; None for that of the card.
    """

    every: float | None
    own: Mapping[str, float]
    level: float | None

    def of(self, name: str) -> float | None:
        """The margin of a slice."""
        return self.own.get(name, self.every)


def _margins(card: CardInput, metric: str) -> _Margins:
    """The rule on slices, else the one on all rows."""
    rules = [r for r in card.rules if r.rule.startswith(_RULE)]
    own = {r.rule.removeprefix(_RULE)[1:-1]: r.limit for r in rules if r.rule != _RULE}
    if card.verdict and isinstance(written := card.verdict.policy.get("slices"), Mapping):
        own |= written.get("overrides", {})
        every = written.get("max_drop")
    else:
        whole = [r for r in card.rules if r.rule in (_RULE, f"max_drop.{metric}")]
        every = next((r.limit for r in sorted(whole, key=lambda r: r.rule != _RULE)), None)
    rules += [r for r in card.rules if r.rule == f"max_drop.{metric}"]
    level = next((r.observed.confidence for r in rules if r.observed), None)
    return _Margins(every, {k: v for k, v in own.items() if v is not None}, level)


def _line(found: Slice, metric: str, higher: bool, margins: _Margins) -> _Line:
    style = difference_style(metric)
    factor = 100.0 if style == "points" else 1.0
    own, corrected = _at(found.difference, margins.level), _at(found.simultaneous, margins.level)
    margin = margins.of(found.name)
    return _Line(
        slice=found,
        outcome=_outcome(own, corrected or own, higher, margin),
        own=_times(own, factor),
        corrected=_times(corrected, factor),
        shown=with_interval(own, style),
    )


def _at(interval: Interval | None, level: float | None) -> Interval | None:
    """The interval at the level that the gate looked at, where the record holds it."""
    if interval is None or level is None:
        return interval
    levels = (interval.confidence, *(other.confidence for other in interval.others))
    held = any(abs(known - level) < 1e-9 for known in levels)
    return interval.at(level) if held else interval


def _outcome(
    own: Interval | None, corrected: Interval | None, higher: bool, margin: float | None
) -> Outcome:
    if own is None or corrected is None:
        return "unjudged"
    limit = 0.0 if margin is None else margin
    worst, best = (-own.low, -corrected.high) if higher else (own.high, corrected.low)
    if best > limit:
        return "fail"
    return "pass" if worst <= limit else "inconclusive"


def _row(line: _Line, metric: str) -> dict[str, Any]:
    found = line.slice
    flips = found.flips
    p_value = found.p_value if found.adjusted_p_value is None else found.adjusted_p_value
    return {
        "name": found.name,
        "group": _group(found),
        "rows": count(found.rows),
        "metric": with_interval(found.metric, metric_style(metric)),
        "difference": line.shown,
        "corrected": _corrected(line, metric),
        "flips": f"{count(flips.won)} / {count(flips.lost)}" if flips else "–",
        "p": number(p_value, 2),
        "outcome": line.outcome,
        "said": found.reason or _SAID[line.outcome],
    }


def _corrected(line: _Line, metric: str) -> str:
    if line.corrected is None:
        return ""
    style = difference_style(metric)
    return with_interval(_times(line.corrected, 0.01 if style == "points" else 1), style).interval


def _level(lines: Sequence[_Line]) -> float:
    return next(line.own.confidence for line in lines if line.own)


def _group(found: Slice) -> str:
    return _TITLES.get(found.kind) or f"By {found.column or 'column'}"


def _limit(margin: float, metric: str, higher: bool) -> str:
    value = -margin if higher else margin
    point = Interval(value=value, low=value, high=value)
    return with_interval(point, difference_style(metric)).value


def _draw(test: Evaluation, lines: Sequence[_Line], margin: float | None, higher: bool) -> str:
    metric = test.primary
    style = difference_style(metric)
    factor = 100.0 if style == "points" else 1.0
    limit = None if margin is None else (-margin if higher else margin) * factor
    overall = _times(test.differences.get(metric), factor)
    x, ticks = _axis(lines, overall, limit)
    groups = list(dict.fromkeys(_group(line.slice) for line in lines))
    height = _TOP + _ROW * (len(lines) + len(groups) + 1.6) + 40
    told = "; ".join(
        f"{line.slice.name}, {count(line.slice.rows)} rows: {line.shown}, {_SAID[line.outcome]}"
        for line in lines
    )
    unit = " (points)" if style == "points" else ""
    title = f"{sentence(words(metric))}, winner minus baseline{unit}"
    svg = Svg(_WIDTH, height, f"{title}, by slice. {told}", "slices")
    bottom = height - 40
    if limit is not None:
        start, end = (_AREA.left, x(limit)) if higher else (x(limit), _AREA.right)
        svg.add("rect", "refused", x=start, y=_TOP, width=end - start, height=bottom - _TOP)
    for tick, text in zip(ticks, tick_texts(ticks, plus=True), strict=True):
        svg.add("line", "grid", x1=x(tick), x2=x(tick), y1=_TOP, y2=bottom)
        svg.text(x(tick), bottom + 16, text, "tick-label", "middle")
    svg.add("line", "same", x1=x(0), x2=x(0), y1=_TOP, y2=bottom)
    if limit is not None:
        svg.add("line", "limit", x1=x(limit), x2=x(limit), y1=_TOP - 6, y2=bottom)
        # at an end of the axis it would run into what stands beside it
        at = min(max(x(limit), _AREA.left + _HALF_NOTE), _AREA.right - _HALF_NOTE)
        svg.text(at, _TOP - 11, f"margin {signed(number(limit, 2))}", "note", "middle")
    svg.text(_AREA.right, height - 6, f"{title} →", "axis-label", "end")
    svg.text(_AREA.left - 14, _TOP - 11, "rows", "tick-label", "end")
    _overall(svg, overall, test, x)
    y = _TOP + 1.6 * _ROW
    for group in groups:
        svg.text(4, y + 17, shorten(group, 44), "group")
        y += _ROW
        for line in (found for found in lines if _group(found.slice) == group):
            _interval(svg, line, x, y + _ROW / 2)
            y += _ROW
    return svg.render()


def _axis(lines: Sequence[_Line], overall: Interval | None, limit: float | None) -> Any:
    drawn = [i for line in lines for i in (line.own, line.corrected) if i]
    if overall:
        drawn.append(overall)
    values = [v for i in drawn for v in (i.low, i.high)] + [0.0, limit or 0.0]
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 1.0
    low, high = low - room, high + room
    return scale(low, high, _AREA.left, _AREA.right), linear_ticks(low, high, 6)


def _overall(svg: Svg, overall: Interval | None, test: Evaluation, x: Any) -> None:
    """All rows, as the wide diamond that forest plots end with."""
    y = _TOP + 0.8 * _ROW
    svg.text(4, y + 4.5, "All test rows", "group")
    svg.text(_AREA.left - 14, y + 4, count(test.rows), "tick-label", "end")
    if overall is None:
        return
    group = svg.group("all", f"All rows: {with_interval(overall, 'difference')}")
    corners = (
        (x(overall.low), y), (x(overall.value), y - 7),
        (x(overall.high), y), (x(overall.value), y + 7),
    )  # fmt: skip
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    svg.add("polygon", "mark", group, points=points)
    style = difference_style(test.primary)
    shown = with_interval(test.differences[test.primary], style)
    svg.text(_AREA.right + 14, y + 4, str(shown), "value", parent=group)


def _interval(svg: Svg, line: _Line, x: Any, y: float) -> None:
    own, corrected = line.own, line.corrected
    if own is None:
        return
    group = svg.group(f"slice {line.outcome}", f"{line.slice.name}: {_SAID[line.outcome]}")
    svg.text(16, y + 4, shorten(line.slice.name, 27), "name", parent=group)
    svg.text(_AREA.left - 14, y + 4, count(line.slice.rows), "tick-label", "end", group)
    if corrected:
        left, right = x(corrected.low), x(corrected.high)
        svg.add("line", "corrected", group, x1=left, x2=right, y1=y, y2=y)
        for end in (left, right):
            svg.add("line", "corrected", group, x1=end, x2=end, y1=y - 4, y2=y + 4)
    svg.add("line", "own", group, x1=x(own.low), x2=x(own.high), y1=y, y2=y)
    at = x(own.value)
    if line.outcome == "fail":
        svg.add("rect", "mark", group, x=at - 5, y=y - 5, width=10.0, height=10.0)
    elif line.outcome == "inconclusive":
        points = (
            f"{at:.1f},{y - 6:.1f} {at + 6:.1f},{y:.1f} {at:.1f},{y + 6:.1f} {at - 6:.1f},{y:.1f}"
        )
        svg.add("polygon", "mark", group, points=points)
    else:
        svg.add("circle", "mark", group, cx=at, cy=y, r=5.0)
    svg.text(_AREA.right + 14, y + 4, str(line.shown), "value", parent=group)


def _times(interval: Interval | None, factor: float) -> Interval | None:
    if interval is None:
        return None
    ends = {k: getattr(interval, k) * factor for k in ("value", "low", "high")}
    return interval.model_copy(update=ends)
