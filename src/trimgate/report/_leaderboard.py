"""The leaderboard as shown rows, for the card and for the terminal."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from trimgate.judge.records import (
    Benchmark,
    Candidate,
    Evaluation,
    Footprint,
    Ranked,
    Selection,
)
from trimgate.report._card import BASELINE, CardInput, Refused
from trimgate.report._cost import money
from trimgate.report._format import (
    NONE,
    Cell,
    difference_style,
    metric_style,
    seconds,
    sentence,
    size,
    with_interval,
)
from trimgate.report._headline import metric_cell
from trimgate.report._steps import chips, names_steps


@dataclass(frozen=True)
class LeaderboardRow:
    """One recipe with every number as it is shown; `str(cell)` joins value and interval.

    Attributes:
        rank: "1", or "–" for the baseline as the reference.
        steps: The recipe as chips; empty for the baseline.
        speedups: By batch size; "void" where the A/A control voided the timing.
        cost: Of a million predictions at the target's first batch size; empty without a price.
        reference: Whether it is the baseline.
    """

    rank: str
    name: str
    steps: tuple[str, ...]
    metric: Cell
    difference: Cell
    speedups: dict[int, Cell]
    cpu: Cell
    size: str
    peak_rss: str
    cold_start: str
    cost: str
    reason: str
    winner: bool
    pareto: bool
    admissible: bool
    reference: bool = False

    @property
    def named(self) -> bool:
        """Whether the name says more than the steps do."""
        return not names_steps(self.name, self.steps)


def leaderboard_rows(
    selection: Selection,
    candidates: Iterable[Candidate] = (),
    baseline: Evaluation | None = None,
) -> list[LeaderboardRow]:
    """The leaderboard in order, the baseline among it.

    Args:
        selection: The ranking.
        candidates: The candidates it was made from: their benchmarks hold what the ranking
            does not.
        baseline: The baseline's evaluation on the validation split.

    Returns:
        The measured recipes by rank. The baseline comes first when it was kept, else where
        the ranking has it, else last. Refused recipes are not in it (`refused_recipes`).
    """
    by_name = {c.name: c for c in candidates}
    rows = [
        _row(ranked, by_name.get(ranked.name), selection)
        for ranked in sorted(selection.ranking, key=lambda r: r.rank)
        if ranked.name != BASELINE and not _refused(ranked, by_name)
    ]
    place = next((r for r in selection.ranking if r.name == BASELINE), None)
    measured = next((c.benchmark for c in by_name.values() if c.benchmark), None)
    footprint = measured.baseline if measured else None
    if place or baseline or footprint:
        row = _baseline(selection, baseline, footprint, place, _cost(measured, "baseline"))
        ahead = len(rows) if place is None else sum(int(r.rank) < place.rank for r in rows)
        rows.insert(0 if row.winner else ahead, row)
    return rows


def refused_recipes(card: CardInput) -> list[Refused]:
    """Recipes that were refused, each once."""
    found = {
        c.name: Refused(name=c.name, steps=c.steps, reason=c.refusal)
        for c in card.candidates
        if c.refusal
    }
    return list({r.name: r for r in (*found.values(), *card.refused)}.values())


def _refused(ranked: Ranked, by_name: dict[str, Candidate]) -> bool:
    candidate = by_name.get(ranked.name)
    return candidate is not None and candidate.refusal is not None


def _cost(benchmark: Benchmark | None, role: Literal["baseline", "candidate"]) -> str:
    """Money for a million predictions, where a price is known and the timing holds."""
    if benchmark is None or benchmark.cost is None or benchmark.batches[0].state == "void":
        return ""
    return money(getattr(benchmark.cost, role))


def _row(ranked: Ranked, candidate: Candidate | None, selection: Selection) -> LeaderboardRow:
    benchmark = candidate.benchmark if candidate else None
    batches = benchmark.batches if benchmark else ()
    speedups = {
        b.batch_size: Cell("void") if b.state == "void" else with_interval(b.wall, "ratio")
        for b in batches
    }
    cpu = Cell(NONE)
    if batches:
        first = batches[0]
        cpu = Cell("void") if first.state == "void" else with_interval(first.cpu, "ratio")
    footprint = benchmark.candidate if benchmark else None
    return LeaderboardRow(
        rank=str(ranked.rank),
        name=ranked.name,
        steps=chips(ranked.steps),
        metric=with_interval(ranked.metric, metric_style(selection.metric)),
        difference=with_interval(ranked.difference, difference_style(selection.metric)),
        speedups=speedups or {0: with_interval(ranked.speedup, "ratio")},
        cpu=cpu,
        size=size(ranked.size),
        peak_rss=size(ranked.peak_rss),
        cold_start=seconds(footprint.cold_start if footprint else None),
        cost=_cost(benchmark, "candidate"),
        reason=sentence(ranked.reason),
        winner=ranked.winner,
        pareto=ranked.pareto,
        admissible=ranked.admissible,
    )


def _baseline(
    selection: Selection,
    evaluation: Evaluation | None,
    footprint: Footprint | None,
    place: Ranked | None,
    cost: str,
) -> LeaderboardRow:
    kept = selection.winner == BASELINE
    metric = metric_cell(evaluation, selection.metric)
    if evaluation is None and place:
        metric = with_interval(place.metric, metric_style(selection.metric))
    reason = place.reason if place else selection.reason if kept else "the model as it was given"
    return LeaderboardRow(
        rank=str(place.rank) if place else NONE,
        name=BASELINE,
        steps=(),
        metric=metric,
        difference=Cell("reference"),
        speedups={},
        cpu=Cell("reference"),
        size=size(footprint.size if footprint else place.size if place else None),
        peak_rss=size(footprint.peak_rss if footprint else place.peak_rss if place else None),
        cold_start=seconds(footprint.cold_start if footprint else None),
        cost=cost,
        reason=sentence(reason),
        winner=kept,
        pareto=place.pareto if place else False,
        admissible=True,
        reference=True,
    )
