"""Boosters of XGBoost and LightGBM, trained again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.models.directory import ModelInfo
from trimgate.training._estimators import estimator_table, training_labels

ROUNDS = "n_estimators"
_ROUNDS_TOO = ("num_boost_round", "num_round", "num_rounds", "num_iterations", "max_iter")
# One name for each parameter: a library that gets two of them takes either.
_XGBOOST = {
    "eta": "learning_rate",
    "lambda": "reg_lambda",
    "alpha": "reg_alpha",
    "min_split_loss": "gamma",
    "random_state": "seed",
}
_LIGHTGBM = {
    "eta": "learning_rate",
    "lambda": "lambda_l2",
    "reg_alpha": "lambda_l1",
    "reg_lambda": "lambda_l2",
    "min_child_samples": "min_data_in_leaf",
    "min_child_weight": "min_sum_hessian_in_leaf",
    "min_split_gain": "min_gain_to_split",
    "subsample": "bagging_fraction",
    "subsample_freq": "bagging_freq",
    "colsample_bytree": "feature_fraction",
    "random_state": "seed",
}

AfterRound = Callable[[int, Any], None]


def booster_parameter(framework: str, name: str) -> str:
    """The one name under which a booster's parameter is kept here, whichever alias is given."""
    if name in _ROUNDS_TOO:
        return ROUNDS
    return (_XGBOOST if framework == "xgboost" else _LIGHTGBM).get(name, name)


def booster_parameters(booster: Any, info: ModelInfo) -> dict[str, Any]:
    """The hyper-parameters that a booster was trained with, as far as they are known.

    LightGBM's file says them all; XGBoost's says none, and they are those that the record has
    from the estimator (`notes["hyperparameters"]`). The number of rounds is always there.
    """
    if info.framework == "xgboost":
        said = dict(info.notes.get("hyperparameters", {}))
        rounds = booster.num_boosted_rounds()
    else:
        apart = ("num_iterations", "early_stopping_round", "num_threads", "metric")
        said = {name: value for name, value in booster.params.items() if name not in apart}
        rounds = booster.current_iteration()
    named = {booster_parameter(info.framework, name): value for name, value in said.items()}
    return {**named, ROUNDS: int(rounds)}


def train_booster(
    like: Any,
    info: ModelInfo,
    rows: Dataset,
    parameters: Mapping[str, Any],
    seed: int,
    *,
    without: Sequence[str] = (),
    after_round: AfterRound | None = None,
) -> Any:
    """Trains a booster of the same objective on the same table; single-threaded.

    Args:
        like: The booster whose place it takes.
        info: The record of that.
        rows: To learn from.
        parameters: Those that differ from `booster_parameters`, under any of their names.
        seed: For sampling, where the known parameters have none.
        without: Features that no tree may split on: they are missing in every row. Those that
            the model no longer looks at always are.
        after_round: Called with the number of rounds that are done and the booster so far; what
            it raises ends the training.
    """
    columns = [feature for spec in info.inputs for feature in spec.features]
    matrix = np.array(estimator_table(like, info, rows), dtype=np.float64)
    hidden = {*without, *info.unused_features}
    matrix[:, [column in hidden for column in columns]] = np.nan
    labels = training_labels(info, rows.labels)
    given = {booster_parameter(info.framework, n): value for n, value in parameters.items()}
    known = {"seed": seed, **booster_parameters(like, info), **given}
    said = {name: value for name, value in known.items() if value is not None}
    rounds = int(said.pop(ROUNDS))
    train = _xgboost if info.framework == "xgboost" else _lightgbm
    return train(like, matrix, labels, said, rounds, after_round)


def _xgboost(
    like: Any,
    matrix: Array,
    labels: Array,
    said: dict[str, Any],
    rounds: int,
    after_round: AfterRound | None,
) -> Any:
    import json

    import xgboost

    learner = json.loads(like.save_config())["learner"]
    parameters = {
        "objective": learner["objective"]["name"],
        "nthread": 1,
        "verbosity": 0,
        **said,
    }
    classes = int(learner["learner_model_param"]["num_class"])
    if classes > 1:
        parameters["num_class"] = classes
    data = xgboost.DMatrix(
        matrix.astype(np.float32), label=labels, feature_names=like.feature_names
    )

    class Watch(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if after_round is not None:
                after_round(epoch + 1, model)
            return False

    trained = xgboost.train(parameters, data, num_boost_round=rounds, callbacks=[Watch()])
    trained.set_param({"nthread": 1})
    return trained


def _lightgbm(
    like: Any,
    matrix: Array,
    labels: Array,
    said: dict[str, Any],
    rounds: int,
    after_round: AfterRound | None,
) -> Any:
    import lightgbm

    fixed = {"num_threads": 1, "deterministic": True, "verbosity": -1}
    data = lightgbm.Dataset(matrix, label=labels, feature_name=like.feature_name())

    def watch(environment: Any) -> None:
        if after_round is not None:
            after_round(environment.iteration + 1, environment.model)

    return lightgbm.train({**said, **fixed}, data, num_boost_round=rounds, callbacks=[watch])
