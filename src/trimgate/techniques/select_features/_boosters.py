"""Training boosters again on fewer features.

A booster has no pipeline around it, so it keeps the width of its table: in training the features
that are left out are missing in every row, and no tree can split on them.
"""

from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo
from trimgate.training import estimator_table, training_labels


def retrained(
    booster: Any,
    info: ModelInfo,
    rows: Dataset,
    kept: tuple[str, ...],
    parameters: dict[str, Any],
    seed: int,
) -> Any:
    """A booster with the same number of rounds, trained on the kept features alone.

    Args:
        booster: Of XGBoost or LightGBM.
        info: Its record.
        rows: To learn from.
        kept: The features that it may look at.
        parameters: Hyper-parameters; those that LightGBM's file says need not be given.
        seed: For sampling.

    Raises:
        NotApplicable: The hyper-parameters are not known.
    """
    columns = [feature for spec in info.inputs for feature in spec.features]
    matrix = np.array(estimator_table(booster, info, rows), dtype=np.float64)
    matrix[:, [column not in kept for column in columns]] = np.nan
    labels = training_labels(info, rows.labels)
    known = {**info.notes.get("hyperparameters", {}), **parameters}
    if info.framework == "xgboost":
        return _xgboost(booster, matrix, labels, known, seed)
    return _lightgbm(booster, matrix, labels, known, seed)


def _xgboost(
    booster: Any, matrix: Array, labels: Array, parameters: dict[str, Any], seed: int
) -> Any:
    import json

    import xgboost

    if not parameters:
        raise NotApplicable(
            "an XGBoost file does not say the hyper-parameters that the booster was trained with",
            key="select_features.parameters",
            mend="give them there, or bring the estimator in a scikit-learn pipeline",
        )
    learner = json.loads(booster.save_config())["learner"]
    said = {name: value for name, value in parameters.items() if value is not None}
    said.pop("n_estimators", None)
    seed = said.pop("random_state", seed)
    parameters = {"objective": learner["objective"]["name"], "seed": seed, **said}
    classes = int(learner["learner_model_param"]["num_class"])
    if classes > 1:
        parameters["num_class"] = classes
    data = xgboost.DMatrix(
        matrix.astype(np.float32), label=labels, feature_names=booster.feature_names
    )
    trained = xgboost.train(parameters, data, num_boost_round=booster.num_boosted_rounds())
    trained.set_param({"nthread": 1})
    return trained


def _lightgbm(
    booster: Any, matrix: Array, labels: Array, parameters: dict[str, Any], seed: int
) -> Any:
    import lightgbm

    said = {
        name: value
        for name, value in booster.params.items()
        if name not in ("num_iterations", "early_stopping_round", "num_threads", "metric")
    }
    data = lightgbm.Dataset(matrix, label=labels, feature_name=booster.feature_name())
    fixed = {"num_threads": 1, "deterministic": True, "verbosity": -1}
    return lightgbm.train(
        {"seed": seed, **said, **fixed, **parameters},
        data,
        num_boost_round=booster.current_iteration(),
    )
