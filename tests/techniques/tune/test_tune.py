"""Tuning of training hyperparameters."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import directory, load_trainable
from trimgate.techniques import Context, parse_step
from trimgate.techniques.tune import TECHNIQUE, TuneConfig
from trimgate.techniques.tune._choose import expected
from trimgate.techniques.tune._trainers import EstimatorTrainer
from trimgate.training import Measure

REGULAR = {"C": {"low": 1e-4, "high": 100.0, "log": True}}


def linear() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=1e-4, random_state=0))


def tune(**said: Any) -> TuneConfig:
    config = parse_step({"technique": "tune", **said})
    assert isinstance(config, TuneConfig)
    return config


@pytest.fixture
def weak(cancer: Context, bring: Any, matrix: Any) -> Path:
    """A pipeline that is regularized far too much."""
    return bring(linear().fit(matrix(cancer.train), cancer.train.labels), cancer.train)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "grid", "cmaes", "nsga2"])
def test_every_sampler_finds_better_parameters(
    sampler: str, weak: Path, cancer: Context, conformance: Any, tmp_path: Path
) -> None:
    # cmaes needs two numbers
    space = {**REGULAR, "tol": {"low": 1e-5, "high": 1e-2, "log": True}}
    config = tune(sampler=sampler, space=space, trials=8)
    info = conformance.check(TECHNIQUE, config, weak, cancer, tmp_path)
    notes = info.notes["tune"]
    assert notes["sampler"] == sampler
    assert notes["trials"] == notes["complete"] == 8
    assert notes["metric_after"] < notes["metric_before"]
    # of what was chosen without the rows that value it
    assert notes["expected_after"] < notes["expected_before"]
    assert set(notes["best_parameters"]) == set(space)
    assert notes["metric_after"] == pytest.approx(notes["best"]["metric"], rel=1e-6)
    tuned = load_trainable(tmp_path / "first")
    assert notes["best_parameters"]["C"] == tuned[-1].C


MODELS: dict[str, Callable[[], Any]] = {
    "histogram boosting": lambda: HistGradientBoostingClassifier(
        max_iter=10, learning_rate=0.01, random_state=0
    ),
    "boosting": lambda: GradientBoostingClassifier(
        n_estimators=10, learning_rate=0.01, random_state=0
    ),
    "forest": lambda: RandomForestClassifier(
        10, min_samples_leaf=130, random_state=0, n_jobs=1
    ),
    "network": lambda: make_pipeline(
        StandardScaler(), MLPClassifier((8,), max_iter=20, learning_rate_init=1e-5, random_state=0)
    ),
    "support vectors": lambda: make_pipeline(
        StandardScaler(), SVC(C=1e-3, probability=True, random_state=0)
    ),
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=10, learning_rate=0.01, n_jobs=1),
    "xgboost in a pipeline": lambda: make_pipeline(
        StandardScaler(), xgboost.XGBClassifier(n_estimators=10, learning_rate=0.01, n_jobs=1)
    ),
    "lightgbm": lambda: lightgbm.LGBMClassifier(
        n_estimators=10, learning_rate=0.01, verbose=-1, n_jobs=1
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_families_have_a_default_space(
    name: str, cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = MODELS[name]().fit(matrix(cancer.train), cancer.train.labels)
    source = bring(model, cancer.train)
    config = tune(trials=6, pruner="asha")
    info = conformance.check(TECHNIQUE, config, source, cancer, tmp_path)
    notes = info.notes["tune"]
    assert notes["metric_after"] < notes["metric_before"]
    assert len(notes["best_parameters"]) >= 2
    assert notes["complete"] + notes["pruned"] + notes["failed"] == notes["trials"] == 6
    assert notes["wall_seconds"] > 0


def test_tuned_xgboost_knows_its_parameters(
    cancer: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    model = xgboost.XGBClassifier(n_estimators=10, learning_rate=0.01, n_jobs=1)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    config = tune(
        space={"eta": {"low": 0.1, "high": 0.5}, "num_boost_round": {"low": 5, "high": 20}},
        parameters={"max_depth": 3},
        trials=4,
    )
    info = TECHNIQUE.apply(source, tmp_path / "out", config, cancer)
    best, known = info.notes["tune"]["best_parameters"], info.notes["hyperparameters"]
    assert known["learning_rate"] == best["eta"]
    assert known["n_estimators"] == best["num_boost_round"]
    assert known["max_depth"] == 3
    booster = load_trainable(tmp_path / "out")
    assert booster.num_boosted_rounds() == best["num_boost_round"]


def test_regression_through_a_wrapper(
    diabetes: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = TransformedTargetRegressor(Ridge(alpha=100.0), func=np.log, inverse_func=np.exp)
    model.fit(matrix(diabetes.train), diabetes.train.labels)
    source = bring(model, diabetes.train)
    info = conformance.check(TECHNIQUE, tune(trials=6), source, diabetes, tmp_path)
    tuned = load_trainable(tmp_path / "first")
    assert tuned.regressor.alpha == info.notes["tune"]["best_parameters"]["alpha"]


def test_other_parts_of_a_pipeline(weak: Path, cancer: Context, tmp_path: Path) -> None:
    space = {**REGULAR, "standardscaler__with_mean": {"choices": [True, False]}}
    info = TECHNIQUE.apply(weak, tmp_path / "out", tune(space=space, trials=5), cancer)
    mean = load_trainable(tmp_path / "out")[0].with_mean
    assert mean is info.notes["tune"]["best_parameters"]["standardscaler__with_mean"]


def test_folds_leave_the_validation_rows_to_say_whether_it_is_better(
    weak: Path, cancer: Context, conformance: Any, tmp_path: Path
) -> None:
    config = tune(space=REGULAR, trials=5, folds=3, pruner="median")
    info = conformance.check(TECHNIQUE, config, weak, cancer, tmp_path)
    notes = info.notes["tune"]
    assert notes["valued_on"] == "3 folds of the training rows"
    assert notes["metric_after"] < notes["metric_before"]
    # the trials were valued on other rows
    assert notes["best"]["metric"] != pytest.approx(notes["metric_after"], rel=1e-9)
    # nothing was chosen on the validation rows: other ones give the same model
    fewer = replace(cancer, validation=cancer.validation.take(slice(0, 100)))
    again = TECHNIQUE.apply(weak, tmp_path / "fewer", config, fewer)
    assert again.digest == info.digest


def test_a_good_model_is_left_alone(
    cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3))
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    bad = {"C": {"low": 1e-5, "high": 1e-4, "log": True}}
    for more in ({}, {"folds": 3}):
        words = conformance.check_refusal(
            TECHNIQUE, tune(space=bad, trials=3, **more), source, cancer, tmp_path
        )
        assert "better" in words
    taken = TECHNIQUE.apply(
        source, tmp_path / "out", tune(space=bad, trials=3, guard=False), cancer
    )
    assert taken.notes["tune"]["metric_after"] > taken.notes["tune"]["metric_before"]


def test_the_optimism_of_a_choice_is_taken_away() -> None:
    """Trials that are right by chance alone: the best looks better, and is expected not to be."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    measure = Measure("accuracy", labels, (0, 1))

    def scores(skill: float) -> Any:
        right = generator.random(300) < skill
        chosen = np.where(right, labels, 1 - labels)
        return np.stack([1 - chosen, chosen], axis=1).astype(np.float64)

    given, chance = scores(0.5), [scores(0.5) for _ in range(60)]
    found = expected(given, chance, measure, 0)
    assert found is not None
    assert max(measure(trial) for trial in chance) > 0.55
    assert found.chosen == pytest.approx(0.5, abs=0.03)
    assert found.given == pytest.approx(measure(given), abs=0.01)
    found = expected(given, [*chance, scores(0.8)], measure, 0)
    assert found is not None
    assert found.chosen == pytest.approx(0.8, abs=0.05)
    # too few rows of a class for a metric that ranks
    few = Measure("roc_auc", np.array([0, 0, 0, 1]), (0, 1))
    assert expected(given[:4], [given[:4]], few, 0) is None


def test_gains_by_chance_are_refused(
    cancer: Context, bring: Any, matrix: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed of a forest changes nothing but luck."""
    rows = replace(cancer, metric="accuracy", validation=cancer.validation.take(slice(0, 80)))
    model = RandomForestClassifier(15, max_depth=3, random_state=1, n_jobs=1)
    source = bring(model.fit(matrix(rows.train), rows.train.labels), rows.train)
    config = tune(space={"random_state": {"low": 0, "high": 1000}}, trials=10, sampler="random")
    try:
        notes = TECHNIQUE.apply(source, tmp_path / "out", config, rows).notes["tune"]
    except NotApplicable as error:
        assert "by chance" in str(error) or "none of 10 trials is better" in str(error)  # noqa: PT017
    else:
        apparent = notes["metric_after"] - notes["metric_before"]
        assert notes["expected_after"] - notes["expected_before"] < apparent


PLANTED: dict[str, Any] = {
    "space": {"learning_rate": {"choices": [0.2, 0.3, 1e-5, 2e-5, 3e-5, 4e-5]}},
    "sampler": "grid",
    "trials": 6,
}


@pytest.mark.parametrize("pruner", ["median", "asha", "hyperband"])
@pytest.mark.parametrize("name", ["histogram boosting", "xgboost", "lightgbm", "forest", "linear"])
def test_every_pruner_ends_planted_bad_trials(
    pruner: str, name: str, cancer: Context, bring: Any, matrix: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    planted = dict(PLANTED)
    planted["trials"] = 12
    if name == "forest":  # grown tree by tree
        planted["space"] = {
            "max_depth": {"choices": [7, 8, 9]},
            "min_samples_leaf": {"choices": [8, 9, 10, 170]},
        }
        model: Any = RandomForestClassifier(27, min_samples_leaf=150, random_state=0, n_jobs=1)
    elif name == "linear":  # trained on more and more rows
        planted["space"] = {"C": {"choices": [1.0, 2.0, 1e-6, 2e-6, 3e-6, 4e-6]},
                            "tol": {"choices": [1e-4, 1e-3]}}  # fmt: skip
        model = linear()
    else:
        leaves = "max_leaf_nodes" if name == "histogram boosting" else "max_depth"
        planted["space"] = {**PLANTED["space"], leaves: {"choices": [4, 5]}}
        model = MODELS[name]()
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    config = tune(**planted, pruner=pruner)
    notes = TECHNIQUE.apply(source, tmp_path / "out", config, cancer).notes["tune"]
    assert notes["pruned"] >= 1
    assert notes["complete"] + notes["pruned"] == 12
    assert notes["metric_after"] < notes["metric_before"]
    best = notes["best_parameters"]
    assert best.get("learning_rate", 1) > 0.1
    assert best.get("C", 1) >= 1
    assert best.get("min_samples_leaf", 8) <= 10


def test_grown_ensembles_equal_those_fitted_at_once(
    cancer: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    for place, name in enumerate(("histogram boosting", "boosting", "forest")):
        model = MODELS[name]().fit(matrix(cancer.train), cancer.train.labels)
        (tmp_path / str(place)).mkdir()
        source = bring(model, cancer.train)
        config = tune(trials=1, guard=False)
        looks = []
        trainer = EstimatorTrainer(model, directory.read(source), config, 0)
        parameters = {"min_samples_leaf": 5}
        whole = trainer.train(parameters, cancer.train)
        grown = trainer.train(
            parameters, cancer.train, lambda n, m, looks=looks: looks.append((n, m))
        )
        assert [ninths for ninths, _ in looks] == [1, 3]
        np.testing.assert_allclose(
            grown.predict_proba(matrix(cancer.validation)),
            whole.predict_proba(matrix(cancer.validation)),
            rtol=1e-9,
        )
        shutil.rmtree(source)


def test_failing_trials_are_recorded_and_end_nothing(
    weak: Path, cancer: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = {
        "penalty": {"choices": ["l1", "l2"]},  # lbfgs knows no l1
        "C": {"choices": [0.01, 0.1, 1.0]},
    }
    with caplog.at_level(logging.INFO, "trimgate.techniques.tune"):
        info = TECHNIQUE.apply(
            weak, tmp_path / "out", tune(space=space, sampler="grid", trials=6), cancer
        )
    notes = info.notes["tune"]
    assert (notes["complete"], notes["failed"]) == (3, 3)
    assert any("l1" in reason for reason in notes["failures"])
    lines = [r.getMessage() for r in caplog.records if r.name == "trimgate.techniques.tune"]
    assert any(line.startswith("trial 6 of 6: ") for line in lines)
    assert any("failed (" in line for line in lines)
    assert not [r for r in caplog.records if r.name.startswith("optuna")]


def test_when_all_trials_fail_the_reason_is_told(
    weak: Path, cancer: Context, conformance: Any, tmp_path: Path
) -> None:
    space = {"penalty": {"choices": ["l1"]}, "C": {"low": 0.1, "high": 1.0}}
    words = conformance.check_refusal(TECHNIQUE, tune(space=space), weak, cancer, tmp_path)
    assert "none of 8 trials worked" in words  # it does not go on for all of 30
    assert "l1" in words


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"space": {"c": {"low": 1, "high": 2}}}, "space.c: is no parameter of Logistic.*'C'"),
        ({"parameters": {"max_itr": 5}}, r"max_itr.*did you mean 'max_iter'"),
        ({"space": {"C": {"low": 2, "high": 1}}}, "low 2 is above high 1"),
        ({"space": {"C": {"low": 0, "high": 1, "log": True}}}, "above 0"),
        ({"space": {"C": {"low": 1, "high": 2, "log": True, "step": 1}}}, "has no step"),
        ({"space": {"C": {"lo": 1, "high": 2}}}, "tune.space.C"),
        ({"space": {"C": {"choices": []}}}, "tune.space.C"),
        ({"space": {"C": {"choices": [1, 1]}}}, "given twice"),
        ({"space": {}}, "tune.space"),
        ({"sampler": "bayes"}, "tune.sampler"),
        ({"objectives": ["latency"]}, "begin with metric"),
        ({"objectives": ["metric", "latency"], "pruner": "asha"}, "several objectives"),
        ({"objectives": ["metric", "latency"], "sampler": "cmaes"}, "cmaes knows one"),
        ({"folds": 1}, "tune.folds"),
        ({"folds": 20, "space": REGULAR, "_few": True}, "too few training rows"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_work(
    said: dict[str, Any], message: str, weak: Path, cancer: Context, tmp_path: Path
) -> None:
    context = cancer
    if said.pop("_few", False):
        context = replace(cancer, train=cancer.train.take(slice(0, 40)))
    with pytest.raises(InvalidInput, match=message) as caught:
        TECHNIQUE.apply(weak, tmp_path / "out", tune(**said), context)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_unknown_names_of_boosters(
    cancer: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    for kind in (xgboost.XGBClassifier, lightgbm.LGBMClassifier):
        model = kind(n_estimators=3, n_jobs=1).fit(matrix(cancer.train), cancer.train.labels)
        source = bring(model, cancer.train)
        config = tune(space={"max_depht": {"low": 1, "high": 3}})
        with pytest.raises(InvalidInput, match="did you mean 'max_depth'"):
            TECHNIQUE.apply(source, tmp_path / "out", config, cancer)
        shutil.rmtree(source)


def test_models_without_a_space_are_refused(
    diabetes: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = LinearRegression().fit(matrix(diabetes.train), diabetes.train.labels)
    source = bring(model, diabetes.train)
    words = conformance.check_refusal(TECHNIQUE, tune(), source, diabetes, tmp_path)
    assert "LinearRegression" in words


def test_time_ends_the_study(weak: Path, cancer: Context, tmp_path: Path) -> None:
    config = tune(space=REGULAR, trials=1000, seconds=0.2, sampler="random", guard=False)
    notes = TECHNIQUE.apply(weak, tmp_path / "out", config, cancer).notes["tune"]
    assert 1 <= notes["trials"] < 1000


def test_screening_tries_fewer(weak: Path, cancer: Context, tmp_path: Path) -> None:
    config = tune(space=REGULAR, trials=20)
    info = TECHNIQUE.apply(weak, tmp_path / "out", config, replace(cancer, effort=0.2))
    assert info.notes["tune"]["trials"] == 4


def test_it_is_suggested_only_to_a_search(weak: Path, cancer: Context) -> None:
    found = TECHNIQUE.suggest(directory.read(weak), cancer.target, frozenset())
    assert found
    assert not any(suggestion.usual for suggestion in found)
    for suggestion in found:
        assert parse_step(suggestion.step).technique == "tune"


def test_it_comes_before_what_it_would_undo() -> None:
    prune = parse_step({"technique": "prune"})
    assert "undoes prune" in str(TECHNIQUE.order_problem(tune(), [prune]))
    assert TECHNIQUE.order_problem(tune(), []) is None


def test_importing_it_is_light() -> None:
    code = (
        "import sys, trimgate.techniques.tune\n"
        "heavy = {'optuna', 'torch', 'sklearn', 'xgboost', 'lightgbm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    paths = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=paths, timeout=120)
