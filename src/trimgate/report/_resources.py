"""Several callers, LoadGen, energy, limits of the target: what the benchmark knows besides."""

from typing import Any

from trimgate.report._card import CardInput
from trimgate.report._format import count, number, seconds, sentence, size, with_interval, words
from trimgate.report._headline import speed

_VARIANTS = {"baseline": "Baseline", "candidate": "Winner"}


def concurrent_rows(card: CardInput) -> list[dict[str, Any]]:
    """Throughput with several callers at once."""
    if card.benchmark is None or card.status == "baseline":
        return []
    return [
        {
            "callers": f"{count(c.callers)} {c.kind}",
            "rows": count(c.batch_size),
            "baseline": number(c.baseline),
            "winner": number(c.candidate),
            "ratio": with_interval(c.ratio, "ratio"),
            "p99": f"{seconds(c.baseline_p99)} → {seconds(c.candidate_p99)}",
        }
        for c in card.benchmark.concurrent
    ]


def loadgen_rows(card: CardInput) -> list[dict[str, Any]]:
    """What MLPerf LoadGen said of both models."""
    if card.benchmark is None or card.status == "baseline":
        return []
    return [
        {
            "scenario": r.scenario,
            "model": _VARIANTS[r.variant],
            "valid": r.valid,
            "reason": r.reason,
            "p50": seconds(r.p50),
            "p90": seconds(r.p90),
            "p99": seconds(r.p99),
            "per_second": number(r.per_second),
        }
        for r in card.benchmark.loadgen
    ]


def energy_view(card: CardInput) -> dict[str, Any] | None:
    """Energy of both models; None when it was not looked at."""
    energy = card.benchmark.energy if card.benchmark else None
    if energy is None or card.status == "baseline":
        return None
    value, word, interval, tone = speed(energy.ratio, "less energy", "more energy", "the energy")
    return {
        "measured": energy.source == "rapl",
        "value": value,
        "word": word,
        "interval": interval,
        "tone": tone,
        "baseline": number(energy.baseline),
        "winner": number(energy.candidate),
        "method": sentence(energy.method),
    }


def limit_panels(card: CardInput) -> list[dict[str, Any]]:
    """How the target's limits were applied, and what its own format takes."""
    benchmark = card.benchmark
    if benchmark is None:
        return []
    panels: list[dict[str, Any]] = []
    if benchmark.limits:
        pairs = [(sentence(words(k)), v) for k, v in benchmark.limits.items()]
        panels.append({"title": "Limits while measuring", "pairs": pairs, "notes": ()})
    if found := benchmark.format:
        pairs = [("Format", {"ort": "ONNX Runtime mobile (ORT)", "neuron": "Neuron"}[found.format])]
        if found.size is not None:
            pairs.append(("Size", size(found.size)))
        if found.operators:
            pairs.append(("Operators", "; ".join(found.operators)))
        pairs.append(("Not supported", "; ".join(found.unsupported) or "nothing"))
        title = "The target’s own format, checked and not timed"
        panels.append({"title": title, "pairs": pairs, "notes": found.notes})
    return panels
