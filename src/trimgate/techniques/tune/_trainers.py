"""Training a model of the given kind with other hyper-parameters: estimators and boosters."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.models.directory import ModelInfo
from trimgate.techniques.tune import _defaults
from trimgate.techniques.tune._config import Goal, Parameter, TuneConfig
from trimgate.techniques.tune._space import check_names
from trimgate.training import (
    ROUNDS,
    booster_parameter,
    booster_parameters,
    check_classes,
    estimator_scores,
    estimator_table,
    fit,
    seeded_clone,
    train_booster,
)

WHOLE = 9
"""A training has so many parts; after the first and the third it is looked at."""
LOOKS = (1, 3)

Watch = Callable[[int, Any], None]
"""Gets how many ninths of the training are done, and the model so far; may raise to end it."""


@dataclass(frozen=True)
class Trainer(ABC):
    """Trains models like the given one.

    Attributes:
        model: The given model.
        info: Its record.
        config: The step.
        seed: Of whatever is random.
        threads: Threads that torch may use.
    """

    model: Any
    info: ModelInfo
    config: TuneConfig
    seed: int
    threads: int = 1

    @abstractmethod
    def default_space(self, goals: tuple[Goal, ...]) -> dict[str, Parameter]:
        """What is varied when the user does not say; empty where nothing is usual."""

    @abstractmethod
    def present(self) -> Mapping[str, Any]:
        """Values of the parameters that the given model has, where they are known."""

    @abstractmethod
    def check(self, names: list[str]) -> None:
        """Refuses names that are no parameters (`InvalidInput`)."""

    @abstractmethod
    def train(
        self, parameters: Mapping[str, Any], rows: Dataset, watch: Watch | None = None
    ) -> Any:
        """A new model.

        Args:
            parameters: By the names of the space.
            rows: To learn from.
            watch: Called after each ninth that `LOOKS` names.
        """

    def scores(self, model: Any, rows: Dataset) -> Array:
        """Scores of a trained model: `(rows, classes)` probabilities or `(rows,)` values."""
        return estimator_scores(model, self.info, rows)

    def changes(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of the record that differ from the given model's; `notes` among them."""
        return {}


class EstimatorTrainer(Trainer):
    """scikit-learn estimators, in pipelines too. Bare names are those of the last estimator.

    To look at a bad trial early, an ensemble is grown; any other model is first trained on a
    ninth and on a third of the rows.
    """

    def default_space(self, goals: tuple[Goal, ...]) -> dict[str, Parameter]:
        prefix, last = final(self.model)
        return _defaults.of_estimator(type(last).__name__, self._own(prefix), goals)

    def present(self) -> Mapping[str, Any]:
        prefix, _ = final(self.model)
        # what early stopping found stands in place of the trees that were asked for
        everything = seeded_clone(self.model, self.seed).get_params(deep=True)
        own = {n.removeprefix(prefix): v for n, v in everything.items() if n.startswith(prefix)}
        return {**everything, **own, **self.config.parameters}

    def check(self, names: list[str]) -> None:
        prefix, last = final(self.model)
        own, everything = self._own(prefix), self.model.get_params(deep=True)
        check_names(
            [*names, *self.config.parameters],
            own,
            type(last).__name__,
            lambda name: name in own or name in everything,
        )

    def train(
        self, parameters: Mapping[str, Any], rows: Dataset, watch: Watch | None = None
    ) -> Any:
        with _quiet():
            fresh = self._fresh(parameters)
            if watch is None:
                return fit(fresh, self.model, self.info, rows)
            check_classes(self.info, rows)
            if _grows(fresh):
                return self._grown(fresh, rows, watch)
            for ninths in LOOKS:
                few = share(rows, ninths / WHOLE, self.seed)
                watch(ninths, fit(self._fresh(parameters), self.model, self.info, few))
            return fit(fresh, self.model, self.info, rows)

    def _fresh(self, parameters: Mapping[str, Any]) -> Any:
        prefix, _ = final(self.model)
        own = self._own(prefix)
        given = {**self.config.parameters, **parameters}
        named = {f"{prefix}{n}" if n in own else n: value for n, value in given.items()}
        fresh = seeded_clone(self.model, self.seed).set_params(**named)
        if self.config.workers > 1:
            # the workers share the cores; how many threads fit a model does not change it
            threads = [n for n in fresh.get_params(deep=True) if n.rpartition("__")[2] == "n_jobs"]
            fresh.set_params(**dict.fromkeys(threads, 1))
        return fresh

    def _own(self, prefix: str) -> dict[str, Any]:
        everything = self.model.get_params(deep=True)
        return {n.removeprefix(prefix): v for n, v in everything.items() if n.startswith(prefix)}

    def _grown(self, fresh: Any, rows: Dataset, watch: Watch) -> Any:
        """Fits the steps before the ensemble once, and the ensemble a part after the other."""
        table = estimator_table(self.model, self.info, rows)
        last = fresh
        if hasattr(fresh, "steps"):
            last = fresh.steps[-1][1]
            table = fresh[:-1].fit_transform(table, rows.labels) if len(fresh) > 1 else table
        size = _rounds(last)
        whole = getattr(last, size)
        last.set_params(warm_start=True)
        for ninths in (*LOOKS, WHOLE):
            last.set_params(**{size: math.ceil(whole * ninths / WHOLE)})
            last.fit(table, rows.labels)
            if ninths < WHOLE:
                watch(ninths, fresh)
        last.set_params(warm_start=False)
        return fresh


class BoosterTrainer(Trainer):
    """Boosters of XGBoost and LightGBM in their own files."""

    def default_space(self, goals: tuple[Goal, ...]) -> dict[str, Parameter]:
        return _defaults.of_booster(self.info.framework, self._known()[ROUNDS], goals)

    def present(self) -> Mapping[str, Any]:
        known = {**self._known(), **self.config.parameters}
        names = (self.config.space or self.default_space(self.config.goals)).keys()
        by_any_name = {name: known.get(self._one(name)) for name in names}
        return {name: value for name, value in by_any_name.items() if value is not None}

    def check(self, names: list[str]) -> None:
        listed = self._listed()
        check_names(
            [*names, *self.config.parameters],
            listed,
            {"xgboost": "XGBoost", "lightgbm": "LightGBM"}[self.info.framework],
            lambda name: name in listed or self._one(name) in listed,
        )

    def train(
        self, parameters: Mapping[str, Any], rows: Dataset, watch: Watch | None = None
    ) -> Any:
        check_classes(self.info, rows)
        given = {**self.config.parameters, **parameters}
        named = {self._one(name): value for name, value in given.items()}
        rounds = int(named.get(ROUNDS) or self._known()[ROUNDS])
        looks = {math.ceil(rounds * ninths / WHOLE): ninths for ninths in LOOKS}

        def after_round(done: int, booster: Any) -> None:
            if watch is not None and done in looks and done < rounds:
                watch(looks[done], booster)

        return train_booster(self.model, self.info, rows, named, self.seed, after_round=after_round)

    def changes(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """XGBoost's file does not say the hyper-parameters, so the record does."""
        if self.info.framework != "xgboost":
            return {}
        said = {**self.config.parameters, **parameters}
        named = {self._one(name): value for name, value in said.items()}
        return {"notes": {"hyperparameters": {**self._known(), **named}}}

    def _known(self) -> dict[str, Any]:
        return booster_parameters(self.model, self.info)

    def _one(self, name: str) -> str:
        return booster_parameter(self.info.framework, name)

    def _listed(self) -> set[str]:
        if self.info.framework == "xgboost":
            import xgboost

            native = {"seed", "max_delta_step", "max_cat_to_onehot", "max_cat_threshold"}
            return set(xgboost.XGBModel().get_params()) | native
        import lightgbm

        return set(lightgbm.LGBMModel().get_params()) | set(self.model.params)


def final(model: Any) -> tuple[str, Any]:
    """The estimator at the end of pipelines and wrappers, with the prefix of its parameters."""
    prefix = ""
    while True:
        if hasattr(model, "steps") and hasattr(model, "named_steps"):
            name, model = model.steps[-1]
        else:
            name = _INSIDE.get(type(model).__name__, "")
            if not name:
                return prefix, model
            model = getattr(model, name)
        prefix += f"{name}__"


_INSIDE = {
    "CalibratedClassifierCV": "estimator",
    "FixedThresholdClassifier": "estimator",
    "MultiOutputClassifier": "estimator",
    "OneVsOneClassifier": "estimator",
    "OneVsRestClassifier": "estimator",
    "TransformedTargetRegressor": "regressor",
    "TunedThresholdClassifierCV": "estimator",
}
_GROW = ("RandomForest", "ExtraTrees", "GradientBoosting", "HistGradientBoosting", "Bagging")


def _grows(model: Any) -> bool:
    """Whether it is an ensemble of scikit-learn, alone or last in a pipeline."""
    last = model.steps[-1][1] if hasattr(model, "named_steps") else model
    known = type(last).__module__.startswith("sklearn.") and type(last).__name__.startswith(_GROW)
    return known and hasattr(last, "warm_start") and getattr(last, _rounds(last)) >= WHOLE


def _rounds(last: Any) -> str:
    return "max_iter" if type(last).__name__.startswith("Hist") else "n_estimators"


def share(rows: Dataset, part: float, seed: int) -> Dataset:
    """A share of the rows with the same mix of labels.

    Args:
        rows: To choose from.
        part: The share, above 0 and at most 1; classes too rare for it still get a row.
        seed: Of the choice.
    """
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    labels = rows.labels[shuffled]
    keys = labels.astype(str) if labels.dtype == object else labels
    order = shuffled[np.argsort(keys, kind="stable")]
    ends = np.floor(np.arange(len(order) + 1) * part)
    chosen = order[ends[1:] > ends[:-1]]
    if rows.labels.dtype.kind != "f":
        labels = rows.labels[order]
        new = np.concatenate([[True], labels[1:] != labels[:-1]])
        chosen = np.union1d(chosen, order[new])
    return rows.take(np.sort(chosen))


@contextmanager
def _quiet() -> Any:
    """Trials need not converge; that they did not shows in their metric."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # what the user's own training said once need not be said by each trial
        warnings.simplefilter("ignore", FutureWarning)
        # a forest that is grown gets its class weights anew, as it should
        warnings.filterwarnings("ignore", message="class_weight presets")
        yield
