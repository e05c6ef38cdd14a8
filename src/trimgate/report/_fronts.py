"""Quality against speed, size, memory and cost: one picture for each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from trimgate.judge.records import Benchmark, Interval
from trimgate.report._card import BASELINE, CardInput
from trimgate.report._format import (
    difference_style,
    metric_style,
    sentence,
    size,
    with_interval,
    words,
)
from trimgate.report._headline import metric_cell, rows_per_call
from trimgate.report.plots import ParetoPoint, pareto


@dataclass(frozen=True)
class _Axis:
    """What stands across: its name, its label, and how many times better a candidate is."""

    key: str
    title: str
    label: str
    gain: Callable[[Benchmark], Interval | None]


def pareto_plots(card: CardInput) -> list[dict[str, Any]]:
    """Validation quality (the paired difference) against each thing that can be gained.

    Right is better in all of them: each axis is baseline divided by candidate.
    """
    batch = rows_per_call(card.target.batch_sizes[0])
    axes = (
        _Axis("speed", "Speed", f"Speed-up, {batch} per call", _speed),
        _Axis("size", "Size", "Times smaller on disk", lambda b: _counted(b, "size")),
        _Axis("memory", "Memory", "Times less peak memory", lambda b: _counted(b, "peak_rss")),
        _Axis("cost", "Cost", f"Times less CPU time (cost), {batch} per call", _cpu),
    )
    plots = []
    for axis in axes:
        picture = _plot(card, axis)
        if picture:
            plots.append({"key": axis.key, "title": axis.title, "picture": Markup(picture)})  # noqa: S704
    return plots


def _plot(card: CardInput, axis: _Axis) -> str:
    selection = card.selection
    style = difference_style(selection.metric)
    factor = 100.0 if style == "points" else 1.0
    by_name = {c.name: c for c in card.candidates}
    points = []
    for ranked in selection.ranking:
        candidate = by_name.get(ranked.name)
        if ranked.name == BASELINE or ranked.difference is None:
            continue
        gain = axis.gain(candidate.benchmark) if candidate and candidate.benchmark else None
        if gain is None:
            continue
        told = [
            ranked.name,
            f"{axis.label.lower()}: {with_interval(gain, 'ratio').value}",
            f"{words(selection.metric)} "
            f"{with_interval(ranked.metric, metric_style(selection.metric))}",
            f"{with_interval(ranked.difference, style)} against the baseline",
            f"{size(ranked.size)} on disk, {size(ranked.peak_rss)} peak memory",
        ]
        kind: Literal["winner", "other"] = "winner" if ranked.winner else "other"
        quality = _times(ranked.difference, factor)
        points.append(ParetoPoint(ranked.name, gain, quality, kind, "\n".join(told)))
    if not points:
        return ""
    origin = ParetoPoint(
        BASELINE,
        _point(1),
        _point(0),
        "winner" if selection.winner == BASELINE else "baseline",
        f"baseline\n{words(selection.metric)} "
        f"{metric_cell(card.baseline_validation, selection.metric)}",
    )
    unit = " (points)" if style == "points" else ""
    return pareto(
        [*points, origin],
        x_label=axis.label,
        y_label=f"{sentence(words(selection.metric))} against the baseline{unit}",
        higher_is_better=selection.higher_is_better,
    )


def _speed(benchmark: Benchmark) -> Interval | None:
    # What a void timing says of speed is nothing, so it has no place on the axis.
    first = benchmark.batches[0] if benchmark.batches else None
    return first.wall if first and first.state != "void" else None


def _cpu(benchmark: Benchmark) -> Interval | None:
    first = benchmark.batches[0] if benchmark.batches else None
    return first.cpu if first and first.state != "void" else None


def _counted(benchmark: Benchmark, what: Literal["size", "peak_rss"]) -> Interval | None:
    before, after = getattr(benchmark.baseline, what), getattr(benchmark.candidate, what)
    return _point(before / after) if before > 0 and after > 0 else None


def _point(value: float) -> Interval:
    return Interval(value=value, low=value, high=value)


def _times(interval: Interval, factor: float) -> Interval:
    ends = {k: getattr(interval, k) * factor for k in ("value", "low", "high")}
    return interval.model_copy(update=ends)
