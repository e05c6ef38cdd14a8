"""What predictions cost: the table, and what the slider is given."""

import re
from collections.abc import Callable

import pytest

from trimgate.report import CardInput, leaderboard_rows, render_html
from trimgate.report._cost import cost_view, money

Samples = dict[str, Callable[[], CardInput]]


def test_the_table_holds_the_record_s_cost_at_any_traffic(samples: Samples) -> None:
    card = samples["full"]()
    assert card.benchmark is not None
    cost, view = card.benchmark.cost, cost_view(card)
    assert cost is not None
    assert view is not None
    html = render_html(card)
    for row, traffic in zip(view["rows"], (1e6, 1e7, 1e8, 1e9, 1e10, 1e11), strict=True):
        saving = (cost.baseline - cost.candidate) * traffic / 1e6
        assert row["saving"] == money(saving)
        assert row["year"] == money(12 * saving)
        assert f">{row['saving']}<small>{row['interval']}" in html
    assert float(view["baseline"]) == cost.baseline
    low = cost.baseline * (1 - 1 / cost.ratio.low)
    assert view["rows"][0]["interval"].startswith(f"[{money(low)}, ")


def test_whole_machines_are_named_when_there_is_a_traffic(samples: Samples) -> None:
    html = render_html(samples["full"]()).replace("\u202f", " ")
    assert "For 250 predictions a second" in html
    assert "60 % is planned with: 116.80 → 58.40 USD a month" in html


def test_the_slider_is_hidden_until_a_script_shows_it(samples: Samples) -> None:
    html = render_html(samples["full"]())
    box = re.search('<div class="panel" id="cost-slider"[^>]*>', html)
    assert box is not None
    assert " hidden " in box.group()
    assert '<input type="range"' in html


def test_the_leaderboard_and_the_headline_name_the_cost(samples: Samples) -> None:
    card = samples["full"]()
    rows = leaderboard_rows(card.selection, card.candidates, card.baseline_validation)
    assert {row.name: row.cost for row in rows if row.cost} == {
        "prune trees → ONNX": "0.0222", "baseline": "0.0668",
    }  # fmt: skip
    assert "Cost of a million predictions" in render_html(card)


@pytest.mark.parametrize("name", ["passing", "baseline_kept", "refused_only"])
def test_without_a_price_or_a_winner_there_is_no_cost(samples: Samples, name: str) -> None:
    html = render_html(samples[name]())
    assert ">Cost</h2>" not in html
    assert "<script" not in html


def test_a_void_timing_has_no_cost(samples: Samples) -> None:
    card = samples["full"]()
    assert card.benchmark is not None
    void = card.benchmark.batches[0].model_copy(update={"state": "void"})
    benchmark = card.benchmark.model_copy(update={"batches": (void,)})
    assert cost_view(card.model_copy(update={"benchmark": benchmark})) is None


def test_a_dearer_winner_saves_less_than_nothing(samples: Samples) -> None:
    card = samples["full"]()
    assert card.benchmark is not None
    assert card.benchmark.cost is not None
    cost = card.benchmark.cost.model_copy(update={"candidate": 0.5})
    benchmark = card.benchmark.model_copy(update={"cost": cost})
    view = cost_view(card.model_copy(update={"benchmark": benchmark}))
    assert view is not None
    assert not view["saves"]
    assert view["start"]["saving"].startswith("−")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0668, "0.0668"), (1.5, "1.50"), (54.331, "54.33"), (12345.6, "12\u202f346"), (0.0, "0.00")],
)
def test_money(value: float, text: str) -> None:
    assert money(value) == text
