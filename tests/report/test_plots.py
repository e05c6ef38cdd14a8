"""The pictures: well-formed, escaped, and in the right places."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimgate.judge.records import Interval
from trimgate.report._format import Cell
from trimgate.report._pareto import _Labels
from trimgate.report._svg import Box, linear_ticks, log_ticks, shorten, tick_texts
from trimgate.report.plots import LatencyRow, ParetoPoint, forest, front, latency_bars, pareto


def point(name: str, speed: float, quality: float, kind: str = "other") -> ParetoPoint:
    around = Interval(value=quality, low=quality - 0.3, high=quality + 0.3)
    fast = Interval(value=speed, low=speed * 0.97, high=speed * 1.03)
    return ParetoPoint(name, fast, around, kind)  # type: ignore[arg-type]


BASELINE = point("baseline", 1.0, 0.0, "baseline")


def draw(points: list[ParetoPoint], *, higher: bool = True) -> ET.Element:
    svg = pareto(points, x_label="Speed-up", y_label="Accuracy", higher_is_better=higher)
    return ET.fromstring(svg)


def groups(svg: ET.Element) -> dict[str, ET.Element]:
    return {g.findtext("title", ""): g for g in svg.iter("g")}


def test_front_is_what_nothing_beats() -> None:
    points = [BASELINE, point("a", 2, 0.1), point("b", 3, -0.1), point("c", 2.5, -0.4)]
    assert [p.label for p in front(points)] == ["a", "b"]
    lower = front(points, higher_is_better=False)
    assert [p.label for p in lower] == ["c", "b"]


def test_better_is_up_and_faster_is_right() -> None:
    marks = groups(draw([BASELINE, point("good", 2, 0.5), point("bad", 3, -0.5)]))
    x = {n: float(g.find("circle").get("cx")) for n, g in marks.items() if n != "baseline"}  # type: ignore[union-attr, arg-type]
    y = {n: float(g.find("circle").get("cy")) for n, g in marks.items() if n != "baseline"}  # type: ignore[union-attr, arg-type]
    assert x["good"] < x["bad"]
    assert y["good"] < y["bad"]  # SVG runs downwards


def test_an_error_metric_runs_downwards() -> None:
    marks = groups(draw([BASELINE, point("low", 2, -50), point("high", 3, 50)], higher=False))
    assert float(marks["low"].find("circle").get("cy")) < float(  # type: ignore[union-attr, arg-type]
        marks["high"].find("circle").get("cy")  # type: ignore[union-attr, arg-type]
    )


def test_the_axis_is_logarithmic_from_a_factor_of_five() -> None:
    assert "logarithmic" not in ET.tostring(draw([BASELINE, point("a", 4.9, 0)]), "unicode")
    assert "logarithmic" in ET.tostring(draw([BASELINE, point("a", 5.1, 0)]), "unicode")


def test_a_collapsed_candidate_does_not_flatten_the_rest() -> None:
    svg = draw([BASELINE, point("a", 2, 0.2), point("b", 3, -0.4), point("broken", 0.5, -41.6)])
    text = [t.text for t in svg.iter("text")]
    assert "broken (−41.6)" in text
    assert groups(svg)["broken"].find("polygon") is not None
    near = [float(groups(svg)[n].find("circle").get("cy")) for n in ("a", "b")]  # type: ignore[union-attr, arg-type]
    assert near[1] - near[0] > 40


def test_nothing_to_draw_is_empty() -> None:
    assert pareto([], x_label="x", y_label="y") == ""
    assert (
        forest(None, 1.0, "fail", allowed=None, neutral=None, shown=Cell("–"), shown_limit="1")
        == ""
    )


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(0.01, 2000), st.floats(-60, 60), st.text(max_size=60)),
        min_size=1,
        max_size=14,
    )
)
def test_any_points_stay_inside_the_picture(rows: list[tuple[float, float, str]]) -> None:
    printable = [(s, q, re.sub("[\x00-\x1f\x7f-\x9f\ufffe\uffff]", "", n)) for s, q, n in rows]
    svg = draw([BASELINE, *(point(n, s, q) for s, q, n in printable)])
    width, height = map(float, svg.get("viewBox", "").split()[2:])
    for text in svg.iter("text"):
        assert 0 <= float(text.get("x", "-1")) <= width
        assert 0 <= float(text.get("y", "-1")) <= height
    for circle in svg.iter("circle"):
        assert 0 <= float(circle.get("cx", "-1")) <= width
        assert 0 <= float(circle.get("cy", "-1")) <= height


def test_labels_at_one_spot_do_not_overlap() -> None:
    labels = _Labels(Box(0, 0, 900, 400))
    boxes = [labels.place(450, 200, f"recipe number {i}")[0] for i in range(10)]
    overlaps = [a.overlap(b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert max(overlaps) == 0


def test_forest_shades_the_refused_side_and_marks_by_shape() -> None:
    observed = Interval(value=-0.02, low=-0.03, high=-0.01)
    marks = {}
    for outcome, tag in (("pass", "circle"), ("fail", "rect"), ("inconclusive", "polygon")):
        svg = ET.fromstring(
            forest(
                observed,
                -0.015,
                outcome,  # type: ignore[arg-type]
                allowed="above",
                neutral=0.0,
                shown=Cell("−2.0 pt", "[−3.0, −1.0]"),
                shown_limit="−1.5 pt",
            )
        )
        marks[outcome] = [e for e in svg.iter(tag) if "mark" in e.get("class", "")]
        assert outcome in svg.get("aria-label", "")
        shade = next(e for e in svg.iter("rect") if e.get("class") == "refused")
        limit = next(e for e in svg.iter("line") if e.get("class") == "limit")
        assert float(shade.get("x", "-1")) == 0
        assert float(shade.get("width", "0")) == pytest.approx(float(limit.get("x1", "0")), abs=0.2)
    assert all(len(found) == 1 for found in marks.values())


def test_bars_are_to_scale_and_tell_all_percentiles() -> None:
    rows = [LatencyRow("Baseline", "baseline", 2e-3), LatencyRow("W<", "winner", 1e-3, 2e-3, 4e-3)]
    text = latency_bars(rows, "Latency")
    svg = ET.fromstring(text)
    widths = [float(r.get("width", "0")) for r in svg.iter("rect")]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.01)
    assert "p99 4.00" in svg.get("aria-label", "")
    assert "<W<" not in text


def test_ticks_are_round_and_inside() -> None:
    assert linear_ticks(-0.7, 0.6) == pytest.approx([-0.5, 0, 0.5])
    assert log_ticks(0.5, 30) == pytest.approx([0.5, 1, 2, 5, 10, 20])
    assert tick_texts([0.5, 1.0], "×") == ["0.5×", "1.0×"]
    assert tick_texts([-1, 0, 1], plus=True) == ["−1", "0", "+1"]


def test_long_names_keep_both_ends() -> None:
    short = shorten("prune channels 50 % → static INT8 → OpenVINO with options", 30)
    assert len(short) == 30
    assert short.startswith("prune channels")
    assert short.endswith("options")
