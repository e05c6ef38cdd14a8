"""Runs over time: what is compared and what is not."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import timedelta

import pytest

from trimgate.report import (
    ONLY_RATIOS,
    CardInput,
    compare_runs,
    comparison_json,
    comparison_markdown,
    render_comparison,
)

Samples = dict[str, Callable[[], CardInput]]


@pytest.fixture
def history(samples: Samples) -> list[CardInput]:
    names = ("passing", "rejected", "inconclusive", "baseline_kept")
    cards = [samples[name]().model_copy(update={"name": "fraud"}) for name in names]
    return [
        c.model_copy(update={"run": f"run-{i}", "created": c.created + timedelta(days=i)})
        for i, c in enumerate(cards)
    ]


def test_runs_stand_from_the_oldest_on(history: list[CardInput]) -> None:
    lines = compare_runs(reversed(history))
    assert [line.run for line in lines] == ["run-0", "run-1", "run-2", "run-3"]
    assert [line.word for line in lines] == [
        "Passed", "Rejected", "Inconclusive", "Baseline kept",
    ]  # fmt: skip
    kept = lines[-1]
    assert (kept.speedup, kept.cost, kept.size, kept.winner) == (None, None, None, None)


def test_numbers_are_those_of_the_records(history: list[CardInput]) -> None:
    card, line = history[0], compare_runs(history)[0]
    assert card.benchmark is not None
    assert card.winner_test is not None
    assert line.speedup == card.benchmark.batches[0].wall
    assert line.cost == card.benchmark.batches[0].cpu
    assert line.size == card.benchmark.baseline.size / card.benchmark.candidate.size
    assert line.difference == card.winner_test.differences["average_precision"]
    html = render_comparison(history).replace("\u202f", " ")
    for text in ("3.10×<small>[3.04, 3.16]", "3.43×", "+0.10 pt", "2.55×"):
        assert text in html


def test_no_absolute_time_is_shown(history: list[CardInput]) -> None:
    for text in (render_comparison(history), comparison_markdown(history)):
        assert "Times of different runs are not compared" in text
        plain = re.sub("<style>.*?</style>", "", text, flags=re.DOTALL).replace("\u202f", " ")
        assert not re.search(r"\d (?:ns|µs|ms|s)\b", plain)
    assert '"p50"' not in comparison_json(history)
    assert ONLY_RATIOS.startswith("Times of different runs")


def test_a_void_timing_is_no_ratio(samples: Samples) -> None:
    card = samples["extreme"]()
    void = card.model_copy(update={"benchmark": card.candidates[3].benchmark})
    assert compare_runs([void])[0].speedup is None


def test_other_test_rows_are_marked(history: list[CardInput]) -> None:
    assert "other test rows</text>" not in render_comparison(history)
    last = history[-1]
    assert last.baseline_test is not None
    moved = last.model_copy(
        update={"baseline_test": last.baseline_test.model_copy(update={"data": "sha256:ff"})}
    )
    html = render_comparison([*history[:-1], moved])
    assert "other test rows</text>" in html
    assert "not all judged on the same test rows" in html


def test_models_and_metrics_stand_apart(samples: Samples, history: list[CardInput]) -> None:
    html = render_comparison([*history, samples["image"]()])
    assert html.count("<h2 ") == 2
    assert ">clothes-resnet18</h2>" in html


def test_each_run_has_its_mark(history: list[CardInput]) -> None:
    html = render_comparison(history)
    pictures = [ET.fromstring(p) for p in re.findall('<svg class="plot chart.*?</svg>', html)]
    assert len(pictures) == 5
    speed = pictures[1]
    kinds = [g.get("class") for g in speed.iter("g") if g.find("title") is not None]
    assert kinds == [f"series winner {s}" for s in ("pass", "fail", "inconclusive")]
    assert all(p.get("aria-label") for p in pictures)


def test_machines_get_the_same_lines(history: list[CardInput]) -> None:
    lines = json.loads(comparison_json(history))
    assert [line["status"] for line in lines] == ["pass", "fail", "inconclusive", "baseline"]
    assert lines[0]["speedup"]["value"] == 3.1


def test_hostile_runs_stay_text(samples: Samples) -> None:
    cards = [samples["hostile"](), samples["hostile"]()]
    html = render_comparison(cards)
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html


def test_many_runs_make_a_small_page(samples: Samples) -> None:
    card = samples["passing"]()
    cards = [
        card.model_copy(update={"run": f"r{i}", "created": card.created + timedelta(hours=i)})
        for i in range(200)
    ]
    assert len(render_comparison(cards)) < 1_000_000
