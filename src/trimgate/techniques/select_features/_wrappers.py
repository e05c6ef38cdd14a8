"""Training again and again to find the set: wrappers."""

from collections.abc import Callable, Sequence

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.models import sample_rows
from trimgate.techniques.select_features._embedded import loss, permutation, shuffled_rises
from trimgate.techniques.select_features._filters import mutual_information
from trimgate.techniques.select_features._search import Search, Trial, fill, polish
from trimgate.training import folds, grid

_BREADTH = 30
_ROWS = 10_000
_HELD = 8
_MISSES = 2


def recursive_elimination(search: Search, start: Sequence[str]) -> Trial:
    """Trains, drops the features that are worth least, and trains again on the rest.

    About 30 % of the features go at a time (Guyon et al., 2002, doi:10.1023/A:1012487302797,
    drop such shares too). How much each of those left matters is asked anew each time, as
    `permutation` does; a torch module is asked after its fine-tuning on them. Without a number
    or a budget it stops when two sets in a row are not good enough.

    Args:
        search: Makes the trials.
        start: The features to begin with.

    Raises:
        NotApplicable: No smaller set is good enough.
    """
    learner, rows, seed = search.learner, search.context.train, search.context.seed
    wanted, budget = search.count(), search.config.budget
    kept, misses = list(start), 0
    if len(kept) < len(search.names) and _reached(search, kept, wanted, budget):
        return search.trial(kept)
    while len(kept) > 1 and misses < _MISSES:
        if learner.anew:
            rises = permutation(learner, rows, kept, seed)
        else:
            model = learner.model
            if len(kept) < len(search.names):
                model = search.model(search.trial(kept).kept)
            rises = shuffled_rises(learner, model, rows, kept, seed)
        ranked = search.ranked(rises)
        size = max(grid(len(ranked))[-1], wanted or 1)
        fitting = fill(search, ranked, budget) if budget is not None else []
        kept = fitting if len(fitting) >= size else ranked[:size]
        if wanted is None and budget is None:
            misses = 0 if search.trial(kept).good else misses + 1
        elif _reached(search, kept, wanted, budget):
            return search.trial(kept)
    if budget is not None:
        raise search.too_dear(budget)
    polish(search)
    return search.best()


def forward_selection(search: Search, start: Sequence[str]) -> Trial:
    """Adds the one feature that lowers the loss most for its cost, until that is enough.

    The loss is that on an eighth of (at most 10,000) training rows, after training on the
    others with each of the candidates added: of those left, the 30 with the most mutual
    information.

    Args:
        search: Makes the trials.
        start: The features to choose from.

    Raises:
        NotApplicable: No smaller set is good enough, or no feature fits the budget.
    """
    rest, held = _parts(search)
    wanted, budget = search.count(), search.config.budget
    known = mutual_information(search.learner.info, rest, start, search.context.seed)
    left = search.ranked(known)
    kept: list[str] = []
    current = _without_features(search, rest, held)
    breadth = search.context.share_of(_BREADTH)
    while len(kept) < len(search.names) - 1:
        if budget is not None:
            left = [name for name in left if search.cost([*kept, name]) <= budget * (1 + 1e-12)]
        tried = left[:breadth]
        if not tried:
            break
        gains = {name: current - _loss(search, [*kept, name], rest, held) for name in tried}
        name = search.ranked(gains)[0]
        if gains[name] <= 0 and budget is not None and kept:
            break  # what is left of the budget would buy nothing
        current -= gains[name]
        kept.append(name)
        left.remove(name)
        if wanted is None and budget is None and search.trial(kept).good:
            break
        if wanted == len(kept):
            break
    if not kept:
        raise search.too_dear(budget or 0.0)
    if wanted is not None or budget is not None:
        return search.trial(kept)
    polish(search)
    return search.best()


def backward_elimination(search: Search, start: Sequence[str]) -> Trial:
    """Drops the one feature whose absence raises the loss least for its cost, again and again.

    Rows and breadth are those of `forward_selection`. Without a number or a budget it stops
    when two sets in a row are not good enough.

    Args:
        search: Makes the trials.
        start: The features to begin with.

    Raises:
        NotApplicable: No smaller set is good enough.
    """
    rest, held = _parts(search)
    wanted, budget = search.count(), search.config.budget
    known = mutual_information(search.learner.info, rest, start, search.context.seed)
    kept, misses = search.ranked(known), 0
    current = _loss(search, kept, rest, held)
    breadth = search.context.share_of(_BREADTH)
    while len(kept) > 1 and misses < _MISSES:
        if len(kept) < len(search.names) and _reached(search, kept, wanted, budget):
            return search.trial(kept)
        rises = {
            name: _loss(search, [n for n in kept if n != name], rest, held) - current
            for name in kept[-breadth:]
        }
        name = search.ranked(rises)[-1]
        kept.remove(name)
        current += rises[name]
        if wanted is None and budget is None:
            misses = 0 if search.trial(kept).good else misses + 1
    if _reached(search, kept, wanted, budget):
        return search.trial(kept)
    if budget is not None:
        raise search.too_dear(budget)
    polish(search)
    return search.best()


WRAPPERS: dict[str, Callable[[Search, Sequence[str]], Trial]] = {
    "rfe": recursive_elimination,
    "forward": forward_selection,
    "backward": backward_elimination,
}


def _reached(search: Search, kept: Sequence[str], wanted: int | None, budget: float | None) -> bool:
    if budget is not None:
        return search.cost(kept) <= budget * (1 + 1e-12)
    return wanted is not None and len(kept) <= wanted


def _parts(search: Search) -> tuple[Dataset, Dataset]:
    rows = sample_rows(search.context.train, _ROWS)
    return folds(rows, _HELD, search.context.seed)[0]


def _loss(search: Search, kept: Sequence[str], rest: Dataset, held: Dataset) -> float:
    learner = search.learner

    def computed() -> Array:
        scores = learner.scores(learner.fit(kept, rest), held)
        return np.array(loss(learner.info, held.labels, scores))

    return float(learner.memory.recall("loss", kept, computed))


def _without_features(search: Search, rest: Dataset, held: Dataset) -> float:
    """The loss of a model that gives every row the same answer."""
    info = search.learner.info
    if info.task == "regression":
        return loss(info, held.labels, np.full(len(held), rest.labels.mean()))
    shares = np.array([np.mean(rest.labels == label) for label in info.labels])
    return loss(info, held.labels, np.tile(shares, (len(held), 1)))
