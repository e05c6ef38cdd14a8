"""Which answers changed, and the example rows that are shown when the config asks for them."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.judge.evaluation import evaluate
from trimgate.judge.predictions import Predictions
from trimgate.report import CardInput, pick_examples, render_html
from trimgate.report._flips import flips_view

Samples = dict[str, Callable[[], CardInput]]


def predictions(labels: list[int], positive: list[float]) -> Predictions:
    scores = np.column_stack([1 - np.array(positive), positive])
    return Predictions(
        rows=np.arange(len(labels)),
        labels=np.array(labels),
        scores=scores,
        predicted=scores.argmax(axis=1),
        classes=(0, 1),
    )


LABELS = [1, 1, 0, 0, 1, 0]
BEFORE = predictions(LABELS, [0.9, 0.6, 0.8, 0.1, 0.4, 0.2])
AFTER = predictions(LABELS, [0.1, 0.4, 0.3, 0.1, 0.7, 0.9])
ROWS = Dataset(
    {
        "amount": np.array([1.0, 2.5, np.nan, 4.0, 5.0, 6.0]),
        "name": np.array(["a", None, "<script>", "d" * 900, "e", "f"], dtype=object),
        "secret": np.arange(6),
    },
    np.array(LABELS),
)


def test_lost_rows_come_first_and_those_that_moved_most_before_others() -> None:
    found = pick_examples(BEFORE, AFTER, ROWS, 10)
    assert [(e.row, e.effect) for e in found.rows] == [
        (0, "lost"), (5, "lost"), (1, "lost"), (2, "won"), (4, "won"),
    ]  # fmt: skip
    first = found.rows[0]
    assert (first.label, first.baseline, first.winner) == ("1", "1", "0")
    assert (first.baseline_score, first.winner_score) == pytest.approx((0.9, 0.1))
    assert [e.row for e in pick_examples(BEFORE, AFTER, ROWS, 2).rows] == [0, 5]


def test_hidden_columns_are_nowhere_in_the_record() -> None:
    found = pick_examples(BEFORE, AFTER, ROWS, 10, hide=["secret", "name"])
    assert found.columns == ("amount",)
    assert found.left_out == 2
    assert [e.values for e in found.rows] == [("1",), ("6",), ("2.5",), ("missing",), ("5",)]
    assert "script" not in found.model_dump_json()


def test_long_and_wide_rows_are_cut() -> None:
    wide = Dataset({f"c{i}": np.array(["x" * 900] * 6) for i in range(40)}, np.array(LABELS))
    found = pick_examples(BEFORE, AFTER, wide, 1)
    assert len(found.columns) == 12
    assert found.left_out == 28
    assert max(map(len, found.rows[0].values)) == 240


def test_arrays_are_told_by_their_shape() -> None:
    images = Dataset({"image": np.full((6, 4, 5), 3, np.uint8)}, np.array(LABELS))
    assert pick_examples(BEFORE, AFTER, images, 1).rows[0].values == ("4 × 5 array, mean 3",)


def test_values_that_moved_away_are_lost() -> None:
    labels = np.array([10.0, 10.0, 10.0])

    def values(scores: list[float]) -> Predictions:
        s = np.array(scores)
        return Predictions(np.arange(3), labels, s, s, ())

    rows = Dataset({"x": np.arange(3.0)}, labels)
    found = pick_examples(values([10.0, 12.0, 8.0]), values([11.0, 10.5, 8.0]), rows, 9)
    assert [(e.row, e.effect) for e in found.rows] == [(0, "lost"), (1, "won")]
    assert found.rows[0].baseline_score is None


def test_predictions_of_other_rows_are_refused() -> None:
    with pytest.raises(InvalidInput, match="do not fit the 5 test rows"):
        pick_examples(BEFORE, AFTER, ROWS.take(slice(0, 5)), 3)


def test_examples_of_a_large_split_are_those_of_the_whole(tmp_path: Path) -> None:
    """The predictions come in batches; only the rows that are shown are read."""
    from trimgate.judge.predictions import load_predictions, save_predictions
    from trimgate.tasks._judging import _examples

    count, pick = 140_000, np.random.default_rng(0)
    labels = pick.integers(0, 2, count)
    rows = Dataset({"place": np.arange(count)}, labels)
    rows.save(tmp_path / "rows")
    before = np.clip(labels * 0.6 + 0.2 + pick.normal(0, 0.2, count), 0, 1).round(2)
    after = np.clip(before + pick.normal(0, 0.05, count), 0, 1).round(2)
    for name, positive in (("before", before), ("after", after)):
        (tmp_path / name).mkdir()
        scores = np.column_stack([1 - positive, positive])
        save_predictions(tmp_path / name / "predictions.parquet", labels, scores, (0, 1))
    folders = [str(tmp_path / name) for name in ("before", "after", "rows")]
    found = _examples(*folders, 20, ())
    files = [tmp_path / name / "predictions.parquet" for name in ("before", "after")]
    assert found == pick_examples(*map(load_predictions, files), rows, 20)
    assert {int(e.values[0]) for e in found.rows} == {e.row for e in found.rows}
    assert max(e.row for e in found.rows) > 65_536
    rows.take(slice(0, 9)).save(tmp_path / "few")
    with pytest.raises(InvalidInput, match="do not fit the 9 test rows"):
        _examples(*folders[:2], str(tmp_path / "few"), 20, ())


def test_the_table_of_flips_adds_up(samples: Samples) -> None:
    judged = evaluate(
        LABELS * 50, np.tile(AFTER.scores, (50, 1)), (0, 1), name="w", model="m", split="test",
        data="d", task="binary", baseline_scores=np.tile(BEFORE.scores, (50, 1)),
    )  # fmt: skip
    card = samples["passing"]().model_copy(update={"winner_test": judged})
    found = flips_view(card)
    assert found is not None
    numbers = [int(cell.split(" (")[0]) for row in found["cells"] for cell in row]
    assert numbers == [50, 150, 100, 0]
    html = render_html(card)
    cells = re.search('<table class="flips">.*?</table>', html, re.DOTALL)
    assert cells is not None
    assert re.findall(r'class="num[^"]*">(\d+) ', cells.group()) == ["50", "150", "100", "0"]


def test_no_rows_are_shown_unless_asked_for(samples: Samples) -> None:
    assert "Example rows" not in render_html(samples["passing"]())
    html = render_html(samples["full"]())
    assert "because the config asks for them" in html
    assert "<script>alert(4)" not in html
    assert "&lt;script&gt;alert(4)&lt;/script&gt;" in html
    assert "&lt;b&gt;note&lt;/b&gt;" in html
    assert "27 columns are not shown" in html


def test_no_flip_is_said_so(samples: Samples) -> None:
    card = samples["full"]()
    assert card.examples is not None
    none = card.examples.model_copy(update={"rows": ()})
    assert "No answer changed" in render_html(card.model_copy(update={"examples": none}))


def test_records_that_contradict_each_other_show_no_table(samples: Samples) -> None:
    card = samples["full"]()
    assert card.winner_test is not None
    assert card.winner_test.flips is not None
    flips = card.winner_test.flips.model_copy(update={"won": card.winner_test.rows})
    test = card.winner_test.model_copy(update={"flips": flips})
    found = flips_view(card.model_copy(update={"winner_test": test}))
    assert found is not None
    assert found["cells"] == []
