"""Training a model again on fewer features: one way for each framework."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.models import build_inputs
from trimgate.models.directory import ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.select_features._columns import narrowed
from trimgate.techniques.select_features._config import SelectFeaturesConfig
from trimgate.techniques.select_features._masked import masked, masked_arguments
from trimgate.techniques.select_features._memory import Memory
from trimgate.training import (
    Measure,
    estimator_scores,
    finetune,
    fit,
    folds,
    module_scores,
    train_booster,
    training_labels,
)


def features_of(info: ModelInfo) -> tuple[str, ...]:
    """The features that a model's inputs are made of, in the order of the inputs."""
    return tuple(feature for spec in info.inputs for feature in spec.features)


def candidates(info: ModelInfo) -> tuple[str, ...]:
    """Those of them that the model still looks at."""
    return tuple(name for name in features_of(info) if name not in info.unused_features)


class Learner(ABC):
    """A model that can be trained again.

    Args:
        model: What `load_trainable` gave.
        info: Its record.
        config: The step's parameters.
        context: The step's data.

    Attributes:
        anew: Whether `fit` begins from nothing, so that rows that are held out are new to it.
        memory: Of what was computed before the step was killed.
    """

    anew = True

    def __init__(
        self, model: Any, info: ModelInfo, config: SelectFeaturesConfig, context: Context
    ) -> None:
        self.model = model
        self.info = info
        self.config = config
        self.context = context
        self.memory = Memory(context.work)

    @abstractmethod
    def fit(self, kept: Sequence[str], rows: Dataset) -> Any:
        """A model of the same kind that was trained on the kept features of the rows alone."""

    def scores(self, model: Any, rows: Dataset) -> Array:
        """Scores of such a model: `(rows, classes)` probabilities or `(rows,)` values."""
        return estimator_scores(model, self.info, rows)

    def changes(self, kept: Sequence[str]) -> dict[str, Any]:
        """What the record says otherwise of a model that looks at the kept features."""
        return {}


class _Estimator(Learner):
    """Estimators and pipelines of scikit-learn."""

    def fit(self, kept: Sequence[str], rows: Dataset) -> Any:
        frame = len(self.info.inputs) > 1
        columns = features_of(self.info)
        fresh = narrowed(self.model, columns, kept, frame, self.context.seed)
        return fit(fresh, self.model, self.info, rows)


class _Booster(Learner):
    """XGBoost and LightGBM without a pipeline."""

    def fit(self, kept: Sequence[str], rows: Dataset) -> Any:
        dropped = [name for name in features_of(self.info) if name not in set(kept)]
        return train_booster(
            self.model,
            self.info,
            rows,
            self.config.parameters,
            self.context.seed,
            without=dropped,
        )


class _Module(Learner):
    """A torch module on one matrix: what it no longer looks at is held at its mean."""

    anew = False

    def fit(self, kept: Sequence[str], rows: Dataset) -> Any:
        keep = [i for i, name in enumerate(features_of(self.info)) if name in set(kept)]
        tensor = build_inputs(self.info, rows.features)[self.info.inputs[0].name]
        module = masked(self.model, keep, np.nan_to_num(tensor).mean(axis=0))
        config = self.config.finetune
        config = config.model_copy(update={"epochs": self.context.share_of(config.epochs)})
        # Not on the validation rows: the best of many epochs there looks better than it is.
        learnt, watched = folds(rows, 8, self.context.seed)[0]
        measure = Measure.of(
            "log_loss" if self.info.labels else self.context.metric, self.info, watched
        )
        finetune(
            module,
            [build_inputs(self.info, learnt.features)[self.info.inputs[0].name]],
            training_labels(self.info, learnt.labels),
            config,
            kind="value" if self.info.task == "regression" else self.info.score_kind,
            validate=lambda m: measure(self.scores(m, watched)),
            higher_is_better=measure.higher_is_better,
            teacher=self.model,
            seed=self.context.seed,
            threads=self.context.target.threads,
            checkpoint=self.memory.file("finetune", kept, ".pt"),
        )
        return module

    def scores(self, model: Any, rows: Dataset) -> Array:
        inputs = build_inputs(self.info, rows.features)
        return module_scores(model, inputs, self.info, threads=self.context.target.threads)

    def changes(self, kept: Sequence[str]) -> dict[str, Any]:
        keep = [i for i, name in enumerate(features_of(self.info)) if name in set(kept)]
        return masked_arguments(self.info, keep)


def learner(model: Any, info: ModelInfo, config: SelectFeaturesConfig, context: Context) -> Learner:
    """The learner for a model's framework."""
    kinds: dict[str, type[Learner]] = {"sklearn": _Estimator, "torch": _Module}
    return kinds.get(info.framework, _Booster)(model, info, config, context)
