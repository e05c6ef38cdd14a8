"""Several runs beside each other over time: ratios and counts, never the times themselves."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup
from pydantic import TypeAdapter

from trimgate.judge.records import Benchmark, Interval
from trimgate.report._card import CardInput, Status
from trimgate.report._chart import Axis, Chart, ends, linear_axis, log_axis, log_ends
from trimgate.report._format import (
    NONE,
    TIMES,
    Cell,
    count,
    difference_style,
    metric_style,
    number,
    sentence,
    with_interval,
    words,
)
from trimgate.report._headline import rows_per_call
from trimgate.report._verdict import verdict_text
from trimgate.report._views import short_digest

ONLY_RATIOS = (
    "Times of different runs are not compared: they come from other moments, and perhaps other "
    "machines. What is shown of speed and cost is each winner’s ratio to the baseline that was "
    "timed beside it, in the same process of the same run. Where runs were judged on other test "
    "rows, their metrics cannot be compared either; a vertical line stands between such runs."
)


@dataclass(frozen=True)
class RunLine:
    """One run as a line of the comparison.

    Attributes:
        run, name: Of the run and its model.
        created: When it ended.
        status: Its outcome.
        word: The outcome in a word.
        recipe: The winner's; `baseline` when that was kept.
        metric: The primary metric's name.
        baseline, winner: The metric on the test rows; None when it was not judged.
        difference: Winner minus baseline, paired.
        speedup: Wall time, at the target's first batch size; None without a valid timing.
        cost: Times less CPU time, which is what a machine costs; None likewise.
        size, memory: Baseline / winner.
        data: Digest of the test rows.
        target: Name of the profile.
        cpu: The machine's CPU.
        batch: Rows per call of the speed-up.
    """

    run: str
    name: str
    created: datetime
    status: Status
    word: str
    recipe: str
    metric: str
    baseline: Interval | None
    winner: Interval | None
    difference: Interval | None
    speedup: Interval | None
    cost: Interval | None
    size: float | None
    memory: float | None
    data: str
    target: str
    cpu: str
    batch: int

    @property
    def cells(self) -> dict[str, Cell]:
        """Its numbers as they are shown."""
        style = metric_style(self.metric)
        return {
            "baseline": with_interval(self.baseline, style),
            "winner": with_interval(self.winner, style),
            "difference": with_interval(self.difference, difference_style(self.metric)),
            "speedup": with_interval(self.speedup, "ratio"),
            "cost": with_interval(self.cost, "ratio"),
            "size": Cell(NONE if self.size is None else f"{number(self.size)}{TIMES}"),
            "memory": Cell(NONE if self.memory is None else f"{number(self.memory)}{TIMES}"),
        }


def compare_runs(cards: Iterable[CardInput]) -> list[RunLine]:
    """The runs as lines, by model and then from the oldest on."""
    lines = [_line(card) for card in cards]
    return sorted(lines, key=lambda line: (line.name, line.metric, line.created))


def comparison_view(cards: Iterable[CardInput]) -> dict[str, Any]:
    """What the page of a comparison shows: for each model and metric a table and the trends."""
    groups: list[dict[str, Any]] = []
    for title, lines in _groups(compare_runs(cards)):
        groups.append(
            {
                "id": f"model-{len(groups)}",
                "title": title,
                "lines": [
                    {
                        "line": line,
                        "cells": line.cells,
                        "made": _date(line.created),
                        "data": short_digest(line.data),
                    }
                    for line in lines
                ],
                "metric": sentence(words(lines[0].metric)),
                "batch": rows_per_call(lines[0].batch),
                "charts": [
                    {"title": name, "picture": Markup(picture)}  # noqa: S704  (charts escape)
                    for name, picture in _charts(lines)
                ],
                "same_rows": len({line.data for line in lines}) == 1,
            }
        )
    return {"groups": groups, "note": ONLY_RATIOS, "total": sum(len(g["lines"]) for g in groups)}


def comparison_table(cards: Iterable[CardInput]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the comparison, as text."""
    header = [
        "run", "made", "verdict", "winner", "metric", "baseline", "winner's", "difference",
        "speed-up", "less CPU time", "smaller", "less memory", "test rows",
    ]  # fmt: skip
    body = []
    for line in compare_runs(cards):
        cells = {key: str(cell) for key, cell in line.cells.items()}
        body.append(
            [
                line.run, _date(line.created), line.word, line.recipe, words(line.metric),
                *(cells[k] for k in ("baseline", "winner", "difference", "speedup", "cost")),
                cells["size"], cells["memory"], short_digest(line.data),
            ]
        )  # fmt: skip
    return header, body


def comparison_json(cards: Iterable[CardInput]) -> str:
    """The comparison for machines: a list of runs with their ratios and intervals."""
    return TypeAdapter(list[RunLine]).dump_json(compare_runs(cards), indent=2).decode() + "\n"


def _line(card: CardInput) -> RunLine:
    test, before = card.winner_test, card.baseline_test
    known = before or test
    metric = known.primary if known else card.selection.metric
    kept = card.status == "baseline"
    benchmark = None if kept else card.benchmark
    first = benchmark.batches[0] if benchmark and benchmark.batches else None
    valid = first if first and first.state != "void" else None
    environment = card.environment or (card.benchmark.environment if card.benchmark else {})
    judged = test or before
    return RunLine(
        run=card.run,
        name=card.name,
        created=card.created,
        status=card.status,
        word=verdict_text(card).word,
        recipe=card.selection.winner,
        metric=metric,
        baseline=before.metrics[metric].interval if before and metric in before.metrics else None,
        winner=test.metrics[metric].interval
        if test and not kept and metric in test.metrics
        else None,
        difference=test.differences.get(metric) if test and not kept else None,
        speedup=valid.wall if valid else None,
        cost=valid.cpu if valid else None,
        size=_ratio(benchmark, "size"),
        memory=_ratio(benchmark, "peak_rss"),
        data=judged.data if judged else "",
        target=card.target.name,
        cpu=str(environment.get("cpu", "")),
        batch=first.batch_size if first else card.target.batch_sizes[0],
    )


def _ratio(benchmark: Benchmark | None, what: str) -> float | None:
    if benchmark is None:
        return None
    before, after = getattr(benchmark.baseline, what), getattr(benchmark.candidate, what)
    return before / after if before > 0 and after > 0 else None


def _groups(lines: Sequence[RunLine]) -> list[tuple[str, list[RunLine]]]:
    found: dict[tuple[str, str], list[RunLine]] = {}
    for line in lines:
        found.setdefault((line.name, line.metric), []).append(line)
    names = [name for name, _ in found]
    return [
        (name if names.count(name) == 1 else f"{name}, {words(metric)}", group)
        for (name, metric), group in found.items()
    ]


def _date(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _charts(lines: Sequence[RunLine]) -> list[tuple[str, str]]:
    metric = sentence(words(lines[0].metric))
    share = 100.0 if metric_style(lines[0].metric) == "percent" else 1.0
    unit = " (%)" if share == 100 else ""
    charts = [
        (
            f"{metric} on the test rows",
            _chart(
                lines,
                {"baseline": lambda r: _scaled(r.baseline, share),
                 "winner": lambda r: _scaled(r.winner, share)},
                f"{metric}{unit}",
                ratio=False,
            ),
        ),
        ("Speed-up", _chart(lines, {"winner": lambda r: r.speedup}, "Times faster")),
        ("CPU time, which is the cost", _chart(lines, {"winner": lambda r: r.cost}, "Times less")),
        ("Size on disk", _chart(lines, {"winner": lambda r: _point(r.size)}, "Times smaller")),
        ("Peak memory", _chart(lines, {"winner": lambda r: _point(r.memory)}, "Times less")),
    ]  # fmt: skip
    return [(title, picture) for title, picture in charts if picture]


def _chart(
    lines: Sequence[RunLine],
    series: dict[str, Callable[[RunLine], Interval | None]],
    label: str,
    *,
    ratio: bool = True,
) -> str:
    """Marks with intervals, one place on the x axis for each run; empty without values."""
    seen = {
        name: [(x, i) for x, line in enumerate(lines) if (i := value(line)) is not None]
        for name, value in series.items()
    }
    values = [v for found in seen.values() for _, i in found for v in (i.low, i.value, i.high)]
    if not values:
        return ""
    if ratio:
        values.append(1.0)
        y = log_axis(*log_ends(values), label, show=lambda v: f"{number(v, 2)}{TIMES}")
    else:
        y = linear_axis(*ends(values), label)
    told = "; ".join(
        f"run {count(x + 1)} {name} {number(i.value)} [{number(i.low)}, {number(i.high)}]"
        for name, found in seen.items()
        for x, i in found
    )
    step = max(1, len(lines) // 12 + 1)
    ticks = range(0, len(lines), step)
    x_axis = Axis(
        -0.5, len(lines) - 0.5, "run", tuple(map(float, ticks)), tuple(str(t + 1) for t in ticks)
    )
    chart = Chart(x_axis, y, f"{label} by run. {told}", "trend", width=440, height=260)
    for x, (before, after) in enumerate(itertools.pairwise(lines)):
        if before.data != after.data:
            chart.upright(x + 0.5, "other test rows", "same")
    if ratio:
        chart.across(1.0, "the baseline")
    for name, found in seen.items():
        shift = 0.0 if len(seen) == 1 else -5.0 if name == "baseline" else 5.0
        for x, interval in found:
            kind = name if name == "baseline" else f"{name} {lines[x].status}"
            if interval.low < interval.high:
                chart.interval(x, interval.low, interval.high, kind, shift=shift)
            title = f"{lines[x].run}: {lines[x].word}, {name} {number(interval.value, 4)}"
            chart.mark(x, interval.value, kind, title, shift=shift)
    return chart.render()


def _point(value: float | None) -> Interval | None:
    return None if value is None else Interval(value=value, low=value, high=value)


def _scaled(interval: Interval | None, factor: float) -> Interval | None:
    if interval is None:
        return None
    return Interval(
        value=interval.value * factor, low=interval.low * factor, high=interval.high * factor
    )
