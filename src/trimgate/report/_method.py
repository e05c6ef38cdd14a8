"""How it was measured, in words and numbers."""

from collections.abc import Mapping
from typing import Any

from trimgate.report._card import CardInput
from trimgate.report._format import (
    Cell,
    count,
    number,
    percent,
    sentence,
    size,
    with_interval,
    words,
)
from trimgate.report._headline import rows_per_call
from trimgate.report._resources import limit_panels
from trimgate.report._steps import show

_BYTES = ("memory", "memory_limit")
_STATES = {
    "clean": "clean",
    "loaded": "loaded: over half of the samples were disturbed",
    "void": "void: the control was off",
}
_STOPS = {"precise": "the interval is narrow enough", "budget": "the time was up"}


def paragraphs(card: CardInput) -> list[str]:
    """The protocol in plain words."""
    level = percent(card.confidence, 2)
    texts = [
        "Quality. Techniques make their choices on one half of the validation rows, and recipes "
        "are ranked on the other. The gate looks at the test rows once, for the winner alone. "
        "Differences are paired, both models on the same rows, with "
        f"{level} intervals; a rule passes only when its whole interval does."
    ]
    if not any(c.benchmark for c in card.candidates) and card.benchmark is None:
        return texts
    threads = card.target.threads
    texts.append(
        "Speed. Baseline and candidate run interleaved in the same process, in random order, on "
        f"{count(threads)} thread{'s' * (threads != 1)}. The speed-up is the median of the paired "
        "ratios of the rounds, and its interval holds what varies between the rounds of a process "
        "(bootstrap) and between fresh processes (Student’s t); absolute times are shown and "
        "never compared across runs."
    )
    texts.append(
        "Footprint. Peak memory and cold start are measured in a process of their own for each "
        "model, engine import included."
    )
    return texts


def controls(card: CardInput) -> list[dict[str, Any]]:
    """The A/A control and the effort of each timing of the winner, by batch size."""
    return [
        {
            "rows": rows_per_call(batch.batch_size),
            "wall": with_interval(batch.control, "ratio", 4),
            "cpu": with_interval(batch.control_cpu, "ratio", 4),
            "speedup": Cell("void")
            if batch.state == "void"
            else with_interval(batch.wall, "ratio"),
            "warmup": " → ".join(
                count(batch.warmup[v]) for v in ("baseline", "candidate") if v in batch.warmup
            ),
            "per_core": " → ".join(
                number(batch.throughput_per_core[v])
                for v in ("baseline", "candidate")
                if v in batch.throughput_per_core
            ),
            "rounds": count(batch.rounds),
            "processes": count(batch.processes),
            "state": sentence(_STATES[batch.state]),
            "stopped": sentence(_STOPS[batch.stopped]),
        }
        for batch in (card.benchmark.batches if card.benchmark else ())
    ]


def method_panels(card: CardInput) -> list[dict[str, Any]]:
    """Data, machine, software and settings, each with its facts."""
    environment = dict(card.environment)
    if not environment and card.benchmark:
        environment = dict(card.benchmark.environment)
    packages = environment.pop("packages", {})
    panels = [
        {"title": "Data", "pairs": _data(card), "notes": card.data.notes},
        {"title": "Target", "pairs": _target(card), "notes": ()},
        {"title": "Machine", "pairs": _environment(environment), "notes": ()},
    ]
    if isinstance(packages, Mapping):
        pairs = [(str(k), str(v)) for k, v in packages.items()]
        panels.append({"title": "Software", "pairs": pairs, "notes": ()})
    if card.benchmark and card.benchmark.settings:
        pairs = [(sentence(words(k)), show(v)) for k, v in card.benchmark.settings.items()]
        panels.append({"title": "Settings of the benchmark", "pairs": pairs, "notes": ()})
    panels += limit_panels(card)
    return [p for p in panels if p["pairs"] or p["notes"]]


def footer(card: CardInput) -> list[tuple[str, str]]:
    """What is needed to make the run again, and to prove that it is the same."""
    pairs = [
        ("Run", card.run),
        ("trimgate", card.code_version),
        ("Seed", str(card.seed)),
        ("Data", card.data.digest),
        *((f"{sentence(s.name)} rows", s.digest) for s in card.data.splits),
        ("Baseline", card.baseline.digest),
        ("Winner", card.winner.digest if card.winner else ""),
    ]
    return [(key, value) for key, value in pairs if value]


def _data(card: CardInput) -> list[tuple[str, str]]:
    data = card.data
    pairs = [
        ("Source", data.source),
        ("Split", data.method),
        *((sentence(s.name), f"{count(s.rows)} rows") for s in data.splits),
        ("Label", data.label),
        ("Features", count(len(data.features)) if data.features else ""),
    ]
    return [(key, value) for key, value in pairs if value]


def _target(card: CardInput) -> list[tuple[str, str]]:
    target = card.target
    pairs = [
        ("Profile", target.name),
        ("Device", target.device.upper()),
        ("Threads", count(target.threads)),
        ("Rows per call", ", ".join(count(b) for b in target.batch_sizes)),
        ("Runtimes allowed", ", ".join(target.runtimes)),
    ]
    if target.memory_limit_mb is not None:
        pairs.append(("Memory limit", f"{count(target.memory_limit_mb)} MiB"))
    return pairs


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for key, value in environment.items():
        if value in (None, "", [], {}):
            continue
        if key in _BYTES and isinstance(value, int):
            shown = size(value)
        elif key == "load_average" and isinstance(value, list | tuple):
            shown = ", ".join(number(float(v), places=2) for v in value)
        else:
            shown = show(value)
        label = "CPU" if key == "cpu" else "OS" if key == "os" else sentence(words(key))
        pairs.append(("CPU flags" if key == "flags" else label, shown))
    return pairs
