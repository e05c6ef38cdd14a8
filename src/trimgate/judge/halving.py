"""Successive halving: which recipes are worth their full cost, after a cheap trial on a sample.

Recipes are tried with few rows and little training, the better share goes on, and only the last
rung gets everything (Jamieson and Talwalkar, "Non-stochastic best arm identification and
hyperparameter optimization", AISTATS 2016, arXiv:1502.07943). Recipes are compared in quality and
gain at once: first those that no other beats in both, then those that only these beat, and so on.
"""

import math
from collections.abc import Sequence

from trimgate.judge.records import Halving, Screened, Trial

LEAST = 2


def halve(
    trials: Sequence[Trial],
    *,
    keep: float,
    higher_is_better: bool,
    hopeless: float,
    most: int | None = None,
    seconds: float | None = None,
) -> Halving:
    """Divides recipes into those that go on and those that do not.

    Args:
        trials: Every recipe on the sample.
        keep: Share of the recipes that goes on; at least two do.
        higher_is_better: Whether more of the metric is better.
        hopeless: A recipe whose metric is worse by more than this, even at the good end of its
            interval, does not go on whatever its rank (times the trial's scale).
        most: At most so many go on.
        seconds: What is left of the time. The recipes' full cost is estimated from the trial,
            and those of the lowest rank that do not fit do not go on.

    Returns:
        A line for each recipe, the best first, with the reason.

    Raises:
        ValueError: Two recipes have the same name.
    """
    names = [trial.name for trial in trials]
    if len(set(names)) < len(names):
        raise ValueError(f"the recipes' names must differ: {names}")
    alive: list[Trial] = []
    lines: list[Screened] = []
    for trial in trials:
        refusal = _refusal(trial, higher_is_better, hopeless)
        if refusal is None:
            alive.append(trial)
        else:
            lines.append(Screened(name=trial.name, goes_on=False, reason=refusal))
    places = max(LEAST, math.ceil(keep * len(trials)))
    if most is not None:
        places = min(places, most)
    ranked = _ranked(alive, higher_is_better)
    left = math.inf if seconds is None else seconds
    chosen: list[Screened] = []
    for rank, trial in enumerate(ranked, start=1):
        expected = trial.full_seconds
        if len(chosen) >= places:
            line = Screened(
                name=trial.name,
                goes_on=False,
                reason=f"ranked {rank} of {len(trials)} on the sample, and {places} go on",
            )
        elif expected > left and chosen:
            line = Screened(
                name=trial.name,
                goes_on=False,
                reason=f"it would take about {expected:.0f} s, and {left:.0f} s of the budget "
                "are left",
            )
        else:
            left -= expected
            line = Screened(name=trial.name, goes_on=True, reason=_words(trial))
            chosen.append(line)
            continue
        lines.append(line)
    return Halving(lines=(*chosen, *lines))


def _refusal(trial: Trial, up: bool, hopeless: float) -> str | None:
    if trial.refusal is not None:
        return trial.refusal
    if trial.difference is None or trial.gain is None:
        return "it was not measured"
    best = -trial.difference.high if up else trial.difference.low
    if best > hopeless * trial.scale:
        return f"hopeless on the sample: at least {best:.3g} worse"
    return None


def _quality(trial: Trial, up: bool) -> float:
    if trial.difference is None:
        return -math.inf
    return trial.difference.value if up else -trial.difference.value


def _ranked(trials: Sequence[Trial], up: bool) -> list[Trial]:
    """By non-dominated fronts of quality and gain, and within a front by gain."""
    points = {t.name: (_quality(t, up), t.gain or 0.0) for t in trials}
    rest, ranked = list(trials), list[Trial]()
    while rest:
        front = [t for t in rest if not any(_beats(points[o.name], points[t.name]) for o in rest)]
        ranked += sorted(front, key=lambda t: (-points[t.name][1], t.name))
        rest = [t for t in rest if t not in front]
    return ranked


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] >= other[1]


def _words(trial: Trial) -> str:
    if trial.difference is None or trial.gain is None:
        return ""
    return f"{trial.difference.value:+.4f} and {trial.gain:.3g} times on the sample"
