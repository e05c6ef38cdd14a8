"""Boosters that are trained again."""

from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer

from trimgate.data.dataset import Dataset
from trimgate.models.directory import ModelInfo, TensorSpec
from trimgate.training import ROUNDS, booster_parameter, booster_parameters, train_booster

X, Y = load_breast_cancer(return_X_y=True)
NAMES = tuple(f"f{i}" for i in range(X.shape[1]))
ROWS = Dataset({name: X[:, i] for i, name in enumerate(NAMES)}, Y)
SAID = {"max_depth": 3, "learning_rate": 0.2, "reg_lambda": 2.0, "random_state": 5}


def trained(framework: str) -> tuple[Any, ModelInfo]:
    notes: dict[str, Any] = {}
    if framework == "xgboost":
        booster = xgboost.XGBClassifier(n_estimators=7, n_jobs=1, **SAID).fit(X, Y).get_booster()
        notes = {"hyperparameters": SAID}
    else:
        light = lightgbm.LGBMClassifier(n_estimators=7, n_jobs=1, verbose=-1, **SAID).fit(X, Y)
        booster = lightgbm.Booster(model_str=light.booster_.model_to_string())
    tensor = TensorSpec(name="input", dtype="float32", shape=(-1, len(NAMES)), features=NAMES)
    info = ModelInfo(
        name="m", task="binary", family="trees", framework=framework, labels=(0, 1),
        inputs=(tensor,), features=NAMES, notes=notes,
    )  # fmt: skip
    return booster, info


def used(booster: Any, framework: str) -> set[str]:
    if framework == "xgboost":
        return set(booster.get_score())
    counts = booster.feature_importance()
    return {NAMES[place] for place in np.flatnonzero(counts)}


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm"])
def test_training_again_gives_the_same_trees(framework: str) -> None:
    booster, info = trained(framework)
    known = booster_parameters(booster, info)
    assert known[ROUNDS] == 7
    assert known["max_depth"] == 3
    assert known[booster_parameter(framework, "reg_lambda")] == 2.0
    again = train_booster(booster, info, ROWS, {}, 0)
    if framework == "xgboost":
        before, after = (b.inplace_predict(X.astype(np.float32)) for b in (booster, again))
    else:
        before, after = booster.predict(X), again.predict(X)
    np.testing.assert_allclose(after, before, rtol=1e-4)


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm"])
def test_parameters_rounds_and_hidden_features(framework: str) -> None:
    booster, info = trained(framework)
    seen = []
    gone = tuple(sorted(used(booster, framework)))[:2]
    hidden = info.model_copy(update={"unused_features": gone[:1]})
    again = train_booster(
        booster, hidden, ROWS, {"num_iterations": 4, "lambda": 1.0}, 0, without=gone[1:],
        after_round=lambda done, _: seen.append(done),
    )  # fmt: skip
    assert seen == [1, 2, 3, 4]
    assert not used(again, framework) & set(gone)


def test_what_the_callback_raises_ends_the_training() -> None:
    class Enough(Exception):
        pass

    def stop(done: int, _: Any) -> None:
        if done == 2:
            raise Enough

    for framework in ("xgboost", "lightgbm"):
        booster, info = trained(framework)
        with pytest.raises(Enough):
            train_booster(booster, info, ROWS, {}, 0, after_round=stop)
