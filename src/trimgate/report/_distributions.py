"""How latencies are distributed, and how they grow with load: both models in the same run."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from trimgate.judge.records import QUANTILES, BatchBenchmark, LoadPoint, LoadResult
from trimgate.report._card import CardInput
from trimgate.report._chart import Chart, linear_axis, log_axis, log_ends
from trimgate.report._format import (
    NONE,
    Cell,
    count,
    number,
    percent,
    seconds,
    sentence,
    with_interval,
)
from trimgate.report._headline import rows_per_call

_TOLD = (0.01, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_MODELS = (("Baseline", "baseline"), ("Winner", "candidate"))
_KINDS = {"baseline": "baseline", "candidate": "winner"}
_WHERE = {"session": "In the engine", "server": "In the model server"}


def distribution_plots(card: CardInput) -> list[dict[str, Any]]:
    """By batch size: which share of the calls had been answered after which time."""
    benchmark = card.benchmark
    if benchmark is None or card.status == "baseline":
        return []
    return [_distribution(b) for b in benchmark.batches if _drawable(b)]


def load_view(card: CardInput) -> list[dict[str, Any]]:
    """Latency under open-loop load, by where it was measured; empty when it was not."""
    if card.status == "baseline":
        return []
    results = [
        *(card.benchmark.load if card.benchmark else ()),
        *(card.served.load if card.served else ()),
    ]
    found: dict[tuple[str, int, str], list[LoadResult]] = {}
    for result in results:
        found.setdefault((result.where, result.batch_size, result.harness), []).append(result)
    return [_load(*key, sorted(group, key=lambda r: r.rate)) for key, group in found.items()]


def _drawable(batch: BatchBenchmark) -> bool:
    return batch.state != "void" and all(
        len(getattr(batch, role).quantiles) == len(QUANTILES)
        and min(getattr(batch, role).quantiles) > 0
        for _, role in _MODELS
    )


def _distribution(batch: BatchBenchmark) -> dict[str, Any]:
    title = sentence(f"{rows_per_call(batch.batch_size)} per call")
    all_times = [t for _, role in _MODELS for t in getattr(batch, role).quantiles[1:]]
    told = "; ".join(
        f"{name}: " + ", ".join(f"{percent(q, 2)} {seconds(t)}" for q, t in _picked(batch, role))
        for name, role in _MODELS
    )
    chart = Chart(
        log_axis(*log_ends(all_times, room=0.06), "time of a call", show=seconds),
        linear_axis(0, 1, "calls answered", show=lambda v: percent(v, 2)),
        f"Distribution of the time of a call, {title}, same run. {told}",
        "ecdf",
        width=440,
        height=320,
    )
    for name, role in _MODELS:
        times = getattr(batch, role).quantiles
        chart.line(list(zip(times, QUANTILES, strict=True)), _KINDS[role], name)
        middle = times[QUANTILES.index(0.5)]
        chart.mark(middle, 0.5, _KINDS[role], f"{name}: median {seconds(middle)}")
    return {
        "title": title,
        "picture": Markup(chart.render()),  # noqa: S704  (charts escape their texts)
        "quantiles": [percent(q, 2) for q in _TOLD],
        "rows": [
            {"name": name, "cells": [seconds(t) for _, t in _picked(batch, role)]}
            for name, role in _MODELS
        ],
        "outliers": _outliers(batch),
    }


def _picked(batch: BatchBenchmark, role: str) -> list[tuple[float, float]]:
    times = getattr(batch, role).quantiles
    return [(q, times[QUANTILES.index(q)]) for q in _TOLD]


def _outliers(batch: BatchBenchmark) -> str:
    told = [
        f"{name} {percent(batch.outliers[role].share, 2)}, the slowest "
        f"{seconds(batch.outliers[role].largest)}"
        for name, role in _MODELS
        if role in batch.outliers
    ]
    return f"Slow calls, kept in the numbers: {'; '.join(told)}." if told else ""


def _load(where: str, rows: int, harness: str, results: Sequence[LoadResult]) -> dict[str, Any]:
    title = f"{_WHERE[where]}, {rows_per_call(rows)} per request"
    if harness == "loadgen":
        title += ", by MLPerf LoadGen"
    picture = _load_chart(title, results)
    return {
        "title": title,
        "picture": Markup(picture),  # noqa: S704  (charts escape their texts)
        "rows": [_load_row(result) for result in results],
    }


def _load_chart(title: str, results: Sequence[LoadResult]) -> str:
    """The 99th percentile by rate; empty unless there are two rates that hold."""
    series = {
        role: [
            (r.rate, point)
            for r in results
            if r.valid and (point := getattr(r, role)) is not None and point.p99
        ]
        for _, role in _MODELS
    }
    if max(map(len, series.values())) < 2:
        return ""
    tails = [v for s in series.values() for _, p in s for v in _ends(p)]
    rates = [rate for s in series.values() for rate, _ in s]
    told = "; ".join(
        f"{name}: " + ", ".join(f"{number(rate)}/s {seconds(p.p99)}" for rate, p in series[role])
        for name, role in _MODELS
        if series[role]
    )
    chart = Chart(
        log_axis(*log_ends(rates), "requests a second", show=number),
        log_axis(*log_ends(tails), "99th percentile", show=seconds),
        f"99th percentile by rate of requests, {title}. {told}",
        "load",
        width=440,
        height=300,
        left=64,
    )
    for name, role in _MODELS:
        kind = _KINDS[role]
        chart.line([(rate, p.p99) for rate, p in series[role] if p.p99], kind, name)
        for rate, point in series[role]:
            if point.p99 is None:
                continue
            if point.p99_interval:
                chart.interval(rate, point.p99_interval.low, point.p99_interval.high, kind)
            chart.mark(rate, point.p99, kind, f"{name}, {number(rate)}/s: {seconds(point.p99)}")
    return chart.render()


def _ends(point: LoadPoint) -> list[float]:
    values = [point.p99 or 0.0]
    if point.p99_interval:
        values += [point.p99_interval.low, point.p99_interval.high]
    return values


def _load_row(result: LoadResult) -> dict[str, Any]:
    ratio = with_interval(result.p99_ratio, "ratio") if result.valid else Cell("void")
    return {
        "rate": number(result.rate),
        "concurrency": count(result.concurrency),
        "models": [
            {
                "name": name,
                "p50": seconds(point.p50),
                "p95": seconds(point.p95),
                "p99": seconds(point.p99),
                "interval": with_interval(point.p99_interval, "seconds").interval,
                "achieved": number(point.achieved),
                "failed": _failed(point),
            }
            for name, role in _MODELS
            if (point := getattr(result, role)) is not None
        ],
        "ratio": ratio,
        "valid": result.valid,
        "reason": sentence(result.reason),
    }


def _failed(point: LoadPoint) -> str:
    told = [
        f"{count(n)} {what}"
        for n, what in ((point.errors, "failed"), (point.dropped, "not sent"), (point.late, "late"))
        if n
    ]
    return f"{', '.join(told)} of {count(point.requests)}" if told else NONE
