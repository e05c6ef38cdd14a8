"""Which set of features: trials, what they cost, and when one is good enough."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimgate.errors import NotApplicable
from trimgate.techniques._base import Context
from trimgate.techniques.select_features._config import SelectFeaturesConfig
from trimgate.techniques.select_features._learners import Learner
from trimgate.training import Proof, grid

_log = logging.getLogger("trimgate.techniques.select_features")

_POLISHED = 8


@dataclass(frozen=True)
class Trial:
    """What a model is worth that was trained on some features.

    Attributes:
        kept: The features, in the order of the model's inputs.
        cost: What they cost together.
        value: The primary metric on the validation rows.
        worst: The worst that this may be beside the reference, at the wanted confidence.
        good: Whether that is within the tolerance.
    """

    kept: tuple[str, ...]
    cost: float
    value: float
    worst: float
    good: bool


@dataclass
class Search:
    """Trains models on sets of features, each set once, and judges them on the validation rows.

    Attributes:
        learner: Trains.
        names: The features that the model looks at now, in the order of its inputs.
        config: The step's parameters.
        context: The step's data.
    """

    learner: Learner
    names: tuple[str, ...]
    config: SelectFeaturesConfig
    context: Context
    trials: dict[frozenset[str], Trial] = field(default_factory=dict)
    models: dict[frozenset[str], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = self.context.validation
        self.proof = Proof(
            self.learner.info,
            rows,
            self.learner.scores(self.learner.model, rows),
            self.context.metric,
            self.config.tolerance,
            self.config.confidence,
            self.context.seed,
        )
        self.measure = self.proof.measure
        self.reference = self.proof.reference_value

    def cost(self, names: Sequence[str]) -> float:
        """What features cost together."""
        return float(sum(self.config.cost(name) for name in names))

    def worth(self, name: str, benefit: float) -> tuple[float, float, float]:
        """By what features are ranked: benefit per cost; the useless ones cheapest first."""
        cost = self.config.cost(name)
        if benefit <= 0:
            return (0.0, -cost, benefit)
        return (benefit / cost if cost else float("inf"), 0.0, benefit)

    def ranked(self, benefits: Mapping[str, float]) -> list[str]:
        """Features, those that pay most first."""
        return sorted(benefits, key=lambda name: self.worth(name, benefits[name]), reverse=True)

    def trial(self, names: Sequence[str]) -> Trial:
        """The model that is trained on these features and all training rows."""
        key = frozenset(names)
        if key not in self.trials:
            kept = tuple(name for name in self.names if name in key)
            rows = self.context.validation
            judged = self.proof(
                self.learner.memory.recall(
                    "scores", kept, lambda: self.learner.scores(self.model(kept), rows)
                )
            )
            self.trials[key] = Trial(kept, self.cost(kept), *judged)
            _log.info("with %d of %d features: %.4f", len(kept), len(self.names), judged.value)
        return self.trials[key]

    def model(self, kept: Sequence[str]) -> Any:
        """The model of a trial: trained again if its scores are all that was kept of it."""
        key = frozenset(kept)
        if key not in self.models:
            self.models[key] = self.learner.fit(kept, self.context.train)
        return self.models[key]

    def best(self) -> Trial:
        """The cheapest trial that is good enough; of equal cost the one with the better metric.

        Raises:
            NotApplicable: None is.
        """
        good = [t for t in self.trials.values() if t.good and len(t.kept) < len(self.names)]
        if not good:
            raise self.not_good()
        return min(
            good,
            key=lambda t: (
                t.cost,
                len(t.kept),
                -self.measure.gain(t.value, self.reference),
                t.kept,
            ),
        )

    def not_good(self) -> NotApplicable:
        """What is said when every smaller set makes the model too much worse."""
        return NotApplicable(
            self.proof.failure(f"with fewer of its {len(self.names)} features"),
            key="select_features.tolerance",
            mend="raise it, give more validation rows, or say how many to keep",
        )

    def too_dear(self, budget: float) -> NotApplicable:
        """What is said when no feature fits the budget."""
        return NotApplicable(
            "no feature is that cheap", key="select_features.budget", value=budget, mend="raise it"
        )

    def count(self) -> int | None:
        """How many features were asked for; None where that is to be found.

        Raises:
            NotApplicable: That would be all of them.
        """
        keep = self.config.keep
        if keep == "auto":
            return None
        wanted = max(1, round(keep * len(self.names))) if isinstance(keep, float) else int(keep)
        if wanted >= len(self.names):
            raise NotApplicable(f"all of the {len(self.names)} features would be kept")
        return wanted


def cut(
    search: Search,
    ranked: Sequence[str],
    *,
    least: int = 1,
    most: int | None = None,
    benefits: Mapping[str, float] | None = None,
) -> Trial:
    """The trial that the parameters ask for, when all features are ranked.

    Args:
        search: Makes the trials.
        ranked: All features, the best first.
        least: At least so many are kept.
        most: `auto` keeps at most so many; None: all but one.
        benefits: What the ranking is made of, where it is benefit per cost.

    Raises:
        NotApplicable: None is good enough, or the parameters ask for fewer than `least`.
    """
    wanted = search.count()
    if search.config.budget is not None:
        return _within(search, ranked, search.config.budget, least, benefits)
    if wanted is not None:
        if wanted < least:
            raise NotApplicable(
                f"only {len(ranked) - least} of the features are associated that much with "
                f"others, so {least} stay",
                key="select_features.keep",
                value=search.config.keep,
                mend="lower max_correlation, or use another method",
            )
        return search.trial(ranked[:wanted])
    most = min(len(ranked) - 1, most or len(ranked))
    # Bisection: each trial is a training, and more features seldom make a model worse.
    sizes = sorted({least, most} | {size for size in grid(len(ranked)) if least <= size <= most})
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if search.trial(ranked[: sizes[middle]]).good:
            high = middle
        else:
            low = middle + 1
    if least == 1:
        polish(search)
    return search.best()


def _within(
    search: Search,
    ranked: Sequence[str],
    budget: float,
    least: int,
    benefits: Mapping[str, float] | None,
) -> Trial:
    """The better of two greedy sets within the budget: by benefit per cost, and by benefit.

    The first may be kept from the one dear feature that matters, as with any knapsack.

    Raises:
        NotApplicable: No feature fits the budget, or not the first `least` ones.
    """
    if least > 1 and search.cost(ranked[:least]) > budget:
        raise NotApplicable(
            f"the {least} features that are not associated with others cost "
            f"{search.cost(ranked[:least]):g}",
            key="select_features.budget",
            value=budget,
            mend="raise it, or use another method",
        )
    orders = [list(ranked)]
    if benefits is not None:
        orders.append(sorted(benefits, key=lambda name: benefits[name], reverse=True))
    sets = [kept for order in orders if (kept := fill(search, order, budget))]
    if not sets:
        raise search.too_dear(budget)
    trials = [search.trial(kept) for kept in sets]
    return max(trials, key=lambda t: search.measure.gain(t.value, search.reference))


def fill(search: Search, ranked: Sequence[str], budget: float) -> list[str]:
    """Features in that order, leaving out those that no longer fit the budget."""
    kept: list[str] = []
    for name in ranked:
        if search.cost([*kept, name]) <= budget * (1 + 1e-12):
            kept.append(name)
    return kept


def polish(search: Search) -> None:
    """Tries the best set without each of its dearest features, where features differ in cost.

    What a dear feature says may be said by cheap ones together, which no ranking shows.
    """
    costs = {search.config.cost(name) for name in search.names}
    if len(costs) == 1 or not any(t.good for t in search.trials.values()):
        return
    kept = list(search.best().kept)
    dearest = sorted(kept, key=search.config.cost, reverse=True)
    for name in dearest[: search.context.share_of(_POLISHED)]:
        without = [other for other in kept if other != name]
        if without and search.trial(without).good:
            kept = without
