"""What select_features leaves can be served from ONNX with the original row."""

from pathlib import Path
from typing import Any

import onnx
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from trimgate.models import directory, export_onnx, load_trainable
from trimgate.techniques import Context
from trimgate.techniques.select_features import TECHNIQUE, SelectFeaturesConfig


def exported(source: Path, keep: int, context: Context, tmp_path: Path) -> dict[str, Any]:
    """Applies the step and exports; the export itself compares the scores."""
    config = SelectFeaturesConfig(keep=keep)
    info = TECHNIQUE.apply(source, tmp_path / "selected", config, context)
    model = load_trainable(tmp_path / "selected", info)
    changes = export_onnx(model, info, context.validation, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    parent = directory.read(source)
    assert [tensor.name for tensor in graph.input] == [spec.name for spec in parent.inputs]
    assert [s.features for s in changes["inputs"]] == [s.features for s in parent.inputs]
    assert changes["notes"]["optimize_graph"]["parity"]["agreement"] == 1.0
    return changes


def test_matrix_keeps_its_width(cancer: Context, bring: Any, matrix: Any, tmp_path: Path) -> None:
    for model in (
        GradientBoostingClassifier(n_estimators=10, random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ):
        folder = tmp_path / type(model).__name__
        folder.mkdir()
        source = bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)
        changes = exported(source, 4, cancer, folder)
        assert changes["inputs"][0].shape == (-1, 30)
        source.rename(folder / "source")


def test_strings_that_are_not_looked_at_are_still_taken(
    mixed: Context, bring: Any, tmp_path: Path
) -> None:
    model = make_pipeline(
        ColumnTransformer(
            [
                ("text", OneHotEncoder(handle_unknown="ignore"), ["city", "noise_text"]),
                (
                    "numbers",
                    make_pipeline(SimpleImputer(), StandardScaler()),
                    ["noise_1", "age", "signal", "noise_2"],
                ),
            ]
        ),
        LogisticRegression(),
    )
    source = bring(model.fit(mixed.train.frame(), mixed.train.labels), mixed.train)
    changes = exported(source, 3, mixed, tmp_path)
    assert len(changes["inputs"]) == 6
