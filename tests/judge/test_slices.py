import numpy as np
import pytest

from trimgate.errors import InvalidInput
from trimgate.judge.evaluation import evaluate
from trimgate.judge.settings import EvaluationSettings, Slicing
from trimgate.judge.slices import MOST_VALUES, slice_rows

DAY = 86_400 * 10**9
START = np.datetime64("2026-01-01", "ns").astype(np.int64)


def names(slices):
    return [part.name for part in slices]


def divide(slicing, columns, scores=None):
    rows = len(next(iter(columns.values()))) if columns else len(scores)
    return slice_rows([Slicing(**slicing)], columns, np.zeros(rows) if scores is None else scores)


def test_values_of_a_column_are_slices_and_missing_ones_too():
    values = np.array(["a", "b", None, "a"], dtype=object)
    slices = divide({"column": "x"}, {"x": values})
    assert names(slices) == ["x = a", "x = b", "x missing"]
    assert slices[0].rows.tolist() == [True, False, False, True]
    flags = divide({"column": "x"}, {"x": np.array([True, False, True])})
    assert [int(part.rows.sum()) for part in flags] == [2, 1]


def test_numbers_are_cut_into_bands_that_hold_every_row_once():
    values = np.append(np.random.default_rng(0).normal(size=1001), np.nan)
    slices = divide({"column": "x", "bands": 5}, {"x": values})
    counts = np.sum([part.rows for part in slices], axis=0)
    assert (counts == 1).all()
    assert len(slices) == 6
    assert max(int(p.rows.sum()) for p in slices[:5]) <= 202


def test_rare_values_are_one_slice_together():
    values = np.array([f"v{i % 30}" for i in range(900)], dtype=object)
    slices = divide({"column": "x"}, {"x": values})
    assert len(slices) == MOST_VALUES + 1
    assert slices[-1].name == "x = 10 other values"
    assert sum(int(part.rows.sum()) for part in slices) == 900


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ("month", ["2026-01", "2026-02", "2026-03"]),
        ("year", ["2026"]),
        (2, ["2026-01-01T00:00:00 to 2026-02-14T12:00:00", "2026-02-14T12:00:00 to 2026-03-31"]),
    ],
)
def test_times_are_cut_into_windows(windows, expected):
    times = START + DAY * np.arange(90, dtype=np.int64)
    text = times.astype("datetime64[ns]").astype("datetime64[s]").astype(str).astype(object)
    for values in (times, text):
        slices = divide({"time": "t", "windows": windows}, {"t": values})
        assert [n.startswith(e) for n, e in zip(names(slices), expected, strict=True)]
        assert sum(int(part.rows.sum()) for part in slices) == 90
        assert {part.kind for part in slices} == {"time_window"}


def test_counters_are_cut_by_rows_and_have_no_months():
    seconds = np.arange(1000, dtype=np.float64)
    assert len(divide({"time": "Time", "windows": 4}, {"Time": seconds})) == 4
    with pytest.raises(InvalidInput, match="no times that a month"):
        divide({"time": "Time", "windows": "month"}, {"Time": seconds})
    with pytest.raises(InvalidInput, match="text that is no time"):
        divide({"time": "t"}, {"t": np.array(["soon"], dtype=object)})
    with pytest.raises(InvalidInput, match="no such column"):
        divide({"column": "gone"}, {"x": seconds})


def test_score_bands_are_those_of_the_baseline():
    scores = np.linspace(0, 1, 101)
    slices = divide({"score_bands": 5}, {}, np.stack([1 - scores, scores], axis=1))
    assert names(slices) == [f"score {k / 5:.4g} to {(k + 1) / 5:.4g}" for k in range(5)]
    assert sum(int(part.rows.sum()) for part in slices) == 101
    assert all(part.column is None for part in slices)


def test_small_slices_and_those_of_one_class_say_why_they_are_not_judged():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [950, 50])
    group = np.array(["big"] * 980 + ["small"] * 20, dtype=object)
    pure = np.array(["a"] * 500 + ["b"] * 500, dtype=object)
    score = rng.random(1000)
    scores = np.stack([1 - score, score], axis=1)
    slices = slice_rows([Slicing(column="g"), Slicing(column="p")], {"g": group, "p": pure}, scores)
    record = evaluate(
        labels, scores, (0, 1), name="b", model="m", split="test", data="d", task="binary",
        primary="average_precision", slices=slices, resamples=100,
    )  # fmt: skip
    reasons = {part.name: part.reason for part in record.slices}
    assert reasons["g = small"] == "20 rows, and 100 are asked for"
    assert reasons["p = a"] == "all 500 rows have one class"
    assert reasons["g = big"] == reasons["p = b"] == ""
    assert record.slices[0].metric.low < record.slices[0].metric.value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operating_point": "cost"}, "needs `costs`"),
        ({"operating_point": {}}, "give one of recall_at_precision"),
        ({"slices": [{"column": "a", "time": "t"}]}, "give one of column"),
        ({"costs": [[0, 1], [1]]}, "as many rows as columns"),
        ({"costs": {"false_positive": -1, "false_negative": 1}}, "greater than or equal to 0"),
        ({"slice": []}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EvaluationSettings.model_validate(settings)
