"""What the Kubeflow UI is given, with KFP's own artifact types."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfp import dsl
from sklearn.metrics import roc_auc_score

from trimgate.judge.evaluation import evaluate
from trimgate.judge.predictions import save_predictions
from trimgate.judge.records import Confusion, save
from trimgate.report import verdict_markdown
from trimgate.tasks import log_classification, log_metrics
from trimgate.tasks._kubeflow import MOST_POINTS, roc


def evaluated(folder: Path, labels: Sequence[Any], scores: Any, classes: Sequence[Any]) -> str:
    folder.mkdir()
    record = evaluate(
        labels, scores, classes, name="x", model="m", split="test", data="d", resamples=20,
        task="regression" if not classes else "binary" if len(classes) == 2 else "multiclass",
    )  # fmt: skip
    if classes:
        matrix = np.zeros((len(classes), len(classes)), int)
        for label, row in zip(labels, np.asarray(scores), strict=True):
            matrix[list(classes).index(label), row.argmax()] += 1
        cells = tuple(tuple(row) for row in matrix.tolist())
        confusion = Confusion(labels=tuple(map(str, classes)), matrix=cells)
        record = record.model_copy(update={"confusion": confusion})
    save(record, folder / "evaluation.json")
    save_predictions(folder / "predictions.parquet", labels, np.asarray(scores), classes)
    return str(folder)


def artifact(path: Path) -> dsl.ClassificationMetrics:
    return dsl.ClassificationMetrics(name="classes", uri=str(path))


@pytest.mark.parametrize("classes", [(0, 1), ("a", "b", "c")])
def test_confusion_matrix_and_roc_reach_the_ui(tmp_path: Path, classes: tuple[Any, ...]) -> None:
    generator = np.random.default_rng(0)
    labels = [classes[i] for i in generator.integers(0, len(classes), 200)]
    scores = generator.dirichlet(np.ones(len(classes)), 200)
    out = artifact(tmp_path / "classes")
    log_classification(out, evaluated(tmp_path / "e", labels, scores, classes))
    matrix = out.metadata["confusionMatrix"]
    assert [s["displayName"] for s in matrix["annotationSpecs"]] == [str(c) for c in classes]
    rows = [row["row"] for row in matrix["rows"]]
    assert {len(row) for row in rows} == {len(classes)} == {len(rows)}
    assert sum(map(sum, rows)) == 200
    points = out.metadata["confidenceMetrics"]
    assert 2 < len(points) <= MOST_POINTS
    assert points[0]["recall"] == points[0]["falsePositiveRate"] == 0
    assert points[-1]["recall"] == points[-1]["falsePositiveRate"] == 1
    assert np.isfinite([p["confidenceThreshold"] for p in points]).all()
    assert json.loads((tmp_path / "classes").read_text())["matrix"] == rows


def test_the_file_is_written_where_there_is_nothing_to_draw(tmp_path: Path) -> None:
    refused = tmp_path / "refused"
    refused.mkdir()
    values = evaluated(tmp_path / "values", [1.0, 2.0, 3.0], np.array([1.0, 2.5, 3.0]), ())
    for number, directory in enumerate((str(refused), values)):
        file = tmp_path / f"classes-{number}"
        out = artifact(file)
        log_classification(out, directory)
        assert out.metadata == {}
        assert file.read_text() == "{}\n"  # without it the task would never hit the cache


def test_metrics_keep_their_names_and_their_file(tmp_path: Path) -> None:
    out = dsl.Metrics(name="metrics", uri=str(tmp_path / "metrics"))
    log_metrics(out, {"accuracy": 0.5, "broken": float("nan")})
    assert out.metadata == {"accuracy": 0.5}
    assert json.loads((tmp_path / "metrics").read_text()) == {"accuracy": 0.5}


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=300).filter(
        lambda rows: len({truth for truth, _ in rows}) == 2
    )
)
def test_the_curve_is_the_known_one(rows: list[tuple[bool, int]]) -> None:
    truth, scores = np.array([t for t, _ in rows]), np.array([s / 12 for _, s in rows])
    found = roc(truth, scores)
    assert found is not None
    fpr, tpr, thresholds = found
    assert fpr == sorted(fpr)
    assert tpr == sorted(tpr)
    assert thresholds == sorted(thresholds, reverse=True)
    assert np.trapezoid(tpr, fpr) == pytest.approx(roc_auc_score(truth, scores))
    for x, y, threshold in zip(fpr, tpr, thresholds, strict=True):
        assert y == pytest.approx((scores[truth] >= threshold).mean())
        assert x == pytest.approx((scores[~truth] >= threshold).mean())


def test_one_class_has_no_curve() -> None:
    assert roc(np.array([True, True]), np.array([0.1, 0.2])) is None


def test_a_long_curve_is_thinned_and_keeps_its_area() -> None:
    generator = np.random.default_rng(1)
    truth = generator.random(50_000) < 0.01
    scores = generator.random(50_000) * 0.5 + truth * generator.random(50_000) * 0.5
    found = roc(truth, scores)
    assert found is not None
    assert len(found[0]) <= MOST_POINTS
    assert np.trapezoid(found[1], found[0]) == pytest.approx(roc_auc_score(truth, scores), abs=2e-3)


def test_the_preview_shows_the_verdict() -> None:
    from report.sample_cards import passing, rejected

    for card, word in ((passing(), "Pass"), (rejected(), "Fail")):
        assert card.verdict is not None
        # Kubeflow previews 255 bytes and 20 lines of an artifact
        preview = verdict_markdown(card.verdict).encode()[:255].decode(errors="ignore")
        assert preview.startswith(f"# {word}")
        assert card.verdict.summary[1:40] in preview
