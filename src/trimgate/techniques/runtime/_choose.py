"""Which engine for how many rows."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimgate.errors import NotApplicable
from trimgate.models.directory import LargeBatches, RuntimeChoice
from trimgate.runtimes import Session
from trimgate.techniques.runtime._measure import Bench, speeds, typical

LEAST_GAIN = 1.1
"""A second engine, or another than the preferred one, must be so many times as fast."""

# How far apart the numbers of rows are at which the change-over is looked for.
_STEP = 4
_SHARE = 0.3


@dataclass(frozen=True)
class Plan:
    """Engines by batch size.

    Attributes:
        engines: One for each batch size, in ascending order of the sizes; at most one change.
    """

    engines: tuple[str, ...]

    def change(self) -> int | None:
        """Position of the first size that another engine serves than the first size."""
        return next((i for i, e in enumerate(self.engines) if e != self.engines[0]), None)


@dataclass
class Found:
    """What was measured and chosen.

    Attributes:
        choice: For the model's record.
        ratios: By engine and batch size: how many times as fast as the first engine.
        left_out: Why an engine was not measured, by its name.
    """

    choice: RuntimeChoice
    ratios: dict[str, dict[int, float]]
    left_out: dict[str, str] = field(default_factory=dict)

    def note(self) -> dict[str, Any]:
        """For the card."""
        table = {e: {str(s): round(r, 3) for s, r in row.items()} for e, row in self.ratios.items()}
        return {
            "engine": [choice.name for choice in self.choice.engines()],
            "rows": self.choice.large.rows if self.choice.large else None,
            "times_as_fast": {"as": next(iter(table)), **table},
            "left_out": self.left_out,
        }


def choose(bench: Bench, choices: Mapping[str, RuntimeChoice], sizes: Sequence[int]) -> Found:
    """Measures engines and picks the fastest for each number of rows.

    Args:
        bench: The model and its rows.
        choices: The engines, the preferred first; one that cannot load the model is left out.
        sizes: The target's batch sizes.

    Raises:
        NotApplicable: No engine can load the model.
    """
    left_out: dict[str, str] = {}
    usable: dict[str, RuntimeChoice] = {}
    for name, choice in choices.items():
        try:
            bench.load(choice).close()
            usable[name] = choice
        except NotApplicable as error:
            left_out[name] = error.problem
    if not usable:
        raise NotApplicable(f"no engine can run it: {'; '.join(left_out.values())}")
    ordered = sorted(set(sizes))
    with bench.sessions(usable) as sessions:
        ratios = measure(bench, sessions, ordered)
        plan = decide(ratios, ordered)
        change = plan.change()
        choice = usable[plan.engines[0]]
        if change is not None:
            pair = {name: sessions[name] for name in (plan.engines[0], plan.engines[-1])}
            rows = change_over(bench, pair, ordered[change - 1], ordered[change])
            large = LargeBatches(rows=rows, runtime=usable[plan.engines[-1]])
            choice = choice.model_copy(update={"large": large})
    return Found(choice, ratios, left_out)


def measure(
    bench: Bench, sessions: Mapping[str, Session], sizes: Sequence[int]
) -> dict[str, dict[int, float]]:
    """How many times as fast as the first engine each is, by engine and batch size."""
    table: dict[str, dict[int, float]] = {name: {} for name in sessions}
    for size in sizes:
        for name, ratios in speeds(bench, sessions, size).items():
            table[name][size] = typical(ratios)
    return table


def decide(ratios: Mapping[str, Mapping[int, float]], sizes: Sequence[int]) -> Plan:
    """The fastest engine, or two with one change between them.

    Plans are looked at from the simplest and most preferred on; one is left for the next only
    where that gains `LEAST_GAIN` on average over the sizes at which they differ. So what is as
    fast within 10 % gives the same plan in every run.

    Args:
        ratios: By engine, the preferred first, and batch size.
        sizes: In ascending order.
    """
    engines = list(ratios)
    plans = [Plan((engine,) * len(sizes)) for engine in engines]
    plans += [
        Plan((few,) * split + (many,) * (len(sizes) - split))
        for few, many in itertools.permutations(engines, 2)
        for split in range(1, len(sizes))
    ]
    chosen = plans[0]
    for plan in plans[1:]:
        gains = [
            math.log(ratios[new][size] / ratios[old][size])
            for old, new, size in zip(chosen.engines, plan.engines, sizes, strict=True)
            if old != new
        ]
        if gains and sum(gains) / len(gains) >= math.log(LEAST_GAIN):
            chosen = plan
    return chosen


def change_over(bench: Bench, pair: Mapping[str, Session], few: int, many: int) -> int:
    """From how many rows on the second of two engines is the faster.

    Args:
        bench: The model and its rows.
        pair: The engine for few rows and that for many.
        few: A number of rows at which the first is faster.
        many: One at which the second is.
    """
    second = list(pair)[1]
    grid = [few]
    while grid[-1] * _STEP < many:
        grid.append(grid[-1] * _STEP)
    low, high = 0, len(grid)
    while high - low > 1:
        middle = (low + high) // 2
        if typical(speeds(bench, pair, grid[middle], share=_SHARE)[second]) > 1.0:
            high = middle
        else:
            low = middle
    return max(2, grid[high] if high < len(grid) else many)
