"""Parts of training rows, proof against a reference, and rows as a picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo
from trimgate.training import PICTURE_ROWS, Proof, encoded, folds, picture, picture_rows

INFO = ModelInfo(
    name="m", task="binary", family="linear", framework="sklearn", inputs=(), labels=("no", "yes")
)


def rows(count: int, positives: int) -> Dataset:
    labels = np.array(["yes"] * positives + ["no"] * (count - positives), dtype=object)
    return Dataset({"row": np.arange(count)}, labels)


@given(st.integers(20, 300), st.integers(1, 10), st.integers(2, 8), st.integers(0, 99))
def test_each_row_is_held_out_once(count: int, positives: int, number: int, seed: int) -> None:
    data = rows(count, positives)
    pairs = folds(data, number, seed)
    if positives < 2 * number or count - positives < 2 * number:
        assert pairs == [(data, data)]
        return
    held = np.concatenate([part.features["row"] for _, part in pairs])
    assert sorted(held) == list(range(count))
    for rest, part in pairs:
        assert len(rest) + len(part) == count
        assert not set(rest.features["row"]) & set(part.features["row"])
        expected = positives / number
        assert abs((part.labels == "yes").sum() - expected) < 1
        assert set(rest.labels) == {"no", "yes"}


def scores(positive: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - positive, positive])


def test_proof_asks_for_more_than_the_plain_difference() -> None:
    generator = np.random.default_rng(0)

    def judged(count: int, confidence: float | None) -> tuple[float, float, bool]:
        data = rows(count, count // 2)
        truth = (data.labels == "yes").astype(float)
        good = generator.normal(size=count) + 2 * truth
        worse = 1 / (1 + np.exp(-(good + 0.15 * generator.normal(size=count))))
        reference = scores(1 / (1 + np.exp(-good)))
        proof = Proof(INFO, data, reference, "roc_auc", 0.01, confidence, 0)
        value, worst, ok = proof(scores(worse))
        return value - proof.reference_value, worst - proof.reference_value, ok

    value, worst, ok = judged(60, None)
    assert value == worst
    value, worst, ok = judged(60, 0.9)
    assert worst < value
    assert not ok
    few, many = judged(60, 0.9), judged(20_000, 0.9)
    assert few[0] - few[1] > 5 * (many[0] - many[1])
    assert many[2]
    sure = judged(500, 0.99)
    assert sure[0] - sure[1] > 0
    assert "60 validation rows" in Proof(
        INFO, rows(60, 30), scores(np.linspace(0, 1, 60)), "roc_auc", 0.01, 0.9, 0
    ).failure("with fewer features")


def test_the_same_scores_are_judged_as_the_reference() -> None:
    data = rows(5_000, 900)
    same = scores(np.random.default_rng(0).uniform(size=5_000))
    found = Proof(INFO, data, same, "accuracy", 0.001, 0.9, 0)(same)
    assert found.good
    assert found.worst <= found.value


def test_encoded_tables_are_standardized() -> None:
    text = np.array(["a", "b", None, "a"] * 10, dtype=object)
    gaps = np.array([1.0, np.nan, 3.0, np.inf] * 10)
    table = Dataset({"text": text, "gaps": gaps, "same": np.ones(40)}, np.zeros(40))
    matrix, owners = encoded(table, ["text", "gaps", "same"])
    assert owners.tolist() == [0, 0, 0, 1, 2]
    np.testing.assert_allclose(matrix.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(matrix[:, :4].std(axis=0), 1)
    assert not matrix[:, 4].any()


def test_a_picture_keeps_neighbours_together() -> None:
    generator = np.random.default_rng(0)
    data = rows(90, 45)
    matrix = generator.normal(size=(90, 5)) + 12.0 * (data.labels == "yes")[:, None]
    before = scores((data.labels == "yes") * 0.8 + 0.1)
    after = before.copy()
    after[:3] = after[:3, ::-1]
    found = picture(matrix, INFO, data.labels, before, after, 0)
    assert found == picture(matrix, INFO, data.labels, before, after, 0)
    assert found["changed"] == [1] * 3 + [0] * 87
    places = np.column_stack([found["x"], found["y"]])
    group = np.array(found["group"])
    centres = [places[group == i].mean(axis=0) for i in (0, 1)]
    spread = max(places[group == i].std() for i in (0, 1))
    assert np.linalg.norm(centres[0] - centres[1]) > spread
    with pytest.raises(NotApplicable, match="8 validation rows"):
        picture(matrix[:5], INFO, data.labels[:5], before[:5], after[:5], 0)
    assert len(picture_rows(10_000, 0)) == PICTURE_ROWS
    assert picture_rows(3, 0).tolist() == [0, 1, 2]
