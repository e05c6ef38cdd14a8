"""What the gate lets through, and what it stops: simulated models with a known true drop.

    python benchmarks/gate_simulation.py --runs 4000

Each simulated run is a model with a known true drop: it draws a test set and the rows that
baseline and candidate get wrong, then asks three gates whether the candidate lost at most the
margin:

- paired: trimgate's, the one-sided bound of the paired difference (Tango's score interval for
  accuracy, the stratified bootstrap for average precision);
- unpaired: the same idea with the standard errors of two separate accuracies, as if the two
  models had been tested on different rows;
- point: the observed drop against the margin, as most tools do.

Where the true drop is the margin or more, each pass is a false one: the paired gate promises at
most 5 %. Where it is less, the share of passes is the power.

Then the same for ranked metrics with a rare class, for 20 slices at once (how often a model that is
as good everywhere is called broken somewhere, and how often one broken slice is let pass), and for
the exact McNemar test.
"""

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np

from trimgate.judge import _stats
from trimgate.judge._intervals import paired, prepare
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


def true_drops(noise: float, names: list[str], rng: np.random.Generator) -> list[float]:
    """What the blur costs in each metric, from 1.6 million rows."""
    drops = []
    for _ in range(2):
        candidate, baseline = ranked(20_000, 800_000, noise, rng)
        drops.append([spec(n).function(baseline) - spec(n).function(candidate) for n in names])
    return [float(drop) for drop in np.mean(drops, axis=0)]


def ranked_rates(
    noise: float,
    positives: int,
    names: list[str],
    drops: list[float],
    runs: int,
    rng: np.random.Generator,
) -> list[tuple[float, float, float]]:
    """Shares of runs that pass, by metric.

    Returns:
        At a margin of the true drop the paired gate's and the point gate's, which are false; at
        twice the true drop the paired gate's, which is its power.
    """
    known = [spec(name) for name in names]
    passed = np.zeros((len(names), 3))
    for seed in range(runs):
        candidate, baseline = ranked(positives, 40 * positives, noise, rng)
        judged = prepare(candidate, baseline, known, seed=seed, resamples=200)
        for position, (each, drop) in enumerate(zip(known, drops, strict=True)):
            value, low, _, _ = paired(judged[each.name], LEVEL)
            passed[position] += [low > -drop, value >= -drop, low > -2 * drop]
    return [(p, q, r) for p, q, r in (passed / runs).tolist()]


def slice_rates(
    rows: int, broken: float, margin: float, runs: int, rng: np.random.Generator
) -> dict[str, float]:
    """20 slices with no true drop, or one of them with the drop `broken`.

    Args:
        rows: Of each slice.
        broken: True drop of the first slice.
        margin: Drop allowed in each.
        runs: To simulate.
        rng: Source of randomness.

    Returns:
        Shares of runs in which trimgate passes and fails (a slice is broken beyond chance, after
        correction), an uncorrected gate fails, and a point gate passes and fails.
    """
    slices, discordant = 20, 0.06
    drops = np.zeros(slices)
    drops[0] = broken
    drawn = np.stack(
        [
            rng.multinomial(
                rows, [(discordant + d) / 2, (discordant - d) / 2, 1 - discordant], size=runs
            )
            for d in drops
        ],
        axis=1,
    )
    known: dict[tuple[int, int], tuple[float, float, float]] = {}
    alone, together = 2 * CONFIDENCE - 1, 1 - (2 - 2 * CONFIDENCE) / slices
    counts = dict.fromkeys(("pass", "fail", "uncorrected", "point pass", "point fail"), 0)
    for run in drawn.tolist():
        seen = []
        for lost, won, _ in run:
            if (lost, won) not in known:
                low, high = _stats.tango(won, lost, rows, alone)
                known[lost, won] = low, high, _stats.tango(won, lost, rows, together)[1]
            seen.append((*known[lost, won], (won - lost) / rows))
        counts["pass"] += all(low > -margin for low, _, _, _ in seen)
        counts["fail"] += any(surely < -margin for _, _, surely, _ in seen)
        counts["uncorrected"] += any(high < -margin for _, high, _, _ in seen)
        counts["point pass"] += all(value >= -margin for _, _, _, value in seen)
        counts["point fail"] += any(value < -margin for _, _, _, value in seen)
    return {name: count / runs for name, count in counts.items()}


def mcnemar_rates(
    rows: int, drop: float, discordant: float, runs: int, rng: np.random.Generator
) -> float:
    """Share of runs in which the exact test says at 5 % that the two models differ."""
    cells = [(discordant + drop) / 2, (discordant - drop) / 2, 1 - discordant]
    drawn, counts = np.unique(rng.multinomial(rows, cells, size=runs), axis=0, return_counts=True)
    found = [_stats.mcnemar(won, lost) < 0.05 for lost, won, _ in drawn.tolist()]
    return float((counts * found).sum() / runs)


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
    yield ""
    yield f"20 slices, 6 % discordant rows, margin 0.02, {runs} runs"
    columns = ("pass", "fail", "uncorrected", "point pass", "point fail")
    yield f"{'rows each':>9} {'one broken by':>13} " + " ".join(f"{c:>11}" for c in columns)
    for rows, broken, margin in ((1000, 0.0, 0.02), (4000, 0.0, 0.02), (1000, 0.02, 0.02),
                                 (4000, 0.02, 0.02), (4000, 0.04, 0.02)):  # fmt: skip
        found = slice_rates(rows, broken, margin, runs, rng)
        shown = " ".join(f"{found[c]:11.3f}" for c in columns)
        mark = "  <- a pass is false" if broken >= margin else "  <- a failure is false"
        yield f"{rows:9d} {broken:13.2f} {shown}{mark}"
    lone = slice_rates(300, 0.0, 0.0, runs, rng)
    yield (
        "every slice exactly at a margin of 0, 300 rows each: called broken "
        f"{lone['fail']:.3f} with correction (stated: 0.05), {lone['uncorrected']:.3f} without"
    )
    yield ""
    yield f"exact McNemar at 5 %, {runs} runs: share of runs that call the models different"
    yield f"{'rows':>6} {'discordant':>10} {'true drop':>9} {'called':>8}"
    for rows, discordant, drop in (
        (899, 0.01, 0.0), (899, 0.008, 0.0078), (5000, 0.02, 0.0), (5000, 0.02, 0.005),
    ):  # fmt: skip
        rate = mcnemar_rates(rows, drop, discordant, runs, rng)
        mark = "  <- false alarms" if drop == 0 else ""
        yield f"{rows:6d} {discordant:10.3f} {drop:9.4f} {rate:8.3f}{mark}"
    few = max(20, runs // 16)
    names = ["average_precision", "roc_auc"]
    yield ""
    yield f"rare class (1 in 41), {few} runs: false passes at margin = true drop; power at twice it"
    head = " ".join(f"{name:>8}" for name in ("paired", "point", "power"))
    yield f"{'positives':>9} {'noise':>6} {'metric':>18} {'true drop':>9} {head}"
    for positives, noise in ((30, 0.6), (50, 0.3), (100, 0.3), (100, 0.6)):
        drops = true_drops(noise, names, rng)
        rates = ranked_rates(noise, positives, names, drops, few, rng)
        for name, drop, found in zip(names, drops, rates, strict=True):
            shown = " ".join(f"{rate:8.3f}" for rate in found)
            yield f"{positives:9d} {noise:6.1f} {name:>18} {drop:9.4f} {shown}"
    yield f"(stated: 0.05; simulation error ±{2 * math.sqrt(0.05 * 0.95 / few):.3f})"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=4000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args()
    start = time.perf_counter()
    for line in table(arguments.runs, arguments.seed):
        print(line, flush=True)
    print(f"took {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
