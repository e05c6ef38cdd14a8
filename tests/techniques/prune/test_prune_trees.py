"""Pruning of tree ensembles."""

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from trimgate.data import Dataset, halves
from trimgate.judge import metrics
from trimgate.models import directory, export_onnx, load_trainable
from trimgate.techniques import Context
from trimgate.techniques.prune import TECHNIQUE, PruneConfig
from trimgate.techniques.prune._ensembles import Forest, find
from trimgate.techniques.prune._trees import grid
from trimgate.training import estimator_scores

CLASSIFIERS = {
    "gradient boosting": GradientBoostingClassifier(n_estimators=60, random_state=0),
    "histogram boosting": HistGradientBoostingClassifier(max_iter=60, random_state=0),
    "forest": RandomForestClassifier(n_estimators=50, random_state=0),
    "xgboost": xgboost.XGBClassifier(n_estimators=60, max_depth=3, n_jobs=1),
    "lightgbm": lightgbm.LGBMClassifier(n_estimators=60, num_leaves=7, verbose=-1, n_jobs=1),
    "pipeline": make_pipeline(
        StandardScaler(), GradientBoostingClassifier(n_estimators=100, random_state=0)
    ),
    "pipeline in a pipeline": make_pipeline(
        StandardScaler(),
        make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=30, random_state=0)),
    ),
}
REGRESSORS = {
    "gradient boosting": GradientBoostingRegressor(n_estimators=60, random_state=0),
    "histogram boosting": HistGradientBoostingRegressor(max_iter=60, random_state=0),
    "forest": RandomForestRegressor(n_estimators=40, random_state=0),
    "extra trees": ExtraTreesRegressor(n_estimators=40, random_state=0),
    "xgboost": xgboost.XGBRegressor(n_estimators=60, max_depth=3, n_jobs=1),
    "lightgbm": lightgbm.LGBMRegressor(n_estimators=60, num_leaves=7, verbose=-1, n_jobs=1),
}


def value(path: Path, context: Context) -> float:
    """The metric of a model directory on the validation rows, computed apart from the notes."""
    info = directory.read(path)
    rows = context.validation
    scores = estimator_scores(load_trainable(path, info), info, rows)
    return metrics.compute(context.metric, rows.labels, scores, info.labels)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_keep_their_metric_with_fewer_trees(
    name: str, cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = CLASSIFIERS[name].fit(matrix(cancer.train), cancer.train.labels)
    source = bring(model, cancer.train)
    info = conformance.check(TECHNIQUE, PruneConfig(), source, cancer, tmp_path)
    notes = info.notes["prune"]
    assert notes["trees_after"] < notes["trees_before"]
    assert notes["leaves_after"] < notes["leaves_before"]
    judged = cancer
    if isinstance(find(model, info), Forest):  # half of the rows ordered the trees
        judged = replace(cancer, validation=halves(cancer.validation)[1])
    assert notes["metric_before"] == pytest.approx(value(source, judged))
    assert notes["metric_after"] == pytest.approx(value(tmp_path / "first", judged), abs=1e-6)
    assert notes["metric_after"] >= notes["metric_before"] - 0.005 - 1e-9
    pruned = load_trainable(tmp_path / "first", info)
    changes = export_onnx(pruned, info, cancer.validation, tmp_path / "model.onnx")
    assert changes["notes"]["optimize_graph"]["parity"]["agreement"] == 1.0


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors_lose_an_explicit_share(
    name: str, diabetes: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = REGRESSORS[name].fit(matrix(diabetes.train), diabetes.train.labels)
    source = bring(model, diabetes.train)
    config = PruneConfig(amount=0.75, order="first")
    info = conformance.check(TECHNIQUE, config, source, diabetes, tmp_path)
    notes = info.notes["prune"]
    assert notes["trees_after"] == round(notes["trees_before"] * 0.25)
    assert notes["metric_after"] == pytest.approx(value(tmp_path / "first", diabetes), rel=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(n_estimators=12, random_state=0),
        HistGradientBoostingClassifier(max_iter=4, random_state=0),
        GradientBoostingClassifier(n_estimators=4, max_depth=1, random_state=0),
        xgboost.XGBClassifier(n_estimators=4, max_depth=2, n_jobs=1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_staged_scores_are_those_of_the_cut_model(
    model: Any, digit_columns: Context, bring: Any, matrix: Any
) -> None:
    rows = digit_columns.train.take(slice(0, 300))
    source = bring(model.fit(matrix(rows), rows.labels), rows)
    info = directory.read(source)
    ensemble = find(load_trainable(source, info), info)
    sizes = [1, 3, 4]
    for size, scores in zip(sizes, ensemble.staged(rows, sizes), strict=True):
        alone = estimator_scores(ensemble.cut(size), info, rows)
        np.testing.assert_allclose(scores, alone, atol=1e-6)
    assert find(ensemble.cut(3), info).size == 3
    assert ensemble.size > 3, "the original was cut"


def test_greedy_order_is_no_worse_than_the_order_of_training(
    cancer: Context, bring: Any, matrix: Any
) -> None:
    model = RandomForestClassifier(n_estimators=60, random_state=0)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    info = directory.read(source)
    forest = find(model, info)
    order = forest.greedy_order(cancer.validation)
    assert sorted(order) == list(range(60))
    truth = cancer.validation.labels
    (first,) = forest.staged(cancer.validation, [10])
    (greedy,) = forest.reordered(order).staged(cancer.validation, [10])
    assert np.mean((greedy[:, 1] - truth) ** 2) < np.mean((first[:, 1] - truth) ** 2)
    # the first tree is the best single one
    trees = forest.tree_scores(matrix(cancer.validation))
    single = [np.mean((scores[:, 1] - truth) ** 2) for scores in trees]
    assert order[0] == int(np.argmin(single))


@pytest.mark.parametrize("order", ["greedy", "first"])
def test_the_tolerance_holds_on_rows_that_were_never_seen(
    order: Literal["greedy", "first"], cancer: Context, bring: Any, tmp_path: Path
) -> None:
    """A weak signal and few validation rows: fewer trees look as good by chance alone."""

    def draw(count: int, seed: int) -> Dataset:
        rng = np.random.default_rng(seed)
        columns = rng.normal(size=(10, count)).astype(np.float32)
        labels = (0.4 * columns[:3].sum(axis=0) + rng.normal(size=count) > 0).astype(np.int64)
        return Dataset({f"x{i}": column for i, column in enumerate(columns)}, labels)

    train, fresh = draw(1500, 0), draw(10_000, 1)
    model = RandomForestClassifier(n_estimators=100, random_state=0)
    source = bring(model.fit(train.frame().to_numpy(), train.labels), train)
    info = directory.read(source)

    def worth(path: Path) -> float:
        scores = estimator_scores(load_trainable(path, directory.read(path)), info, fresh)
        return metrics.compute("roc_auc", fresh.labels, scores, info.labels)

    before = worth(source)
    held = 0
    for seed in range(6):
        context = replace(cancer, train=train, validation=draw(600, 2 + seed), metric="roc_auc")
        config = PruneConfig(order=order, tolerance=0.02)
        made = TECHNIQUE.apply(source, tmp_path / f"{seed}", config, context)
        notes = made.notes["prune"]
        assert notes["trees_after"] < 100
        assert notes["metric_at_worst"] >= notes["metric_before"] - 0.02
        held += worth(tmp_path / f"{seed}") >= before - 0.02
    assert held >= 5, "with a confidence of 90 %, and it held in so many of six"


def test_boosting_is_not_cut_until_its_probabilities_shrink(
    cancer: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    """The ranking survives a cut that ruins the probabilities, and with them any threshold."""
    model = GradientBoostingClassifier(
        n_estimators=80, max_depth=2, learning_rate=0.1, random_state=0
    ).fit(matrix(cancer.train), cancer.train.labels)
    source = bring(model, cancer.train)
    free = TECHNIQUE.apply(
        source, tmp_path / "free", PruneConfig(max_loss_rise=100, confidence=None), cancer
    )
    held = TECHNIQUE.apply(source, tmp_path / "held", PruneConfig(confidence=None), cancer)
    loose, tight = free.notes["prune"], held.notes["prune"]
    assert loose["log_loss_after"] > 1.2 * loose["log_loss_before"]
    assert tight["log_loss_after"] <= 1.02 * tight["log_loss_before"]
    assert loose["trees_after"] < tight["trees_after"] < tight["trees_before"]


def test_refit_trains_shallower_trees(
    cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = RandomForestClassifier(n_estimators=20, random_state=0)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    config = PruneConfig(refit=True, depths=(2, 4), tolerance=0.02, order="first")
    info = conformance.check(TECHNIQUE, config, source, cancer, tmp_path)
    assert info.notes["prune"]["depth"] in (2, 4)
    pruned = load_trainable(tmp_path / "first", info)
    assert max(tree.get_depth() for tree in pruned.estimators_) <= 4


FITTED = {
    "tree": DecisionTreeClassifier(random_state=0),
    "forest": RandomForestClassifier(n_estimators=20, random_state=0),
    "extra trees": ExtraTreesClassifier(n_estimators=20, random_state=0),
    "gradient boosting": GradientBoostingClassifier(n_estimators=30, max_depth=5, random_state=0),
    "pipeline": make_pipeline(
        StandardScaler(), RandomForestClassifier(n_estimators=20, random_state=0)
    ),
}


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("said", [{"method": "depth"}, {"method": "cost_complexity"}])
def test_fitted_trees_lose_branches(
    name: str, said: dict[str, Any], cancer: Context, bring: Any, matrix: Any, conformance: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    model = FITTED[name].fit(matrix(cancer.train), cancer.train.labels)
    source = bring(model, cancer.train)
    config = PruneConfig(tolerance=0.02, max_loss_rise=0.2, **said)
    info = conformance.check(TECHNIQUE, config, source, cancer, tmp_path)
    notes = info.notes["prune"]
    assert notes["leaves_after"] < notes["leaves_before"]
    assert notes["trees_after"] == notes["trees_before"]
    assert notes["metric_after"] == pytest.approx(value(tmp_path / "first", cancer), abs=1e-6)
    assert notes["metric_after"] >= notes["metric_before"] - 0.02 - 1e-9
    pruned = load_trainable(tmp_path / "first", info)
    if said["method"] == "depth":
        trees = find(pruned, info).trees()
        assert max(tree.max_depth for tree in trees) == notes["depth"]
    changes = export_onnx(pruned, info, cancer.validation, tmp_path / "model.onnx")
    assert changes["notes"]["optimize_graph"]["parity"]["agreement"] == 1.0


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeRegressor(random_state=0),
        RandomForestRegressor(n_estimators=5, random_state=0),
        ExtraTreesRegressor(n_estimators=5, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_cut_tree_is_the_tree_that_training_would_have_stopped_at(
    model: Any, diabetes: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    rows = matrix(diabetes.train)
    source = bring(model.fit(rows, diabetes.train.labels), diabetes.train)
    for said, same in (
        ({"method": "depth", "depth": 3}, {"max_depth": 3}),
        ({"method": "cost_complexity", "alpha": 60.0}, {"ccp_alpha": 60.0}),
    ):
        if isinstance(model, ExtraTreesRegressor) and "max_depth" in same:
            continue  # draws its thresholds in another order
        out = tmp_path / said["method"]
        info = TECHNIQUE.apply(source, out, PruneConfig(**said), diabetes)
        pruned = load_trainable(out, info)
        other = clone(model).set_params(**same).fit(rows, diabetes.train.labels)
        if "max_depth" in same and not isinstance(model, DecisionTreeRegressor):
            # the same draws by chance do not happen below a cut; the first levels are the same
            assert max(tree.max_depth for tree in find(pruned, info).trees()) == 3
            continue
        if hasattr(other, "tree_"):
            assert pruned.tree_.node_count == other.tree_.node_count
        np.testing.assert_allclose(pruned.predict(rows), other.predict(rows))


def test_boosting_regression_collapses_to_means(
    diabetes: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    model = GradientBoostingRegressor(n_estimators=1, max_depth=4, random_state=0)
    rows = matrix(diabetes.train)
    source = bring(model.fit(rows, diabetes.train.labels), diabetes.train)
    config = PruneConfig(method="depth", depth=2)
    info = TECHNIQUE.apply(source, tmp_path / "out", config, diabetes)
    other = clone(model).set_params(max_depth=2).fit(rows, diabetes.train.labels)
    pruned = load_trainable(tmp_path / "out", info)
    np.testing.assert_allclose(pruned.predict(rows), other.predict(rows))
    assert info.notes["prune"]["leaves_after"] == 4


@pytest.mark.parametrize("kind", ["histogram", "lightgbm", "xgboost"])
def test_other_boosters_are_trained_again_at_a_depth(
    kind: str, cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = {
        "histogram": HistGradientBoostingClassifier(max_iter=15, random_state=0),
        "lightgbm": lightgbm.LGBMClassifier(n_estimators=15, verbose=-1, n_jobs=1),
        "xgboost": xgboost.XGBClassifier(n_estimators=15, n_jobs=1),
    }[kind]
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    config = PruneConfig(method="depth", depth=2)
    if kind == "xgboost":  # its file does not say how it was trained
        words = conformance.check_refusal(TECHNIQUE, config, source, cancer, tmp_path)
        assert "hyper-parameters" in words
        return
    info = conformance.check(TECHNIQUE, config, source, cancer, tmp_path)
    assert info.notes["prune"]["depth"] == 2
    assert info.notes["prune"]["leaves_after"] <= 4 * 15


def test_refusals_of_branches(
    cancer: Context, diabetes: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = HistGradientBoostingClassifier(max_iter=5, random_state=0)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    simpler = PruneConfig(method="cost_complexity")
    assert "impurity" in conformance.check_refusal(TECHNIQUE, simpler, source, cancer, tmp_path)
    tree = DecisionTreeRegressor(max_depth=3, random_state=0)
    tree.fit(matrix(diabetes.train), diabetes.train.labels)
    shutil.rmtree(source)
    source = bring(tree, diabetes.train)
    for config, words in (
        (PruneConfig(method="trees"), "single tree"),
        (PruneConfig(method="depth", depth=3), "deeper than 3"),
        (PruneConfig(method="cost_complexity", alpha=1e-9), "so little"),
        (PruneConfig(method="heads"), "sklearn"),
    ):
        assert words in conformance.check_refusal(TECHNIQUE, config, source, diabetes, tmp_path)


def test_a_single_tree_is_simplified_by_default(
    cancer: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    model = DecisionTreeClassifier(random_state=0)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    info = TECHNIQUE.apply(source, tmp_path / "out", PruneConfig(tolerance=0.02), cancer)
    assert info.notes["prune"]["method"] == "cost_complexity"
    assert info.notes["prune"]["alpha"] > 0


def test_named_columns_and_early_stopping_survive(
    cancer: Context, bring: Any, conformance: Any, tmp_path: Path
) -> None:
    names = list(cancer.train.features)
    model = make_pipeline(
        ColumnTransformer([("scale", StandardScaler(), names[:20])], remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=50, early_stopping=True, random_state=0),
    )
    source = bring(model.fit(cancer.train.frame(), cancer.train.labels), cancer.train)
    conformance.check(TECHNIQUE, PruneConfig(amount=0.5), source, cancer, tmp_path)


def test_refuses_what_it_cannot_cut(
    cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = LogisticRegression(max_iter=5000)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    words = conformance.check_refusal(TECHNIQUE, PruneConfig(), source, cancer, tmp_path)
    assert "linear" in words
    conformance.check_refusal(TECHNIQUE, PruneConfig(method="channels"), source, cancer, tmp_path)


def test_refuses_when_every_tree_is_needed(
    diabetes: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = GradientBoostingRegressor(n_estimators=20, learning_rate=0.02, random_state=0)
    source = bring(model.fit(matrix(diabetes.train), diabetes.train.labels), diabetes.train)
    words = conformance.check_refusal(
        TECHNIQUE, PruneConfig(tolerance=0.0), source, diabetes, tmp_path
    )
    assert "20 trees" in words
    assert "0 % of its rmse" in words


def test_refuses_to_train_a_bare_booster_again(
    cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    words = conformance.check_refusal(TECHNIQUE, PruneConfig(refit=True), source, cancer, tmp_path)
    assert "booster" in words


def test_refuses_dart(
    cancer: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    model = xgboost.XGBClassifier(n_estimators=5, booster="dart", n_jobs=1)
    source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
    words = conformance.check_refusal(TECHNIQUE, PruneConfig(), source, cancer, tmp_path)
    assert "dart" in words


@pytest.mark.parametrize("wrong", [{"amount": 1.0}, {"amount": 0}, {"depths": []}, {"epochs": 3}])
def test_config_refuses_nonsense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PruneConfig(**wrong)


@given(st.integers(1, 5000))
def test_grid_rises_to_the_size(size: int) -> None:
    sizes = grid(size)
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (1, size)
    assert all(after <= 1.15 * before + 2 for before, after in itertools.pairwise(sizes))
