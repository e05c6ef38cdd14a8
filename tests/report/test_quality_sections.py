"""Slices, confusion, curves and calibration: their numbers are those of the records."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from trimgate.judge.records import Confusion, Interval, Slice
from trimgate.report import CardInput, render_html
from trimgate.report._calibration import calibration_view
from trimgate.report._confusion import confusion_view
from trimgate.report._curves import curves_view
from trimgate.report._slices import slices_view

Samples = dict[str, Callable[[], CardInput]]


def view(found: dict[str, Any] | None) -> dict[str, Any]:
    assert found is not None
    return found


def marks(picture: str, kind: str) -> list[ET.Element]:
    svg = ET.fromstring(picture)
    return [g for g in svg.iter("g") if str(g.get("class")).startswith(kind)]


def test_each_slice_is_called_by_what_its_intervals_show(samples: Samples) -> None:
    found = view(slices_view(samples["full"]()))
    outcomes = {row["name"]: row["outcome"] for row in found["rows"]}
    assert outcomes["Amount 50 and more"] == "pass"
    # its own interval is beyond the margin, the corrected one is not: no proof of a broken slice
    assert outcomes["score 0.8 to 1.0"] == "inconclusive"
    assert outcomes["<i>2026-04</i>"] == "unjudged"
    assert found["margin"].replace("\u202f", " ") == "−3.00 pt"
    assert found["judged"] == "6"


@pytest.mark.parametrize(
    ("change", "half", "outcome"),
    [
        (-0.1, 0.02, "fail"),
        (-0.02, 0.005, "pass"),
        (0.1, 0.02, "pass"),
        (-0.03, 0.02, "inconclusive"),
    ],
)
@pytest.mark.parametrize("higher", [True, False])
def test_outcomes_of_slices(
    samples: Samples, change: float, half: float, outcome: str, higher: bool
) -> None:
    card = samples["full"]()
    assert card.winner_test is not None
    sign = 1 if higher else -1
    ends = sorted((sign * (change - half), sign * (change + half)))
    difference = Interval(value=sign * change, low=ends[0], high=ends[1])
    found = Slice(
        name="s", kind="column", column="c", rows=500, difference=difference,
        simultaneous=difference, metric=difference,
    )  # fmt: skip
    metric = card.winner_test.metrics["average_precision"]
    metrics = {"average_precision": metric.model_copy(update={"higher_is_better": higher})}
    test = card.winner_test.model_copy(update={"slices": (found,), "metrics": metrics})
    shown = view(slices_view(card.model_copy(update={"winner_test": test})))
    assert shown["rows"][0]["outcome"] == outcome
    assert len(marks(shown["picture"], f"slice {outcome}")) == 1


def test_the_forest_plot_holds_every_judged_slice_on_one_axis(samples: Samples) -> None:
    picture = view(slices_view(samples["full"]()))["picture"]
    drawn = marks(picture, "slice ")
    assert len(drawn) == 6
    svg = ET.fromstring(picture)
    limit = next(e for e in svg.iter("line") if e.get("class") == "limit")
    zero = next(e for e in svg.iter("line") if e.get("class") == "same")
    scale = (float(str(zero.get("x1"))) - float(str(limit.get("x1")))) / 3.0  # pixels a point
    for group, (value, half) in zip(drawn, ((0.2, 0.4), (-0.2, 0.6), (-0.3, 1.2)), strict=False):
        own = next(e for e in group.iter("line") if e.get("class") == "own")
        corrected = next(e for e in group.iter("line") if e.get("class") == "corrected")
        left, right = (float(str(own.get(k))) for k in ("x1", "x2"))
        assert right - left == pytest.approx(2 * half * scale, abs=0.3)
        middle = (left + right) / 2 - float(str(zero.get("x1")))
        assert middle == pytest.approx(value * scale, abs=0.3)
        width = float(str(corrected.get("x2"))) - float(str(corrected.get("x1")))
        assert width == pytest.approx(1.7 * (right - left), abs=0.5)


def test_hundreds_of_slices_are_cut_to_the_worst(samples: Samples) -> None:
    found = view(slices_view(samples["fifty"]()))
    assert len(marks(found["picture"], "slice ")) == 60
    assert found["undrawn"] == "440"
    assert found["unlisted"] == "100"
    assert "<column" not in found["picture"]


def test_the_matrices_and_their_difference(samples: Samples) -> None:
    card = samples["full"]()
    found = view(confusion_view(card))
    texts = [[c["text"] for row in t["rows"] for c in row["cells"]] for t in found["tables"]]
    plain = [[text.replace("\u202f", "") for text in table] for table in texts]
    assert plain == [
        ["56600", "20", "28", "98"], ["56603", "17", "30", "96"], ["+3", "−3", "+2", "−2"],
    ]  # fmt: skip
    kinds = [c["kind"] for row in found["tables"][2]["rows"] for c in row["cells"]]
    assert kinds == ["better", "better", "worse", "worse"]
    assert "at 0.410" in found["thresholds"]


def test_fifty_classes_are_a_picture_and_a_list(samples: Samples) -> None:
    card = samples["fifty"]()
    found = view(confusion_view(card))
    assert found["tables"] == []
    assert len(found["pictures"]) == 2
    assert len(found["changes"]) == 20
    html = render_html(card)
    assert len(html.encode()) < 1_000_000
    assert "class <" not in html


def test_matrices_of_other_classes_have_no_difference(samples: Samples) -> None:
    card = samples["full"]()
    assert card.baseline_test is not None
    other = Confusion(labels=("0", "1", "2"), matrix=((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    update = {"baseline_test": card.baseline_test.model_copy(update={"confusion": other})}
    found = view(confusion_view(card.model_copy(update=update)))
    assert [t["name"] for t in found["tables"]] == ["Baseline", "Winner"]


def test_an_empty_class_has_no_share(samples: Samples) -> None:
    card = samples["full"]()
    assert card.winner_test is not None
    empty = Confusion(labels=("0", "1"), matrix=((5, 0), (0, 0)))
    update = {"winner_test": card.winner_test.model_copy(update={"confusion": empty})}
    html = render_html(card.model_copy(update=update))
    assert "nan" not in html.lower().split()


def test_both_models_and_their_operating_points_are_on_the_curves(samples: Samples) -> None:
    found = view(curves_view(samples["full"]()))
    assert [plot["title"] for plot in found["plots"]] == ["ROC", "Precision and recall"]
    for plot in found["plots"]:
        for kind in ("baseline", "winner"):
            assert len(marks(plot["picture"], f"series {kind} operating")) == 1
    baseline, winner = found["points"]
    assert baseline["recall"].replace("\u202f", "") == "77.8%"
    assert winner["precision"].replace("\u202f", "") == "85.0%"
    assert winner["rate"].replace("\u202f", "") == "0.0300%"  # 17 of 56 620
    svg = ET.fromstring(found["plots"][1]["picture"])
    mark = next(iter(marks(found["plots"][1]["picture"], "series winner operating")))[1]
    frame = [float(str(e.get("x1"))) for e in svg.iter("line") if e.get("class") == "grid"]
    left, right = min(frame), max(frame)
    assert float(str(mark.get("cx"))) == pytest.approx(left + 96 / 126 * (right - left), abs=0.2)


def test_the_diagram_marks_each_bin_of_both_models(samples: Samples) -> None:
    found = view(calibration_view(samples["full"]()))
    for kind in ("baseline", "winner"):
        squares = [
            g for g in marks(found["picture"], f"series {kind}") if g.find("title") is not None
        ]
        assert len(squares) == 10
    assert [m["name"] for m in found["models"]] == ["Baseline", "Winner"]
    assert str(found["models"][1]["ece"]) == "0.0133 [0.0113, 0.0153]"
    assert len(found["bins"]) == 10
    first = found["bins"][0]["cells"][0]
    assert "50\u202f000 rows" in first.interval


@pytest.mark.parametrize("name", ["passing", "rejected", "extreme", "baseline_kept", "image"])
def test_what_a_record_does_not_hold_is_left_out(samples: Samples, name: str) -> None:
    html = render_html(samples[name]())
    for title in ("Slices of", "Which classes", "Ranking of", "Calibration", "Distribution of"):
        assert f">{title}" not in html
    for title in ("Latency under load", "Throughput", "Energy", "Cost"):
        assert f">{title}</h2>" not in html


def test_labels_that_are_markup_stay_text(samples: Samples) -> None:
    card = samples["full"]()
    assert card.winner_test is not None
    assert card.baseline_test is not None
    bad = Confusion(labels=("<script>x</script>", "b"), matrix=((1, 2), (3, 4)))
    update = {
        key: record.model_copy(update={"confusion": bad})
        for key, record in (
            ("winner_test", card.winner_test),
            ("baseline_test", card.baseline_test),
        )
    }
    html = render_html(card.model_copy(update=update))
    assert "<script>x" not in html
    assert len(re.findall("&lt;script&gt;x", html)) >= 6
    assert "<i>2026" not in html
