"""Each method finds the features that matter."""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from trimgate.data.dataset import Dataset
from trimgate.techniques import Context
from trimgate.techniques.select_features import TECHNIQUE, SelectFeaturesConfig
from trimgate.techniques.select_features._filters import associations, redundant, variance

METHODS = [
    "permutation", "model", "shap", "l1", "mutual_information", "anova", "rfe", "forward",
    "backward",
]  # fmt: skip
TOLD = {"a", "b", "c", "d", "a_again"}


def logistic() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression())


def mixed_pipeline(last: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return make_pipeline(
        ColumnTransformer(
            [
                ("text", OneHotEncoder(handle_unknown="ignore"), ["city", "noise_text"]),
                ("numbers", numbers, ["noise_1", "age", "signal", "noise_2"]),
            ]
        ),
        last,
    )


@pytest.mark.parametrize("method", METHODS)
def test_each_method_finds_what_was_planted(
    method: Any, planted: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    source = bring(logistic().fit(matrix(planted.train), planted.train.labels), planted.train)
    config = SelectFeaturesConfig(method=method, keep=4)
    info = conformance.check(TECHNIQUE, config, source, planted, tmp_path)
    kept = set(info.notes["select_features"]["kept"])
    # the copy may stand for the original, and whoever ranks one by one keeps both
    assert len(kept & TOLD) >= (3 if method == "rfe" else 4)
    assert {"b"} <= kept


@pytest.mark.parametrize("method", METHODS)
def test_each_method_works_on_real_rows_of_three_classes(
    method: Any, wine: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    source = bring(logistic().fit(matrix(wine.train), wine.train.labels), wine.train)
    config = SelectFeaturesConfig(method=method, keep="auto", tolerance=0.12, confidence=0.8)
    info = TECHNIQUE.apply(source, tmp_path / "out", config, wine)
    notes = info.notes["select_features"]
    assert len(notes["kept"]) <= 9
    assert {"proline", "flavanoids", "color_intensity"} & set(notes["kept"])
    assert notes["metric_at_worst"] <= notes["metric_before"] + 0.12
    assert notes["metric_after"] <= notes["metric_at_worst"]


@pytest.mark.parametrize("method", ["permutation", "model", "shap", "l1", "anova", "rfe"])
def test_strings_and_gaps(
    method: Any, mixed: Context, bring: Any, conformance: Any, tmp_path: Path
) -> None:
    last: Any = LogisticRegression()
    if method == "shap":
        last = RandomForestClassifier(20, random_state=0)
    model = mixed_pipeline(last).fit(mixed.train.frame(), mixed.train.labels)
    source = bring(model, mixed.train)
    config = SelectFeaturesConfig(method=method, keep=2)
    info = conformance.check(TECHNIQUE, config, source, mixed, tmp_path)
    assert info.notes["select_features"]["kept"] == ["city", "signal"]


@pytest.mark.parametrize("method", ["model", "shap", "rfe", "correlation"])
@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_boosters(
    method: Any, kind: str, planted: Context, bring: Any, matrix: Any, conformance: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    estimator: Any = (
        xgboost.XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1, random_state=0)
        if kind == "xgboost"
        else lightgbm.LGBMClassifier(n_estimators=20, num_leaves=7, verbose=-1, n_jobs=1)
    )
    source = bring(estimator.fit(matrix(planted.train), planted.train.labels), planted.train)
    config = SelectFeaturesConfig(method=method, keep=10 if method == "correlation" else 5)
    info = conformance.check(TECHNIQUE, config, source, planted, tmp_path)
    kept = set(info.notes["select_features"]["kept"])
    assert info.framework == kind
    if method == "correlation":
        assert len(kept & {"a", "a_again"}) == 1
    else:
        assert len(kept & TOLD) >= 4


@pytest.mark.parametrize(
    "last",
    [
        xgboost.XGBClassifier(n_estimators=10, n_jobs=1, random_state=0),
        lightgbm.LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=1),
        GradientBoostingClassifier(n_estimators=10, random_state=0),
        RandomForestClassifier(20, random_state=0),
        LogisticRegression(),
    ],
)
def test_shap_of_the_last_step(
    last: Any, planted: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    model = make_pipeline(StandardScaler(), last)
    source = bring(model.fit(matrix(planted.train), planted.train.labels), planted.train)
    config = SelectFeaturesConfig(method="shap", keep=5)
    info = TECHNIQUE.apply(source, tmp_path / "out", config, planted)
    found = info.notes["select_features"]["importances"]
    assert min(found[n] for n in ("b", "c")) > max(v for n, v in found.items() if "noise" in n)


@pytest.mark.parametrize(("method", "words"), [("shap", "use permutation"), ("model", "none")])
def test_methods_say_what_they_cannot(
    method: Any, words: str, planted: Context, bring: Any, matrix: Any, conformance: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    del words
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(5))
    source = bring(model.fit(matrix(planted.train), planted.train.labels), planted.train)
    config = SelectFeaturesConfig(method=method, keep=4)
    said = conformance.check_refusal(TECHNIQUE, config, source, planted, tmp_path)
    assert "use permutation" in said
    mixing = make_pipeline(StandardScaler(), PCA(3), LogisticRegression())
    (tmp_path / "mixing").mkdir()
    (tmp_path / "source").rename(tmp_path / "first-source")
    source = bring(mixing.fit(matrix(planted.train), planted.train.labels), planted.train)
    said = conformance.check_refusal(TECHNIQUE, config, source, planted, tmp_path)
    assert "mixes features" in said


def test_correlation_drops_one_of_each_pair(
    planted: Context, bring: Any, matrix: Any, conformance: Any, tmp_path: Path
) -> None:
    source = bring(logistic().fit(matrix(planted.train), planted.train.labels), planted.train)
    config = SelectFeaturesConfig(method="correlation", costs={"a": 5.0})
    info = conformance.check(TECHNIQUE, config, source, planted, tmp_path)
    assert info.notes["select_features"]["dropped"] == ["a"], "the dearer one goes"
    words = conformance.check_refusal(
        TECHNIQUE, SelectFeaturesConfig(method="correlation", keep=3), source, planted, tmp_path
    )
    assert "10 stay" in words
    none = SelectFeaturesConfig(method="correlation", max_correlation=0.9999999)
    assert "no two features" in conformance.check_refusal(
        TECHNIQUE, none, source, planted, tmp_path
    )


@pytest.mark.parametrize("method", ["permutation", "rfe", "forward", "backward"])
def test_copies_go_first(
    method: Any, planted: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    source = bring(logistic().fit(matrix(planted.train), planted.train.labels), planted.train)
    config = SelectFeaturesConfig(method=method, keep=4, max_correlation=0.9)
    info = TECHNIQUE.apply(source, tmp_path / "out", config, planted)
    kept = set(info.notes["select_features"]["kept"])
    assert {"b", "c", "d"} < kept
    assert len(kept & {"a", "a_again"}) == 1


def test_associations_know_all_types() -> None:
    generator = np.random.default_rng(0)
    base = generator.normal(size=500)
    group = np.array(["low", "high"], dtype=object)[(base > 0).astype(int)]
    rows = Dataset(
        {
            "base": base,
            "bent": np.exp(3 * base),
            "group": group,
            "same": np.where(group == "low", "no", "yes").astype(object),
            "noise": generator.normal(size=500),
            "text": np.array(["x", "y", "z"], dtype=object)[generator.integers(0, 3, 500)],
            "constant": np.ones(500),
            "gone": np.full(500, None, dtype=object),
        },
        np.zeros(500, dtype=np.int64),
    )
    names = list(rows.features)
    found = associations(rows, names)

    def of(left: str, right: str) -> float:
        return float(found[names.index(left), names.index(right)])

    np.testing.assert_array_equal(found, found.T)
    assert of("base", "bent") == pytest.approx(1)
    assert of("group", "same") == pytest.approx(1, abs=0.01)
    assert 0.8 < of("base", "group") < 0.95
    assert max(of("noise", n) for n in names) < 0.15
    assert max(of("text", n) for n in names) < 0.15
    assert found[names.index("constant")].max() == 0
    assert found[names.index("gone")].max() == 0
    kept = set(range(len(names))) - set(redundant(found, lambda i: (float(-i),), 0.8))
    assert [names[i] for i in sorted(kept)] == ["base", "noise", "text", "constant", "gone"]
    told = variance(rows, names)
    assert told["constant"] == 0
    assert told["gone"] == 0
    assert told["group"] == pytest.approx(0.25, abs=0.01)


@given(st.integers(2, 12), st.floats(0.05, 0.95), st.integers(0, 1000))
def test_no_associated_pair_is_left(count: int, limit: float, seed: int) -> None:
    found = np.random.default_rng(seed).uniform(size=(count, count))
    found = np.triu(found, 1) + np.triu(found, 1).T
    gone = redundant(found, lambda i: (float(i),), limit)
    kept = [i for i in range(count) if i not in gone]
    assert kept
    assert len(set(gone)) == len(gone)
    assert found[np.ix_(kept, kept)].max(initial=0.0) <= limit


@pytest.mark.parametrize("method", ["l1", "anova", "shap", "forward"])
def test_regression(
    method: Any, diabetes: Context, bring: Any, matrix: Any, tmp_path: Path
) -> None:
    model = Ridge(alpha=0.1).fit(matrix(diabetes.train), diabetes.train.labels)
    source = bring(model, diabetes.train)
    config = SelectFeaturesConfig(method=method, keep=3)
    info = TECHNIQUE.apply(source, tmp_path / "out", config, diabetes)
    assert {"bmi", "s5"} < set(info.notes["select_features"]["kept"])


def test_a_lucky_small_set_is_not_taken(mixed: Context, bring: Any, tmp_path: Path) -> None:
    """Where few rows decide, the interval asks for more than the plain difference."""
    model = mixed_pipeline(LogisticRegression()).fit(mixed.train.frame(), mixed.train.labels)
    source = bring(model, mixed.train)
    few = Context(
        mixed.train, mixed.validation.take(slice(0, 60)), mixed.metric, mixed.target, seed=0
    )

    def kept(confidence: float | None, name: str) -> int:
        config = SelectFeaturesConfig(tolerance=0.04, confidence=confidence)
        info = TECHNIQUE.apply(source, tmp_path / name, config, few)
        return len(info.notes["select_features"]["kept"])

    counts = [kept(None, "point"), kept(0.6, "even"), kept(0.9, "sure")]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_the_picture_says_nothing_of_the_rows(mixed: Context, bring: Any, tmp_path: Path) -> None:
    model = mixed_pipeline(LogisticRegression()).fit(mixed.train.frame(), mixed.train.labels)
    source = bring(model, mixed.train)
    config = SelectFeaturesConfig(method="l1", keep=2, picture=True)
    first = TECHNIQUE.apply(source, tmp_path / "one", config, mixed)
    again = TECHNIQUE.apply(source, tmp_path / "two", config, mixed)
    assert first.notes == again.notes
    picture = first.notes["select_features"]["picture"]
    assert set(picture) == {"method", "x", "y", "group", "groups", "changed"}
    assert all(isinstance(v, int) and 0 <= v <= 1000 for v in picture["x"] + picture["y"])
    assert picture["groups"] == ["no", "yes"]
    rows = len(mixed.validation)
    assert {len(picture[key]) for key in ("x", "y", "group", "changed")} == {rows}
