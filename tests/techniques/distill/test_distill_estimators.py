"""Distillation of models of tables into estimators."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder
from techniques.distill.conftest import context, mixed, numbers
from xgboost import XGBClassifier

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import directory, export_onnx, load_trainable
from trimgate.targets import Target
from trimgate.techniques.distill import TECHNIQUE, DistillConfig
from trimgate.techniques.distill._estimators import scores_of
from trimgate.techniques.distill._rows import read_unlabeled, synthetic

Bring = Callable[..., Path]
TOWN, REST = ["town"], ["income", "age"]
ALL = (
    "hist_gradient_boosting",
    "random_forest",
    "gradient_boosting",
    "decision_tree",
    "mlp",
    "same",
)


def config(estimator: str, /, parameters: dict[str, Any] | None = None, **said: Any) -> Any:
    student = {"estimator": estimator, "parameters": parameters or {}}
    return DistillConfig.model_validate({"student": student, **said})


def matrix(rows: Dataset) -> Array:
    return np.column_stack(list(rows.features.values()))


def forest_of_mixed(rows: Dataset, *, onehot: bool = True) -> Any:
    """A pipeline with text and gaps, as a user has it."""
    text = OneHotEncoder(handle_unknown="ignore") if onehot else OrdinalEncoder()
    if not onehot:
        text = make_pipeline(SimpleImputer(strategy="most_frequent"), text)
    steps = ColumnTransformer([("town", text, TOWN), ("rest", SimpleImputer(), REST)])
    model = Pipeline([("columns", steps), ("forest", RandomForestClassifier(40, random_state=0))])
    return model.fit(rows.frame(), rows.labels)


@pytest.fixture(scope="module")
def rows() -> Any:
    return context(mixed(600, 1), mixed(400, 2), "accuracy")


@pytest.mark.parametrize("estimator", [*ALL, "logistic_regression"])
def test_pipelines_with_text_and_gaps(
    estimator: str, rows: Any, bring: Bring, conformance: Any, tmp_path: Path
) -> None:
    """Every kind of student keeps the preprocessing, and exports with parity."""
    source = bring(forest_of_mixed(rows.train), rows.train)
    small = {"max_iter": 20} if estimator in ("mlp", "hist_gradient_boosting") else {}
    if estimator in ("gradient_boosting", "same"):
        small = {"n_estimators": 10}
    info = conformance.check(TECHNIQUE, config(estimator, small), source, rows, tmp_path)
    notes = info.notes["distill"]
    assert info.framework == "sklearn"
    assert notes["student"] > 0.55
    model = load_trainable(tmp_path / "first")
    assert model.steps[0][0] == "columns"
    (tmp_path / "onnx").mkdir()
    export_onnx(model, info, rows.validation, tmp_path / "onnx" / "model.onnx")


def test_xgboost_becomes_a_tree(bring: Bring, conformance: Any, tmp_path: Path) -> None:
    rows = context(numbers(600, 1), numbers(500, 2), "roc_auc")
    teacher = XGBClassifier(n_estimators=60, max_depth=4).fit(matrix(rows.train), rows.train.labels)
    source = bring(teacher, rows.train)
    step = config("decision_tree", augment=1000)
    info = conformance.check(TECHNIQUE, step, source, rows, tmp_path)
    assert (info.framework, info.score_kind) == ("sklearn", "probability")
    assert info.size < directory.read(source).size
    assert info.notes["distill"]["synthetic_rows"] == 1000


def test_lightgbm_and_regression(bring: Bring, conformance: Any, tmp_path: Path) -> None:
    rows = context(numbers(600, 1, task="regression"), numbers(400, 2, task="regression"), "rmse")
    teacher = LGBMRegressor(n_estimators=60, verbosity=-1).fit(
        matrix(rows.train), rows.train.labels
    )
    source = bring(teacher, rows.train)
    info = conformance.check(TECHNIQUE, config("mlp", {"max_iter": 60}), source, rows, tmp_path)
    assert (info.task, info.score_kind, info.family) == ("regression", "value", "mlp")
    assert info.notes["distill"]["higher_is_better"] is False
    words = config("logistic_regression")
    assert "classifiers" in str(TECHNIQUE.refusal(directory.read(source), words, Target(name="t")))
    TECHNIQUE.apply(source, tmp_path / "ridge", config("ridge"), rows)


def test_gaps_stay_gaps(bring: Bring, tmp_path: Path) -> None:
    """LightGBM takes NaN, so its student must."""
    data = numbers(500, 1)
    holes = dict(data.features)
    holes["x2"] = np.where(np.arange(500) % 7 == 0, np.nan, holes["x2"])
    data = Dataset(holes, data.labels)
    rows = context(data.take(slice(0, 300)), data.take(slice(300, 500)), "accuracy")
    teacher = LGBMClassifier(n_estimators=20, verbosity=-1)
    source = bring(teacher.fit(matrix(rows.train), rows.train.labels), rows.train)
    for name in ("hist_gradient_boosting", "logistic_regression", "gradient_boosting"):
        info = TECHNIQUE.apply(source, tmp_path / name, config(name), rows)
        assert info.inputs[0].no_nan == ()


def test_a_torch_teacher_of_a_table(teach: Bring, conformance: Any, tmp_path: Path) -> None:
    rows = context(numbers(300, 1), numbers(300, 2), "accuracy")
    source = teach("mlp", numbers(2000, 3))
    info = conformance.check(TECHNIQUE, config("gradient_boosting"), source, rows, tmp_path)
    assert (info.framework, info.builder, info.family) == ("sklearn", None, "trees")


def test_a_clean_teacher_helps_where_labels_are_noisy(bring: Bring, tmp_path: Path) -> None:
    """Planted: the teacher learnt 4000 right labels, the student has 500 rows, 35 % wrong."""
    clean = numbers(4000, 3)
    teacher = GradientBoostingClassifier(n_estimators=80).fit(matrix(clean), clean.labels)
    rows = context(numbers(500, 1, noise=0.35), numbers(2000, 2), "accuracy")
    source = bring(teacher, clean)
    step = config("hist_gradient_boosting", {"max_iter": 60}, loss={"labels": 0}, augment=2000)
    notes = TECHNIQUE.apply(source, tmp_path / "out", step, rows).notes["distill"]
    assert notes["added"]["low"] > 0.03, notes
    assert notes["kept"] == "student"


def test_unlabeled_rows_help_a_student_of_few_rows(bring: Bring, tmp_path: Path) -> None:
    """Planted: 60 labelled rows, 3000 without a label, and a teacher that knows them."""
    clean = numbers(4000, 3)
    teacher = GradientBoostingClassifier(n_estimators=80).fit(matrix(clean), clean.labels)
    rows = context(numbers(60, 1), numbers(2000, 2), "accuracy")
    source = bring(teacher, clean)
    numbers(3000, 7).frame().to_parquet(tmp_path / "more.parquet")
    step = config(
        "hist_gradient_boosting", {"max_iter": 60}, unlabeled=str(tmp_path / "more.parquet")
    )
    notes = TECHNIQUE.apply(source, tmp_path / "out", step, rows).notes["distill"]
    assert notes["unlabeled_rows"] == 3000
    assert notes["added"]["low"] > 0.05, notes


def test_nothing_is_claimed_where_distillation_cannot_help(bring: Bring, tmp_path: Path) -> None:
    """Planted: a linear task that a linear student learns from 2000 right labels alone."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 3))
    data = Dataset({f"x{i}": x[:, i] for i in range(3)}, (x[:, 0] > x[:, 1]).astype(np.int64))
    rows = context(data.take(slice(0, 2000)), data.take(slice(2000, 3000)), "accuracy")
    teacher = GradientBoostingClassifier(n_estimators=20).fit(x[:2000], rows.train.labels)
    source = bring(teacher, rows.train)
    notes = TECHNIQUE.apply(source, tmp_path / "out", config("logistic_regression"), rows).notes
    assert notes["distill"]["added"]["low"] <= 0
    assert notes["distill"]["control"] > 0.97


@pytest.mark.parametrize("estimator", ["hist_gradient_boosting", "mlp", "random_forest"])
def test_without_a_teacher_the_student_is_the_control(
    estimator: str, rows: Any, bring: Bring, tmp_path: Path
) -> None:
    source = bring(forest_of_mixed(rows.train), rows.train)
    small = {"max_iter": 20} if estimator != "random_forest" else {}
    step = config(estimator, small, loss={"logits": 0, "labels": 0.3})
    info = TECHNIQUE.apply(source, tmp_path / "out", step, rows)
    notes = info.notes["distill"]
    assert (notes["student"], notes["added"]["value"]) == (notes["control"], 0)


def test_control_never_sees_the_teacher(bring: Bring, tmp_path: Path) -> None:
    """The control is what the user would have trained without trimgate."""
    rows = context(numbers(400, 1, noise=0.2), numbers(400, 2), "accuracy")
    clean = numbers(1000, 3)
    teacher = GradientBoostingClassifier(n_estimators=20).fit(matrix(clean), clean.labels)
    source = bring(teacher, clean)
    parameters = {"max_depth": 4}
    notes = TECHNIQUE.apply(
        source, tmp_path / "out", config("decision_tree", parameters, augment=500), rows
    ).notes["distill"]
    from sklearn.tree import DecisionTreeClassifier

    plain = DecisionTreeClassifier(max_depth=4, random_state=0)
    plain.fit(matrix(rows.train), rows.train.labels)
    right = plain.predict(matrix(rows.validation)) == rows.validation.labels
    assert notes["control"] == pytest.approx(right.mean())


def test_text_prepared_inside_of_a_model_is_refused(
    rows: Any, bring: Bring, conformance: Any, tmp_path: Path
) -> None:
    inner = forest_of_mixed(rows.train, onehot=False)
    teacher = VotingClassifier([("a", inner), ("b", inner)], voting="soft")
    source = bring(teacher.fit(rows.train.frame(), rows.train.labels), rows.train)
    step = config("random_forest")
    words = conformance.check_refusal(TECHNIQUE, step, source, rows, tmp_path)
    assert "VotingClassifier" in words


def test_same_needs_weights(bring: Bring, tmp_path: Path) -> None:
    rows = context(numbers(200, 1), numbers(200, 2), "accuracy")
    teacher = KNeighborsClassifier().fit(matrix(rows.train), rows.train.labels)
    source = bring(teacher, rows.train)
    with pytest.raises(NotApplicable, match="weights of rows"):
        TECHNIQUE.apply(source, tmp_path / "out", config("same"), rows)


def test_labels_only_are_refused(rows: Any, bring: Bring, conformance: Any, tmp_path: Path) -> None:
    plain = context(numbers(200, 1), numbers(200, 2), "accuracy")
    teacher = VotingClassifier([("a", LogisticRegression())], voting="hard")
    source = bring(teacher.fit(matrix(plain.train), plain.train.labels), plain.train)
    step = config("decision_tree")
    assert "labels only" in conformance.check_refusal(TECHNIQUE, step, source, plain, tmp_path)


def test_a_class_without_rows_is_refused(bring: Bring, tmp_path: Path) -> None:
    clean = numbers(500, 1)
    teacher = GradientBoostingClassifier(n_estimators=5).fit(matrix(clean), clean.labels)
    source = bring(teacher, clean)
    only = clean.take(clean.labels == 1)
    with pytest.raises(NotApplicable, match="class 0"):
        TECHNIQUE.apply(
            source, tmp_path / "out", config("mlp"), context(only, numbers(200, 2), "accuracy")
        )


@pytest.mark.parametrize("parameters", [{"max_dept": 3}, {"max_depth": -3}])
def test_wrong_parameters(parameters: dict[str, Any], bring: Bring, tmp_path: Path) -> None:
    rows = context(numbers(200, 1), numbers(200, 2), "accuracy")
    teacher = RandomForestClassifier(5).fit(matrix(rows.train), rows.train.labels)
    source = bring(teacher, rows.train)
    with pytest.raises(InvalidInput, match=r"distill\.student\.parameters"):
        TECHNIQUE.apply(source, tmp_path / "out", config("decision_tree", parameters), rows)


def test_unlabeled_files_are_checked(rows: Any, bring: Bring, tmp_path: Path) -> None:
    info = directory.read(bring(forest_of_mixed(rows.train), rows.train))
    good = rows.train.frame()
    files = {
        "absent": None,
        "column": good.drop(columns="age"),
        "kind": good.assign(income="high"),
        "text": good.assign(town=1.0),
        "damaged": None,
    }
    words = {
        "absent": "missing", "column": "'age'", "kind": "'income'.*text instead of numbers",
        "text": "'town'.*numbers instead of text", "damaged": "cannot be read",
    }  # fmt: skip
    for name, frame in files.items():
        file = tmp_path / f"{name}.parquet"
        if frame is not None:
            frame.to_parquet(file)
        elif name == "damaged":
            file.write_bytes(b"PAR1 and no more")
        with pytest.raises(InvalidInput, match=rf"{name}\.parquet.*{words[name]}"):
            read_unlabeled(file, info, rows.train)
    nowhere = good.assign(town=None)
    nowhere.to_parquet(tmp_path / "gaps.parquet")
    found = read_unlabeled(tmp_path / "gaps.parquet", info, rows.train)
    assert found.features["town"].tolist() == [None] * len(good)


def test_synthetic_rows_look_like_rows() -> None:
    rows = mixed(300, 1)
    made = synthetic(rows, list(rows.features), 500, seed=0)
    assert len(made) == 500
    assert set(made.features["town"]) <= set(rows.features["town"])
    assert made.features["age"].dtype == np.int64
    for name in ("income", "age"):
        low, high = np.nanmin(rows.features[name]), np.nanmax(rows.features[name])
        near = 0.3 * (high - low)
        assert np.nanmin(made.features[name]) > low - near
        assert np.nanmax(made.features[name]) < high + near
    again = synthetic(rows, list(rows.features), 500, seed=0)
    assert again.features["income"].tobytes() == made.features["income"].tobytes()
    one = synthetic(rows, ["income"], 10, seed=0)
    assert set(one.features["age"]) <= set(rows.features["age"])


def test_suggestions(rows: Any, bring: Bring) -> None:
    info = directory.read(bring(forest_of_mixed(rows.train), rows.train))
    small = TECHNIQUE.suggest(info, rows.target, frozenset())
    assert [(s.step["student"]["estimator"], s.usual) for s in small] == [
        ("hist_gradient_boosting", False)
    ]
    files = {name: f.model_copy(update={"size": 9_000_000}) for name, f in info.files.items()}
    large = TECHNIQUE.suggest(info.model_copy(update={"files": files}), rows.target, frozenset())
    assert [s.usual for s in large] == [True]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"student": {"layers": 2, "estimator": "mlp"}}, "one kind"),
        ({"student": {"width": 0.5, "ffn": 0.5}}, "leave out ffn"),
        ({"student": {"layers": [2, 1]}}, "rising order"),
        ({"student": {"parameters": {"a": 1}}}, "name it"),
        ({"student": {"estimator": "mlp"}, "loss": {"hidden": 1}}, "no inside"),
        ({"student": {"estimator": "mlp"}, "epochs": 3}, "no effect"),
        ({"student": {"estimator": "mlp", "start": "teacher"}}, "from nothing"),
        ({"pairs": [["a", "b"]]}, "pairs are for"),
        ({"augment": 5, "loss": {"logits": 0}}, "rows without labels"),
        ({"loss": {"logits": 0, "labels": 0}}, "learn from something"),
        ({"student": {"builder": "no colon"}}, "pattern"),
    ],
)
def test_configs_that_make_no_sense(step: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DistillConfig.model_validate(step)


def test_regression_forest_gets_nearer_to_its_teacher(bring: Bring, tmp_path: Path) -> None:
    """The student follows the teacher's values, and not only the labels."""
    rows = context(numbers(300, 1, task="regression", noise=1.5),
                   numbers(600, 2, task="regression"), "rmse")  # fmt: skip
    clean = numbers(3000, 3, task="regression")
    teacher = RandomForestRegressor(30, random_state=0).fit(matrix(clean), clean.labels)
    source = bring(teacher, clean)
    step = config("random_forest", loss={"labels": 0}, augment=1000)
    info = TECHNIQUE.apply(source, tmp_path / "out", step, rows)
    notes = info.notes["distill"]
    # less is better here: the whole interval lies below 0
    assert notes["added"]["high"] < 0, notes
    assert notes["kept"] == "student"
    known = scores_of(load_trainable(source), directory.read(source), rows.validation)
    learnt = scores_of(load_trainable(tmp_path / "out"), info, rows.validation)
    assert np.corrcoef(known, learnt)[0, 1] > 0.8
