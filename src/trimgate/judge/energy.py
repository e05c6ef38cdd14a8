"""Energy of predictions: read from the processor's counters (RAPL), else estimated.

An estimate is CPU time times the power of a busy logical core. That power is the target's
`watts_per_core`, or 3.5 W, the full-load average per virtual CPU that Cloud Carbon Footprint gives
for one large cloud's servers (cloudcarbonfootprint.org/docs/methodology; two others have 3.8 and
4.3 W). It says nothing of memory, cooling or idle machines, and its ratio is that of CPU time.
"""

import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from trimgate.judge import _stats
from trimgate.judge.benchmark import BASELINE, CANDIDATE
from trimgate.judge.records import BatchBenchmark, Energy, Interval

POWERCAP = Path("/sys/class/powercap")
WATTS_PER_CORE = 3.5
_PAIRS = 6
_LEAST_SECONDS = 3.0
_MICRO = 1e-6


class Rapl:
    """The energy counters of all processor packages.

    Args:
        root: Where Linux shows them.

    Raises:
        OSError: There are none, or they cannot be read (by default only root may).
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        names = sorted(p for p in root.glob("*-rapl:*") if re.fullmatch(r"[\w-]+:\d+", p.name))
        self._zones = [p for p in names if _first_word(p / "name").startswith("package")]
        if not self._zones:
            raise FileNotFoundError(f"no energy counters in {root}")
        self._spans = [int(_first_word(z / "max_energy_range_uj")) for z in self._zones]
        self.read()

    def read(self) -> list[int]:
        """Microjoules by package; they start again at 0 after their largest value."""
        return [int(_first_word(zone / "energy_uj")) for zone in self._zones]

    def joules(self, before: list[int], after: list[int]) -> float:
        """Between two readings, all packages together."""
        rows = zip(before, after, self._spans, strict=True)
        return sum((b - a) % (span + 1) for a, b, span in rows) * _MICRO


def available(root: Path = POWERCAP) -> bool:
    """Whether the counters can be read here."""
    try:
        Rapl(root)
    except OSError:
        return False
    return True


def measure(
    variants: Mapping[str, Callable[[], object]],
    meter: Rapl,
    *,
    batch_size: int,
    seconds: float,
    seed: int,
    confidence: float = 0.95,
) -> Energy:
    """Joules of predictions, baseline and candidate in turn.

    Args:
        variants: One call each of `baseline` and `candidate`.
        meter: The counters.
        batch_size: Rows per call.
        seconds: For all blocks together.
        seed: Of the order.
        confidence: Of the ratio's interval.
    """
    rng = np.random.default_rng(seed)
    length = max(seconds, _LEAST_SECONDS) / (_PAIRS * len(variants))
    used: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(_PAIRS):
        for position in rng.permutation(len(variants)):
            name = list(variants)[position]
            calls = 0
            before, end = meter.read(), time.perf_counter() + length
            while time.perf_counter() < end or not calls:
                variants[name]()
                calls += 1
            joules = meter.joules(before, meter.read())
            used[name].append(max(joules, 1e-9) * 1000 / (calls * batch_size))
    logs = np.log(np.divide(used[BASELINE], used[CANDIDATE]))
    value = float(np.exp(logs.mean()))
    reach = _stats.t_quantile(0.5 + confidence / 2, len(logs) - 1)
    half = reach * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
    return Energy(
        baseline=float(np.median(used[BASELINE])),
        candidate=float(np.median(used[CANDIDATE])),
        ratio=Interval(
            value=value,
            low=value * math.exp(-half),
            high=value * math.exp(half),
            confidence=confidence,
            method=f"t between {len(logs)} pairs of blocks",
        ),
        source="rapl",
        method="RAPL counters of the processor packages, whatever else ran on them included",
    )


def estimate(batch: BatchBenchmark, watts_per_core: float | None = None) -> Energy:
    """CPU time times the power of a busy core, marked as an estimate.

    Args:
        batch: A timing.
        watts_per_core: Of a busy logical core; by default 3.5 W (see the module).
    """
    watts = watts_per_core or WATTS_PER_CORE
    given = "the target's" if watts_per_core else "Cloud Carbon Footprint's average of"
    per = {
        role: 1000 * getattr(batch, role).cpu / batch.batch_size * watts
        for role in (BASELINE, CANDIDATE)
    }
    return Energy(
        baseline=per[BASELINE],
        candidate=per[CANDIDATE],
        ratio=batch.cpu,
        source="estimate",
        method=f"not measured: CPU seconds x {given} {watts:g} W for a busy logical core",
    )


def _first_word(file: Path) -> str:
    return file.read_text().strip()
