"""Recipe steps in a few words."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from trimgate.errors import InvalidInput
from trimgate.report._format import MINUS, words
from trimgate.techniques import parse_step

_EXPORT = "ONNX"
_MOST = 8  # of a mapping; the whole of it is in card.json


def step_label(step: Mapping[str, Any]) -> str:
    """One recipe step as a chip: its technique's own title.

    A step that this version does not know (a card of another version) is shown by its
    technique's name and its plain parameters.
    """
    try:
        return parse_step(step).title()
    except InvalidInput:
        plain = [
            f"{words(k)} {show(v)}" for k, v in step.items() if isinstance(v, str | int | float)
        ]
        name = words(str(step.get("technique", "step")))
        return " ".join([name, *(p for p in plain if not p.startswith("technique "))])


def chips(steps: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The steps of a recipe as short labels, in order; the baseline has none."""
    return tuple(step_label(step) for step in steps)


def names_steps(name: str, steps: tuple[str, ...]) -> bool:
    """Whether a recipe's name says no more than its chips do (the export may go unnamed)."""
    shown = [s for s in steps if s != _EXPORT] or [_EXPORT]
    return bool(steps) and name in (" → ".join(shown), " → ".join(steps))


def parameters(step: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The parameters of a step that differ from the technique's defaults, as shown pairs.

    All of them where this version does not know the step; every parameter is in `card.json`.
    """
    with contextlib.suppress(InvalidInput):
        step = parse_step(step).model_dump(mode="json", exclude_defaults=True)
    return [(words(str(k)), show(v)) for k, v in step.items() if k != "technique"]


def effects(notes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a technique noted of its work: numbers before and after, and the parity it saw."""
    found = [
        (words(key.removesuffix("_before")), f"{_count(value)} → {_count(after)}")
        for key, value in notes.items()
        if key.endswith("_before")
        and isinstance(value, int | float)
        and isinstance(after := notes.get(key.removesuffix("_before") + "_after"), int | float)
    ]
    parity = notes.get("parity")
    if isinstance(parity, Mapping) and isinstance(parity.get("max_difference"), int | float):
        found.append(("largest difference of a score", show(float(parity["max_difference"]))))
    return found


def _count(value: float) -> str:
    return f"{value:,}".replace(",", "\u2009") if isinstance(value, int) else show(value)


def show(value: Any) -> str:
    """A JSON value in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", MINUS)
    if isinstance(value, Mapping):
        told = [f"{words(str(k))} {show(v)}" for k, v in list(value.items())[:_MOST]]
        more = [f"{len(value) - _MOST} more"] if len(value) > _MOST else []
        return ", ".join([*told, *more]) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(show(v) for v in value) or "none"
    return str(value)
