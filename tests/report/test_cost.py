"""What predictions cost: the table, and what the slider is given."""

import re
from collections.abc import Callable

import pytest

from trimgate.report import CardInput, render_html
from trimgate.report._cost import cost_view, costs, money

Samples = dict[str, Callable[[], CardInput]]


def test_cost_is_cpu_time_at_the_target_s_price(samples: Samples) -> None:
    card = samples["full"]()
    found = costs(card)
    assert found is not None
    assert card.benchmark is not None
    first = card.benchmark.batches[0]
    assert found.baseline == pytest.approx(1e6 * first.baseline.cpu * 0.08 / 3600)
    assert found.winner == pytest.approx(1e6 * first.candidate.cpu * 0.08 / 3600)


def test_the_table_holds_the_same_numbers_at_any_traffic(samples: Samples) -> None:
    card = samples["full"]()
    found, view = costs(card), cost_view(card)
    assert found is not None
    assert view is not None
    for row, traffic in zip(view["rows"], (1e5, 1e6, 1e7, 1e8, 1e9), strict=True):
        saving = (found.baseline - found.winner) * traffic / 1e6
        assert row["saving"] == money(saving)
        assert row["year"] == money(12 * saving)
        assert row["saving"] in render_html(card)
    assert float(view["baseline"]) == found.baseline


def test_the_slider_is_hidden_until_a_script_shows_it(samples: Samples) -> None:
    html = render_html(samples["full"]())
    box = re.search('<div class="panel" id="cost-slider"[^>]*>', html)
    assert box is not None
    assert " hidden " in box.group()
    assert '<input type="range"' in html


@pytest.mark.parametrize("name", ["passing", "baseline_kept", "refused_only"])
def test_without_a_price_or_a_winner_there_is_no_cost(samples: Samples, name: str) -> None:
    html = render_html(samples[name]())
    assert ">Cost</h2>" not in html
    assert "<script" not in html


def test_a_void_timing_has_no_cost(samples: Samples) -> None:
    card = samples["full"]()
    void = samples["extreme"]().candidates[3].benchmark
    assert cost_view(card.model_copy(update={"benchmark": void})) is None


def test_a_dearer_winner_saves_less_than_nothing(samples: Samples) -> None:
    card = samples["full"]()
    slower = samples["extreme"]().candidates[2].benchmark
    view = cost_view(card.model_copy(update={"benchmark": slower}))
    assert view is not None
    assert not view["saves"]
    assert view["start"]["saving"].startswith("−")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0668, "0.0668"), (1.5, "1.50"), (54.331, "54.33"), (12345.6, "12\u202f346"), (0.0, "0.00")],
)
def test_money(value: float, text: str) -> None:
    assert money(value) == text
