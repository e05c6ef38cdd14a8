"""What the card says of features."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trimgate.models.directory import ModelInfo
from trimgate.report import CardInput, render_html, render_markdown
from trimgate.report._features import row_pictures, scatter, unused_features

Samples = dict[str, Callable[[], CardInput]]


def picture(groups: int, rows: int = 60) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "method": "t-SNE",
        "x": generator.integers(0, 1001, rows).tolist(),
        "y": generator.integers(0, 1001, rows).tolist(),
        "group": (np.arange(rows) % groups).tolist(),
        "groups": [f"<class {i}>" for i in range(groups)],
        "changed": (np.arange(rows) % 20 == 0).astype(int).tolist(),
    }


def with_notes(card: CardInput, notes: dict[str, Any], unused: tuple[str, ...]) -> CardInput:
    """The card of a winner that no longer looks at these features."""
    base = card.baseline.model_copy(update={"unused_features": ()})
    winner = base.model_copy(update={"unused_features": unused, "notes": notes})
    return card.model_copy(update={"baseline": base, "winner": winner, "lineage": ()})


@pytest.fixture
def passed(samples: Samples) -> CardInput:
    return next(c for c in (make() for make in samples.values()) if c.winner is not None)


def test_unused_features_and_what_they_save(passed: CardInput) -> None:
    names = passed.baseline.features
    costs = dict.fromkeys(names, 1.0) | {names[0]: 70.5}
    notes = {"costs": costs, "cost_before": 100.0, "cost_after": 12.5}
    card = with_notes(passed, {"select_features": notes}, names[:2])
    found = unused_features(card)
    assert found is not None
    assert found["names"] == list(names[:2])
    assert [f["cost"] for f in found["features"]] == ["70.5", "1.00"]
    for text in (render_html(card), render_markdown(card)):
        assert "12.5 in place of 100" in text.replace("\u202f", " ")
        assert "is saved" in text
        assert names[0] in text
        assert "leave them out" in text
    plain = unused_features(with_notes(passed, {"select_features": {}}, names[:2]))
    assert plain is not None
    assert "saved" not in plain["lead"]


@pytest.mark.parametrize("groups", [2, 4, 10, 30])
def test_rows_are_drawn_by_group(groups: int) -> None:
    svg = ET.fromstring(scatter(picture(groups), "label"))
    drawn = [e for e in svg if str(e.get("class")).startswith("g")]
    assert len(drawn) == 60 + min(groups, 12)
    assert len([e for e in svg if e.get("class") == "changed"]) == 3
    texts = [e.text for e in svg if e.tag == "text"]
    assert texts[0] == "<class 0>"
    marks = {(e.tag, e.get("class"), len(str(e.get("points")).split())) for e in drawn}
    assert len(marks) >= min(groups, 12), "each group has a look of its own"


def test_the_picture_is_in_the_card(passed: CardInput) -> None:
    notes = {"select_features": {"picture": picture(2)}, "reduce_dimensions": {"picture": None}}
    card = with_notes(passed, notes, ())
    assert [p["identifier"] for p in row_pictures(card)] == ["rows-select_features"]
    html = render_html(card)
    assert "Rows by the features that are kept" in html
    assert "&lt;class 0&gt;" in html
    assert "3 of 60 rows" in html
    assert isinstance(card.winner, ModelInfo)
    assert "Rows by the" not in render_html(with_notes(passed, {}, ()))
