"""Tree ensembles that can be cut to fewer trees without training."""

import copy
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import NotApplicable
from trimgate.models import sample_rows
from trimgate.models.directory import ModelInfo
from trimgate.training import estimator_scores, estimator_table


class Ensemble(ABC):
    """A fitted ensemble, alone or as the last step of a pipeline.

    Args:
        model: What the user trained.
        info: Its record.
    """

    def __init__(self, model: Any, info: ModelInfo) -> None:
        self.model = model
        self.info = info

    @property
    def last(self) -> Any:
        """The ensemble itself."""
        return last_step(self.model)

    def prepared(self, rows: Dataset) -> Any:
        """The rows as the ensemble itself gets them."""
        return _prepared(self.model, estimator_table(self.model, self.info, rows))

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of trees, or of rounds where a round adds several trees."""

    @abstractmethod
    def leaves(self) -> list[int]:
        """Number of leaves of each tree."""

    @abstractmethod
    def _cut(self, last: Any, size: int) -> Any:
        """Cuts a copy of the ensemble in place, or gives a new one."""

    def cut(self, size: int) -> Any:
        """The user's model with only the first `size` trees (rounds)."""
        return _with_last(self.model, self._cut(copy.deepcopy(self.last), size))

    def staged(self, rows: Dataset, sizes: Sequence[int]) -> Iterator[Array]:
        """Scores with the first `k` trees (rounds), for each `k` of the ascending `sizes`."""
        for size in sizes:
            yield estimator_scores(self.cut(size), self.info, rows)

    def cost(self) -> float:
        """Nodes that a prediction visits, about: the sum of the trees' balanced depths."""
        return sum(math.log2(leaves) + 1 for leaves in self.leaves())


class Fitted(Ensemble):
    """Made of fitted trees of scikit-learn, each of which can be changed."""

    @abstractmethod
    def _estimators(self, last: Any) -> list[Any]:
        """The estimators that have the trees, in order."""

    def trees(self) -> list[Any]:
        """The `sklearn.tree._tree.Tree` of each."""
        return [estimator.tree_ for estimator in self._estimators(self.last)]

    def leaves(self) -> list[int]:
        return [int(tree.n_leaves) for tree in self.trees()]

    def with_trees(self, trees: Sequence[Any]) -> "Fitted":
        """The same ensemble of other trees.

        Args:
            trees: One for each of `trees()`.
        """
        last = copy.deepcopy(self.last)
        for estimator, tree in zip(self._estimators(last), trees, strict=True):
            estimator.tree_ = tree
        return type(self)(_with_last(self.model, last), self.info)


class _Staged(Ensemble):
    """Boosting of scikit-learn: staged predictions come from one pass."""

    def staged(self, rows: Dataset, sizes: Sequence[int]) -> Iterator[Array]:
        prepared, wanted = self.prepared(rows), set(sizes)
        if self.info.task == "regression":
            stages = self.last.staged_predict(prepared)
        else:
            stages = self.last.staged_predict_proba(prepared)
        for size, scores in enumerate(stages, start=1):
            if size in wanted:
                yield np.asarray(scores)


class GradientBoosting(_Staged, Fitted):
    """GradientBoostingClassifier and -Regressor."""

    def _estimators(self, last: Any) -> list[Any]:
        return list(last.estimators_.ravel())

    @property
    def size(self) -> int:
        return len(self.last.estimators_)

    def _cut(self, last: Any, size: int) -> Any:
        last.estimators_ = last.estimators_[:size]
        last.n_estimators = last.n_estimators_ = size
        for name in ("train_score_", "oob_improvement_", "oob_scores_"):
            if hasattr(last, name):
                setattr(last, name, getattr(last, name)[:size])
        return last


class HistGradientBoosting(_Staged):
    """HistGradientBoostingClassifier and -Regressor."""

    @property
    def size(self) -> int:
        return len(self.last._predictors)

    def leaves(self) -> list[int]:
        return [int(t.get_n_leaf_nodes()) for stage in self.last._predictors for t in stage]

    def _cut(self, last: Any, size: int) -> Any:
        last._predictors = last._predictors[:size]
        last.max_iter = size
        for name in ("train_score_", "validation_score_"):
            setattr(last, name, getattr(last, name)[: size + 1])
        return last


class Xgboost(Ensemble):
    """XGBClassifier and -Regressor, or a Booster."""

    @property
    def _booster(self) -> Any:
        last = self.last
        return last.get_booster() if hasattr(last, "get_booster") else last

    @property
    def size(self) -> int:
        if hasattr(self.last, "best_iteration"):
            return int(self.last.best_iteration) + 1
        return int(self._booster.num_boosted_rounds())

    def leaves(self) -> list[int]:
        return [tree.count("leaf=") for tree in self._booster.get_dump()]

    def _cut(self, last: Any, size: int) -> Any:
        if not hasattr(last, "get_booster"):
            return last[:size]
        # A slice has no `best_iteration`, so all of its rounds are used.
        last._Booster = last.get_booster()[:size]
        last.n_estimators = size
        last.early_stopping_rounds = None
        return last


class Lightgbm(Ensemble):
    """LGBMClassifier and -Regressor, or a Booster."""

    @property
    def _booster(self) -> Any:
        return getattr(self.last, "booster_", self.last)

    @property
    def size(self) -> int:
        best = int(getattr(self._booster, "best_iteration", 0) or 0)
        return best if best > 0 else int(self._booster.current_iteration())

    def leaves(self) -> list[int]:
        text = self._booster.model_to_string()
        return [int(found) for found in re.findall(r"^num_leaves=(\d+)$", text, re.MULTILINE)]

    def _cut(self, last: Any, size: int) -> Any:
        import lightgbm

        booster = getattr(last, "booster_", last)
        cut = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=size))
        if booster is last:
            return cut
        last._Booster = cut
        last._best_iteration = 0
        last.n_estimators = size
        return last


class SingleTree(Fitted):
    """DecisionTreeClassifier and -Regressor."""

    def _estimators(self, last: Any) -> list[Any]:
        return [last]

    @property
    def size(self) -> int:
        return 1

    def _cut(self, last: Any, size: int) -> Any:
        return last


class Forest(Fitted):
    """RandomForest and ExtraTrees: the mean of its trees, which may be taken in any order."""

    def _estimators(self, last: Any) -> list[Any]:
        return list(last.estimators_)

    @property
    def size(self) -> int:
        return len(self.last.estimators_)

    def _cut(self, last: Any, size: int) -> Any:
        last.estimators_ = last.estimators_[:size]
        last.n_estimators = size
        return last

    def reordered(self, order: Sequence[int]) -> "Forest":
        """The same forest with its trees in another order."""
        last = copy.copy(self.last)
        last.estimators_ = [last.estimators_[tree] for tree in order]
        return Forest(_with_last(self.model, last), self.info)

    def tree_scores(self, prepared: Any) -> Iterator[Array]:
        """Scores of each tree alone."""
        table = _float32(prepared)
        for tree in self.last.estimators_:
            if self.info.task == "regression":
                yield np.asarray(tree.predict(table))
            else:
                yield np.asarray(tree.predict_proba(table))

    def staged(self, rows: Dataset, sizes: Sequence[int]) -> Iterator[Array]:
        wanted, total = set(sizes), None
        for size, scores in enumerate(self.tree_scores(self.prepared(rows)), start=1):
            total = scores if total is None else total + scores
            if size in wanted:
                yield total / size

    def greedy_order(self, rows: Dataset, *, limit: int = 10_000) -> list[int]:
        """The trees in the order in which each next one lowers the squared error the most.

        That is ordered aggregation (Martinez-Munoz, Hernandez-Lobato and Suarez, 2009,
        doi:10.1109/TPAMI.2008.78) on the squared error, for which the Gram matrix of the
        trees' residuals is all that is needed.

        Args:
            rows: With labels.
            limit: At most so many of the rows, evenly spread, are looked at.
        """
        rows = sample_rows(rows, limit)
        labels = rows.labels
        if self.info.task == "regression":
            wanted = np.asarray(labels, dtype=np.float64)
        else:
            wanted = np.stack([labels == label for label in self.last.classes_], axis=1)
        residuals = np.stack(
            [
                np.asarray(scores - wanted, dtype=np.float32).ravel()
                for scores in self.tree_scores(self.prepared(rows))
            ]
        )
        gram = (residuals @ residuals.T).astype(np.float64)
        left, order = set(range(len(gram))), list[int]()
        shared = np.zeros(len(gram))
        while left:
            candidates = np.fromiter(sorted(left), dtype=int)
            errors = 2 * shared[candidates] + gram.diagonal()[candidates]
            best = int(candidates[errors.argmin()])
            left.remove(best)
            order.append(best)
            shared += gram[best]
        return order


def find(model: Any, info: ModelInfo) -> Ensemble:
    """The tree ensemble in a user's model.

    Raises:
        NotApplicable: There is none, or it is of a kind that cannot be cut.
    """
    last = last_step(model)
    name, package = type(last).__name__, type(last).__module__.partition(".")[0]
    if package == "sklearn":
        if name.startswith("GradientBoosting"):
            return GradientBoosting(model, info)
        if name.startswith("HistGradientBoosting"):
            return HistGradientBoosting(model, info)
        if name.startswith(("RandomForestC", "RandomForestR", "ExtraTreesC", "ExtraTreesR")):
            return Forest(model, info)
        if name.startswith(("DecisionTree", "ExtraTreeC", "ExtraTreeR")):
            return SingleTree(model, info)
    if package == "xgboost":
        ensemble = Xgboost(model, info)
        booster = "dart" if '"name":"dart"' in ensemble._booster.save_config() else ""
        if '"name":"gblinear"' in ensemble._booster.save_config():
            booster = "gblinear"
        if booster:
            raise NotApplicable(
                f"an XGBoost model with booster={booster!r} cannot be cut to its first trees"
            )
        return ensemble
    if package == "lightgbm":
        return Lightgbm(model, info)
    raise NotApplicable(
        f"prune knows no way to cut {name} to fewer trees",
        mend="it works on gradient boosting and random forests, alone or last in a pipeline",
    )


def _is_pipeline(model: Any) -> bool:
    return hasattr(model, "steps") and hasattr(model, "named_steps")


def last_step(model: Any) -> Any:
    return last_step(model[-1]) if _is_pipeline(model) else model


def _prepared(model: Any, table: Any) -> Any:
    if not _is_pipeline(model):
        return table
    return _prepared(model[-1], model[:-1].transform(table) if len(model) > 1 else table)


def _with_last(model: Any, last: Any) -> Any:
    """A copy of the model that shares all but the last step's estimator."""
    if not _is_pipeline(model):
        return last
    changed = copy.copy(model)
    name, inner = model.steps[-1]
    changed.steps = [*model.steps[:-1], (name, _with_last(inner, last))]
    return changed


def _float32(prepared: Any) -> Any:
    """What the trees of a forest take: float32, sparse rows in CSR."""
    if hasattr(prepared, "tocsr"):
        return prepared.tocsr().astype(np.float32)
    return np.asarray(prepared, dtype=np.float32)
