"""What features cost, and what may be spent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trimgate.errors import NotApplicable
from trimgate.techniques import Context
from trimgate.techniques.select_features import TECHNIQUE, SelectFeaturesConfig
from trimgate.techniques.select_features._learners import Learner, candidates
from trimgate.techniques.select_features._search import Search, cut, fill


@pytest.fixture
def source(planted: Context, bring: Any, matrix: Any) -> Path:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    path: Path = bring(model.fit(matrix(planted.train), planted.train.labels), planted.train)
    return path


@pytest.mark.parametrize(
    "method", ["permutation", "mutual_information", "rfe", "forward", "backward"]
)
def test_the_budget_is_kept(
    method: Any, planted: Context, source: Path, conformance: Any, tmp_path: Path
) -> None:
    costs = {"a": 10.0, "a_again": 1.0, "b": 2.0, "noise_0": 0.0}
    config = SelectFeaturesConfig(method=method, budget=5, costs=costs)
    info = conformance.check(TECHNIQUE, config, source, planted, tmp_path)
    notes = info.notes["select_features"]
    spent = sum(costs.get(name, 1.0) for name in notes["kept"])
    assert spent == pytest.approx(notes["cost_after"])
    assert spent <= 5
    assert {"a_again", "b"} <= set(notes["kept"]), "the cheap copy stands for the dear feature"
    assert notes["cost_before"] == pytest.approx(10 + 1 + 2 + 0 + 7)


def test_a_dear_feature_that_matters_most_is_bought(
    planted: Context, source: Path, tmp_path: Path
) -> None:
    """Benefit per cost alone would spend the budget on noise."""
    costs = {"a": 6.0, "a_again": 50.0, "b": 50.0, "c": 50.0, "d": 5.9}
    config = SelectFeaturesConfig(method="anova", budget=6, costs=costs, default_cost=0.5)
    info = TECHNIQUE.apply(source, tmp_path / "out", config, planted)
    assert info.notes["select_features"]["kept"] == ["a"]


def test_auto_saves_cost_and_not_features(planted: Context, source: Path, tmp_path: Path) -> None:
    costs = {"a": 100.0, "d": 40.0}
    config = SelectFeaturesConfig(costs=costs, tolerance=0.02)
    info = TECHNIQUE.apply(source, tmp_path / "out", config, planted)
    notes = info.notes["select_features"]
    assert "a" not in notes["kept"]
    assert notes["cost_after"] < 50
    assert notes["metric_at_worst"] >= notes["metric_before"] - 0.02 - 1e-9
    cheapest = min(
        t["cost"] for t in notes["tried"] if t["at_worst"] >= notes["metric_before"] - 0.02
    )
    assert notes["cost_after"] == cheapest


def test_misspelt_features_are_named(
    planted: Context, source: Path, conformance: Any, tmp_path: Path
) -> None:
    config = SelectFeaturesConfig(costs={"nois_1": 2.0})
    words = conformance.check_refusal(TECHNIQUE, config, source, planted, tmp_path)
    assert words == (
        "`costs` of select_features names 'nois_1', which is no feature; did you mean 'noise_1'?"
    )


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"budget": 11.0}, "which the budget allows"),
        ({"budget": 0.5}, "no feature is that cheap"),
        ({"budget": 0.5, "method": "rfe"}, "no feature is that cheap"),
        ({"budget": 0.5, "method": "forward"}, "no feature is that cheap"),
        ({"budget": 0.5, "method": "backward"}, "no feature is that cheap"),
        ({"budget": 3.0, "method": "correlation"}, "not associated"),
        ({"default_cost": 0.0}, "nothing to save"),
    ],
)
def test_budgets_that_make_no_sense(
    said: Any, words: str, planted: Context, source: Path, conformance: Any, tmp_path: Path
) -> None:
    config = SelectFeaturesConfig(**said)
    assert words in conformance.check_refusal(TECHNIQUE, config, source, planted, tmp_path)


@pytest.mark.parametrize(
    "said", [{"budget": 3, "keep": 2}, {"budget": 0}, {"costs": {"a": -1}}, {"confidence": 0.5}]
)
def test_config_refuses_nonsense(said: Any) -> None:
    with pytest.raises(ValidationError):
        SelectFeaturesConfig(**said)


class Told(Learner):
    """Does not train: a model is the set of its features, whose sum tells the label."""

    def fit(self, kept: Any, rows: Any) -> Any:
        return tuple(kept)

    def scores(self, model: Any, rows: Any) -> Any:
        odds = sum((rows.features[name] for name in model), np.zeros(len(rows)))
        positive = 1 / (1 + np.exp(-np.asarray(odds)))
        return np.column_stack([1 - positive, positive])


def searching(planted: Context, source: Path, config: SelectFeaturesConfig) -> Search:
    from trimgate.models import directory

    info = directory.read(source)
    learner = Told(candidates(info), info, config, planted)
    return Search(learner, candidates(info), config, planted)


COSTS = st.lists(st.floats(0, 10).map(lambda v: round(v, 2)), min_size=11, max_size=11)


@settings(max_examples=40)
@given(COSTS, st.floats(0.5, 60), st.randoms(use_true_random=False))
def test_what_is_chosen_costs_no_more_than_the_budget(
    planted_source: tuple[Context, Path], costs: list[float], budget: float, order: Any
) -> None:
    planted, source = planted_source
    names = list(planted.train.features)
    config = SelectFeaturesConfig(
        costs=dict(zip(names, costs, strict=True)), budget=budget, confidence=None
    )
    search = searching(planted, source, config)
    ranked = names.copy()
    order.shuffle(ranked)
    filled = fill(search, ranked, budget)
    assert search.cost(filled) <= budget * (1 + 1e-9)
    left = [name for name in names if name not in filled]
    assert all(search.cost([*filled, name]) > budget for name in left), "something else fits"
    benefits = {name: float(len(ranked) - i) for i, name in enumerate(ranked)}
    try:
        chosen = cut(search, search.ranked(benefits), benefits=benefits)
    except NotApplicable:
        assert min(costs) > budget
    else:
        assert chosen.cost <= budget * (1 + 1e-9)
        assert chosen.kept


@settings(max_examples=25)
@given(COSTS, st.floats(0.0, 0.2))
def test_auto_is_within_the_tolerance_and_the_cheapest_tried(
    planted_source: tuple[Context, Path], costs: list[float], tolerance: float
) -> None:
    planted, source = planted_source
    names = list(planted.train.features)
    config = SelectFeaturesConfig(
        costs=dict(zip(names, costs, strict=True)), tolerance=tolerance, confidence=None
    )
    search = searching(planted, source, config)
    benefits = {name: float("noise" not in name) for name in names}
    try:
        chosen = cut(search, search.ranked(benefits), benefits=benefits)
    except NotApplicable:
        assert not any(t.good for t in search.trials.values())
        return
    assert chosen.value >= search.reference - tolerance - 1e-9
    assert all(chosen.cost <= t.cost for t in search.trials.values() if t.good)


@pytest.fixture(scope="module")
def planted_source(planted: Context, tmp_path_factory: pytest.TempPathFactory) -> Any:
    import joblib

    from trimgate.models import ModelSource, import_model

    folder = tmp_path_factory.mktemp("planted")
    rows = planted.train
    model = LogisticRegression().fit(np.column_stack(list(rows.features.values())), rows.labels)
    joblib.dump(model, folder / "model.joblib")
    path = folder / "model.joblib"
    import_model(ModelSource(path=path, allow_pickle=True), rows, folder / "source")
    return planted, folder / "source"
