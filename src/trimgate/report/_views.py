"""What the sections of the card show: quality, latency, server, lineage, features."""

from typing import Any

from markupsafe import Markup

from trimgate.judge.records import Evaluation
from trimgate.models.directory import ModelInfo
from trimgate.report._card import CardInput
from trimgate.report._distillation import distillation
from trimgate.report._format import (
    NONE,
    count,
    difference_style,
    number,
    percent,
    sentence,
    size,
    with_interval,
    words,
)
from trimgate.report._headline import metric_cell, rows_per_call
from trimgate.report._steps import effects, parameters, show, step_label
from trimgate.report.plots import LatencyRow, latency_bars

_ENGINES = {
    "sklearn": "scikit-learn",
    "xgboost": "XGBoost",
    "lightgbm": "LightGBM",
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}


def quality_rows(card: CardInput) -> list[dict[str, Any]]:
    """Every metric on the test rows: baseline, winner, paired difference; primary first."""
    test = card.winner_test
    if test is None:
        return []
    names = sorted(test.metrics, key=lambda n: n != test.primary)
    return [
        {
            "name": sentence(words(name)),
            "primary": name == test.primary,
            "baseline": metric_cell(card.baseline_test, name),
            "winner": metric_cell(test, name),
            "difference": with_interval(test.differences.get(name), difference_style(name)),
            "better": "higher" if test.metrics[name].higher_is_better else "lower",
        }
        for name in names
    ]


def agreement(card: CardInput) -> str:
    """How many predictions changed, and whether that is chance; empty when not known."""
    test = card.winner_test
    if test is None:
        return ""
    return " ".join(part for part in (_flips(test), _parity(test)) if part)


def _flips(test: Evaluation) -> str:
    flips = test.flips
    if flips is None:
        return ""
    text = f"{count(flips.changed)} of {count(flips.rows)} predictions changed"
    if test.task == "regression":
        return text + "."
    text += f": {count(flips.won)} became right, {count(flips.lost)} became wrong"
    if flips.p_value is not None:
        text += f" (exact McNemar test, p = {number(flips.p_value, 2)})"
    return text + "."


def _parity(test: Evaluation) -> str:
    parity = test.parity
    if parity is None:
        return ""
    return (
        f"Scores differ by {number(parity.mean_difference, 2)} on average and by "
        f"{number(parity.max_difference, 2)} at most; {percent(parity.agreement, 4)} of the "
        f"{'values agree' if test.task == 'regression' else 'labels agree'}."
    )


def latency_panels(card: CardInput) -> list[dict[str, Any]]:
    """Absolute times of baseline and winner, measured together, by batch size."""
    panels = []
    for batch in card.benchmark.batches if card.benchmark else ():
        title = f"{rows_per_call(batch.batch_size)} per call"
        bars = [
            LatencyRow.of("Baseline", "baseline", batch.baseline),
            LatencyRow.of("Winner", "winner", batch.candidate),
        ]
        rates = (f"{number(t.throughput)}" for t in (batch.baseline, batch.candidate))
        detail = "Throughput {} → {} rows a second".format(*rates)
        if batch.state == "void":
            detail = "Void: the A/A control was off, so nothing may be concluded from this."
        elif batch.state == "loaded":
            detail += ". The machine was loaded: the 99th percentile is not given."
        panels.append(_panel(sentence(title), bars, f"Latency, {title}", detail))
    return panels


def served_view(card: CardInput) -> dict[str, Any] | None:
    """The smoke test of the model server and the latency seen through it."""
    served = card.served
    if served is None:
        return None
    bars = [LatencyRow("Winner", "winner", served.p50, served.p95, served.p99)]
    if served.baseline_p50 is not None:
        bars.insert(0, LatencyRow("Baseline", "baseline", served.baseline_p50))
    detail = f"{count(served.requests)} timed requests each, interleaved"
    if served.latency:
        detail = f"Speed-up {with_interval(served.latency, 'ratio')}. " + detail
    rows = rows_per_call(served.batch_size)
    return {
        "checks": [(sentence(words(name)), held) for name, held in served.checks.items()],
        "errors": served.errors,
        "rows": rows,
        **_panel("", bars, f"Served latency, {rows} per request", detail),
    }


def _panel(title: str, bars: list[LatencyRow], label: str, detail: str) -> dict[str, Any]:
    picture = Markup(latency_bars(bars, label))  # noqa: S704  (plots escape their texts)
    return {"title": title, "picture": picture, "detail": detail}


def lineage_rows(card: CardInput) -> list[dict[str, Any]]:
    """The winner's ancestry, from the baseline on, with what each step was told and did."""
    if card.winner is None:
        return []
    chain = card.lineage or (card.baseline, card.winner)
    rows = []
    done = 0
    for info in chain:
        steps = info.recipe[done:]
        # A form between two records that was not kept has its step, but no digest of its own.
        for step in steps[:-1]:
            rows.append(
                {**_step(step, card), "size": "", "runtime": "not kept", "digest": "", "short": ""}
            )
        start = (
            _step(steps[-1], card)
            if steps
            else {"title": "Baseline, as it was given", "parameters": [], "remark": ""}
        )
        rows.append({**start, **_model(info)})
        done = len(info.recipe)
    return rows


def _step(step: dict[str, Any], card: CardInput) -> dict[str, Any]:
    notes = card.winner.notes.get(str(step.get("technique"))) if card.winner else None
    seen = effects(notes) if isinstance(notes, dict) else []
    remark = distillation(notes) or str(notes.get("says", "")) if isinstance(notes, dict) else ""
    return {
        "title": sentence(step_label(step)),
        "parameters": [*parameters(step), *seen],
        "remark": remark,
    }


def _model(info: ModelInfo) -> dict[str, Any]:
    runtime = info.runtime
    name = info.framework if runtime.name == "native" else runtime.name
    engine = _ENGINES.get(name, name)
    options = f" ({show(runtime.options)})" if runtime.options else ""
    return {
        "size": size(info.size) if info.files else "",
        "runtime": f"runs on {engine}, {runtime.precision}{options}",
        "digest": info.digest,
        "short": short_digest(info.digest),
    }


def short_digest(digest: str | None) -> str:
    """A digest short enough to read: its first 12 hex digits."""
    if not digest:
        return NONE
    kind, _, rest = digest.rpartition(":")
    return f"{kind}:{rest[:12]}" if kind else rest[:12]
