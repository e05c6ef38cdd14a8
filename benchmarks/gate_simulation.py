"""What the gate lets through, and what it stops: simulated models with a known true drop.

    python benchmarks/gate_simulation.py --runs 4000

Each simulated run draws a test set and the rows that baseline and candidate get wrong, then asks
three gates whether the candidate lost at most the margin:

- paired: trimgate's, the one-sided bound of the paired difference (Tango's score interval for
  accuracy, the stratified bootstrap for average precision);
- unpaired: the same idea with the standard errors of two separate accuracies, as if the two
  models had been tested on different rows;
- point: the observed drop against the margin, as most tools do.

Where the true drop is the margin or more, each pass is a false one: the paired gate promises at
most 5 %. Where it is less, the share of passes is the power.
"""

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np

from trimgate.judge import _stats
from trimgate.judge._bootstrap import draw, ends
from trimgate.judge._view import View
from trimgate.judge.metrics import spec

CONFIDENCE = 0.95
LEVEL = 2 * CONFIDENCE - 1


def accuracy_rates(
    rows: int, drop: float, discordant: float, margin: float, runs: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Shares of runs that the paired, the unpaired and the point gate let pass.

    Args:
        rows: Of the test set.
        drop: True drop of accuracy.
        discordant: Share of rows that one model alone gets right.
        margin: Drop allowed.
        runs: To simulate.
        rng: Source of randomness.
    """
    lost, won, both = (discordant + drop) / 2, (discordant - drop) / 2, 0.9
    cells = [lost, won, both, 1 - lost - won - both]
    drawn, counts = np.unique(rng.multinomial(rows, cells, size=runs), axis=0, return_counts=True)
    ends_of: dict[tuple[int, int], float] = {}
    passed = np.zeros(3)
    z = _stats.normal_quantile(CONFIDENCE)
    for (bad, good, right, _), count in zip(drawn.tolist(), counts, strict=True):
        if (bad, good) not in ends_of:
            ends_of[bad, good] = _stats.tango(good, bad, rows, LEVEL)[0]
        before, after = (right + bad) / rows, (right + good) / rows
        error = math.sqrt((before * (1 - before) + after * (1 - after)) / rows)
        passed += count * np.array(
            [
                ends_of[bad, good] > -margin,
                after - before - z * error > -margin,
                after - before >= -margin,
            ]
        )
    paired, unpaired, point = (passed / runs).tolist()
    return paired, unpaired, point


def ranked(
    positives: int, negatives: int, noise: float, rng: np.random.Generator
) -> tuple[View, View]:
    """A baseline and a candidate that blurs its scores, on a rare class."""
    labels = np.repeat([1, 0], [positives, negatives])
    logits = rng.normal(size=len(labels)) + 3.0 * labels
    views = []
    for values in (logits + noise * rng.normal(size=len(labels)), logits):
        share = 1 / (1 + np.exp(-values))
        views.append(View(labels, np.stack([1 - share, share], axis=1), (0, 1)))
    return views[0], views[1]


def true_precision_drop(noise: float, rng: np.random.Generator) -> float:
    """What the blur costs, from four million rows."""
    known = spec("average_precision")
    drops = []
    for _ in range(5):
        candidate, baseline = ranked(20_000, 800_000, noise, rng)
        drops.append(known.function(baseline) - known.function(candidate))
    return float(np.mean(drops))


def precision_rates(
    noise: float, drop: float, runs: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Shares of runs in which a margin equal to the true drop is passed: paired and point."""
    known = spec("average_precision")
    paired = point = 0
    for seed in range(runs):
        candidate, baseline = ranked(100, 4000, noise, rng)
        drawn = draw([candidate, baseline], [known], 300, seed)[:, :, 0]
        low, _ = ends(drawn[:, 0] - drawn[:, 1], LEVEL, 100)
        paired += low > -drop
        point += known.function(candidate) - known.function(baseline) >= -drop
    return paired / runs, point / runs


def table(runs: int, seed: int) -> Iterator[str]:
    """The lines of the report."""
    rng = np.random.default_rng(seed)
    margin = 0.01
    yield f"accuracy, margin {margin:g}, {runs} runs: share that each gate lets pass"
    gates = " ".join(f"{name:>8}" for name in ("paired", "unpaired", "point"))
    yield f"{'rows':>6} {'discordant':>10} {'true drop':>9} {gates}"
    worst = {"paired": 0.0, "unpaired": 0.0, "point": 0.0}
    for rows in (1000, 5000, 20_000):
        for discordant in (0.02, 0.06):
            for drop in (0.0, 0.005, 0.01, 0.015):
                rates = accuracy_rates(rows, drop, discordant, margin, runs, rng)
                mark = "  <- false passes" if drop >= margin else ""
                shown = " ".join(f"{rate:8.3f}" for rate in rates)
                yield f"{rows:6d} {discordant:10.2f} {drop:9.3f} {shown}{mark}"
                if drop >= margin:
                    for name, rate in zip(worst, rates, strict=True):
                        worst[name] = max(worst[name], rate)
    error = math.sqrt(0.05 * 0.95 / runs)
    yield (
        "worst false-pass rate: "
        + ", ".join(f"{name} {rate:.3f}" for name, rate in worst.items())
        + f" (stated: 0.05; simulation error ±{2 * error:.3f})"
    )
    few = max(20, runs // 16)
    yield ""
    yield f"average precision, 100 positives among 4,100 rows, margin = true drop, {few} runs"
    yield f"{'noise':>6} {'true drop':>9} {'paired':>8} {'point':>8}"
    for noise in (0.3, 0.6):
        drop = true_precision_drop(noise, rng)
        paired, point = precision_rates(noise, drop, few, rng)
        yield f"{noise:6.1f} {drop:9.4f} {paired:8.3f} {point:8.3f}  <- false passes"
    yield f"(stated: 0.05; simulation error ±{2 * math.sqrt(0.05 * 0.95 / few):.3f})"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=4000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args()
    start = time.perf_counter()
    for line in table(arguments.runs, arguments.seed):
        print(line)
    print(f"took {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
