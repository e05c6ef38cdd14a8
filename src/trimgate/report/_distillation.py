"""What distillation itself added, in a sentence."""

from collections.abc import Mapping
from typing import Any

from trimgate.judge.records import Interval
from trimgate.report._format import (
    count,
    difference_style,
    metric_style,
    number,
    percent,
    with_interval,
    words,
)


def distillation(notes: Mapping[str, Any]) -> str:
    """The sentence of a distill step, from its notes; empty where they do not hold it.

    A difference is claimed only where its whole interval lies on one side of 0.
    """
    added = notes.get("added")
    if not isinstance(added, Mapping) or "metric" not in notes:
        return ""
    metric, better_up = str(notes["metric"]), bool(notes["higher_is_better"])
    interval = Interval.model_validate({**added})
    shown = str(with_interval(interval, difference_style(metric)))
    name, rows = words(metric), count(int(notes["rows"]))
    who = "the same student trained on labels alone"
    where = f"on {rows} validation rows"
    if interval.low <= 0 <= interval.high:
        text = (
            f"Distillation added nothing that these {rows} validation rows can show: {name} "
            f"{shown} over {who}"
        )
    elif (interval.value > 0) != better_up:
        text = f"Distillation made it worse: {name} {shown} against {who}, {where}"
    elif better_up:
        text = f"Distillation added {shown} {name} over {who}, {where}"
    else:
        text = f"Distillation changed {name} by {shown} against {who} (less is better), {where}"
    values = [_value(notes[key], metric) for key in ("student", "control", "teacher")]
    text += " ({} and {}; the teacher has {}).".format(*values)
    if notes.get("kept") == "control":
        text += " So the one trained on labels alone was kept."
    return text


def _value(value: float, metric: str) -> str:
    if metric_style(metric) == "percent":
        return percent(value)
    return number(value)
