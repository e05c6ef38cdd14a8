"""Session options of an engine, tuned by measuring."""

from typing import Any

from trimgate.models.directory import RuntimeChoice
from trimgate.techniques.runtime._measure import Bench, is_gain, speeds, typical

LEAST_GAIN = 1.03
"""An option stays at its default unless the other value is so many times as fast."""

_DEFAULT = "default"
Options = dict[str, str | int | float | bool]


def grid(choice: RuntimeChoice, threads: int, fixed: Options) -> list[Options]:
    """Single departures from an engine's options that are worth measuring.

    Args:
        choice: The engine with its present options.
        threads: What the target grants.
        fixed: Options that the user set; they stay.
    """
    fewer: list[Options] = []
    count = 1
    while count < threads:
        fewer.append({"threads": count})
        count *= 2
    several: list[Options] = []
    if choice.name == "onnxruntime":
        found: list[Options] = [{"arena": False}, {"memory_pattern": False}]
        several = [{"allow_spinning": True}, {"parallel": True}]
        if choice.options.get("optimization", "all") == "all":
            found.append({"optimization": "extended"})
    elif choice.name in ("openvino", "openvino-ep"):
        found = [{"pinning": True}]
        several = [{"hint": "throughput", "streams": 0}]
    else:
        return []
    if threads > 1:
        found += [*several, *fewer]
    return [options for options in found if not set(options) & set(fixed)]


def tune(bench: Bench, choice: RuntimeChoice, size: int, fixed: Options) -> tuple[Options, Any]:
    """Measures departures from the default side by side, and the best of them together.

    Args:
        bench: The model and its rows.
        choice: The engine with its present options.
        size: Rows in a call.
        fixed: Options that the user set; they stay.

    Returns:
        The options to add to those of `choice` (none unless they are at least 3 % faster), and a
        note of what was measured.
    """
    tried = {_name(o): o for o in grid(choice, bench.threads, fixed)}
    if not tried:
        return {}, {"rows": size, "times_as_fast": {}}
    found = _measure(bench, choice, tried, size)
    ordered = sorted(found, key=lambda name: -typical(found[name]))
    good = [name for name in ordered if is_gain(found[name], LEAST_GAIN)]
    note = {name: round(typical(ratios), 3) for name, ratios in found.items()}
    if not good:
        return {}, {"rows": size, "times_as_fast": note}
    both: Options = {}
    for name in reversed(good):
        both.update(tried[name])
    finals = {good[0]: tried[good[0]], _name(both): both}
    again = _measure(bench, choice, finals, size)
    best = good[0]
    for name, ratios in again.items():
        note[name] = round(typical(ratios), 3)
        if typical(ratios) >= LEAST_GAIN * typical(again[best]):
            best = name
    kept = finals[best] if is_gain(again[best], LEAST_GAIN) else {}
    return kept, {"rows": size, "times_as_fast": note}


def _measure(bench: Bench, choice: RuntimeChoice, tried: dict[str, Options], size: int) -> Any:
    """Ratios to the present options, by the name of a departure."""
    choices = {_DEFAULT: choice} | {
        name: choice.model_copy(update={"options": {**choice.options, **options}})
        for name, options in tried.items()
    }
    with bench.sessions(choices) as sessions:
        ratios = speeds(bench, sessions, size)
    del ratios[_DEFAULT]
    return ratios


def _name(options: Options) -> str:
    return ", ".join(f"{key} {str(value).lower()}" for key, value in sorted(options.items()))
