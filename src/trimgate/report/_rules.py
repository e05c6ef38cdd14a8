"""Gate rules as shown rows."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from trimgate.errors import InvalidInput
from trimgate.judge.metrics import higher_is_better
from trimgate.judge.records import Interval, RuleResult
from trimgate.report._format import (
    NONE,
    Cell,
    Style,
    count,
    difference_style,
    metric_style,
    sentence,
    with_interval,
    words,
)
from trimgate.report.plots import Side, forest


class _Kind(NamedTuple):
    """How a rule is shown: its name, its unit, the side that passes, the factor to the unit."""

    label: str
    style: Style
    allowed: Side | None
    factor: float = 1.0


_KINDS = {
    "min_speedup": _Kind("Speed-up", "ratio", "above"),
    "min_served_speedup": _Kind("Speed-up when served", "ratio", "above"),
    "guard.gain": _Kind("Gain in what was asked for", "ratio", "above"),
    "max_size_ratio": _Kind("Size against the baseline", "ratio", "below"),
    "max_memory_ratio": _Kind("Peak memory against the baseline", "ratio", "below"),
    "max_cost_ratio": _Kind("Cost against the baseline", "ratio", "below"),
    "max_size_mb": _Kind("Size on disk", "mebibytes", "below"),
    "max_peak_rss_mb": _Kind("Peak memory", "mebibytes", "below"),
    "max_cold_start_s": _Kind("Cold start", "seconds", "below"),
    "load.max_p99_ms": _Kind("Slowest 1 % under load", "seconds", "below", 1e-3),
    "max_served_p99_ms": _Kind("Slowest 1 % when served", "seconds", "below", 1e-3),
    "max_disagreement": _Kind("Answers that differ", "percent", "below"),
    "served.checks": _Kind("Checks of the served model", "plain", None),
}


_SLICES = "slices.max_drop"


@dataclass(frozen=True)
class RuleRow:
    """One gate rule as shown; `picture` is an `<svg>` element or empty."""

    rule: str
    label: str
    outcome: str
    observed: Cell
    limit: str
    reason: str
    rows_needed: str
    picture: str


def rule_row(result: RuleResult, primary: str = "") -> RuleRow:
    """How a rule is shown.

    The limit of a drop is shown as the difference to the baseline that it allows: 0.01 of
    accuracy is −1 pt, of an error +0.01.

    Args:
        result: What the gate said.
        primary: The primary metric, which the rules on slices are about.
    """
    kind = _kind(result.rule, primary)
    observed = _times(result.observed, kind.factor)
    shown = with_interval(observed, kind.style)
    if observed and observed.low == observed.high:
        shown = Cell(shown.value)
    limit = None if result.limit is None else result.limit * kind.factor
    drop = result.rule.startswith(("max_drop.", _SLICES))
    if limit is not None and drop and kind.allowed == "above":
        limit = -limit
    shown_limit = NONE
    if limit is not None:
        point = Interval(value=limit, low=limit, high=limit)
        shown_limit = with_interval(point, kind.style).value
    neutral = {"ratio": 1.0, "points": 0.0, "difference": 0.0}.get(kind.style)
    picture = forest(
        _finite(observed),
        limit,
        result.outcome,
        allowed=kind.allowed,
        neutral=neutral,
        shown=shown,
        shown_limit=shown_limit,
    )
    return RuleRow(
        rule=result.rule,
        label=kind.label,
        outcome=result.outcome,
        observed=shown,
        limit=shown_limit,
        reason=sentence(result.reason),
        rows_needed=count(result.rows_needed) if result.rows_needed else "",
        picture=picture,
    )


def _kind(rule: str, primary: str) -> _Kind:
    if rule == "guard.trade":
        label = "Quality kept, or spent on what was asked for"
        return _Kind(label, difference_style(primary) if primary else "plain", None)
    name, _, metric = rule.partition(".")
    if rule.startswith(_SLICES):
        allowed: Side = "above" if _higher_is_better(primary) else "below"
        slice_name = rule.removeprefix(_SLICES).strip("[]")
        label = f"Loss in the slice {slice_name}" if slice_name else "Loss in any slice"
        return _Kind(label, difference_style(primary), allowed)
    if name == "calibration":
        limited, rise = metric.removeprefix("max_").removesuffix("_rise"), metric.endswith("_rise")
        label = f"{'Rise' if rise else 'Largest'} {'of ' if rise else ''}{words(limited)}"
        return _Kind(label, "difference" if rise else "plain", "below")
    if name in ("max_drop", "min") and metric:
        better = _higher_is_better(metric)
        allowed = "above" if better else "below"
        if name == "max_drop":
            return _Kind(f"Loss of {words(metric)}", difference_style(metric), allowed)
        extreme = "Least" if better else "Largest"
        return _Kind(f"{extreme} {words(metric)}", metric_style(metric), allowed)
    return _KINDS.get(rule, _Kind(sentence(words(rule.replace(".", " "))), "plain", None))


def _higher_is_better(metric: str) -> bool:
    try:
        return higher_is_better(metric)
    except InvalidInput:  # a metric of another version: most are
        return True


def _times(interval: Interval | None, factor: float) -> Interval | None:
    if interval is None or factor == 1:
        return interval
    ends = {k: getattr(interval, k) * factor for k in ("value", "low", "high")}
    return interval.model_copy(update=ends)


def _finite(interval: Interval | None) -> Interval | None:
    if interval is None or not math.isfinite(interval.value):
        return None
    ends = {
        "low": interval.low if math.isfinite(interval.low) else interval.value,
        "high": interval.high if math.isfinite(interval.high) else interval.value,
    }
    return interval.model_copy(update=ends)
