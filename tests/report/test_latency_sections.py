"""Distributions, load, callers, energy: their numbers are those of the records."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

from trimgate.report import CardInput, headline, render_html
from trimgate.report._chart import _short
from trimgate.report._distributions import distribution_plots, load_view
from trimgate.report._resources import concurrent_rows, energy_view, limit_panels, loadgen_rows

Samples = dict[str, Callable[[], CardInput]]


def plain(text: str) -> str:
    return text.replace("\u202f", " ")


def series(picture: str, kind: str) -> list[ET.Element]:
    return [g for g in ET.fromstring(picture).iter("g") if g.get("class") == f"series {kind}"]


def test_both_models_have_a_distribution_for_each_batch_size(samples: Samples) -> None:
    card = samples["full"]()
    assert card.benchmark is not None
    plots = distribution_plots(card)
    assert [plain(plot["title"]) for plot in plots] == ["1 row per call", "1 000 rows per call"]
    for plot, batch in zip(plots, card.benchmark.batches, strict=True):
        assert "same run" in plot["picture"]
        for kind in ("baseline", "winner"):
            line = next(g for g in series(plot["picture"], kind) if g.find("path") is not None)
            path = str(line.find("path").get("d"))  # type: ignore[union-attr]
            assert path.count("L") == len(batch.baseline.quantiles) - 1
        assert plain(
            plot["rows"][1]["cells"][2]
        ) == f"{batch.candidate.quantiles[11] * 1e6:.1f} µs" or (
            "ms" in plot["rows"][1]["cells"][2]
        )
    assert "Slow calls, kept in the numbers" in plots[0]["outliers"]
    assert "Same run" in render_html(card)


def test_a_void_timing_has_no_distribution(samples: Samples) -> None:
    card = samples["full"]()
    assert card.benchmark is not None
    void = tuple(b.model_copy(update={"state": "void"}) for b in card.benchmark.batches)
    benchmark = card.benchmark.model_copy(update={"batches": void})
    assert distribution_plots(card.model_copy(update={"benchmark": benchmark})) == []


def test_load_is_drawn_by_rate_and_what_is_void_is_not(samples: Samples) -> None:
    groups = load_view(samples["full"]())
    assert [g["title"] for g in groups] == [
        "In the engine, 1 row per request", "In the model server, 1 row per request",
    ]  # fmt: skip
    for group in groups:
        drawn = [g for g in series(group["picture"], "winner") if g.find("circle") is not None]
        assert len(drawn) == 4  # of five rates one does not hold
        assert group["rows"][0]["rate"] == "50.0"
        last = group["rows"][-1]
        assert str(last["ratio"]) == "void"
        assert last["reason"] == "The generator fell behind its schedule"
        assert (
            plain(last["models"][1]["failed"])
            == "3 failed, 12 000 not sent, 80 000 late of 100 000"
        )


def test_one_rate_is_a_table_alone(samples: Samples) -> None:
    card = samples["full"]()
    assert card.benchmark is not None
    benchmark = card.benchmark.model_copy(update={"load": card.benchmark.load[:1]})
    update: dict[str, Any] = {"benchmark": benchmark, "served": None}
    groups = load_view(card.model_copy(update=update))
    assert [g["picture"] for g in groups] == [""]
    assert len(groups[0]["rows"]) == 1


def test_an_estimate_of_energy_is_called_one(samples: Samples) -> None:
    card = samples["full"]()
    assert card.benchmark is not None
    assert card.benchmark.energy is not None
    found = energy_view(card)
    assert found is not None
    assert (found["value"], found["word"]) == ("2.93×", "less energy")
    assert "Estimate, not measured" in render_html(card)
    read = card.benchmark.energy.model_copy(update={"source": "rapl", "method": "RAPL"})
    benchmark = card.benchmark.model_copy(update={"energy": read})
    assert "Estimate, not measured" not in render_html(
        card.model_copy(update={"benchmark": benchmark})
    )


def test_callers_loadgen_limits_and_format(samples: Samples) -> None:
    card = samples["full"]()
    assert concurrent_rows(card)[0]["callers"] == "4 threads"
    assert str(concurrent_rows(card)[0]["ratio"]) == "2.80× [2.60, 3.00]"
    assert loadgen_rows(card)[0]["valid"] is False
    titles = [panel["title"] for panel in limit_panels(card)]
    assert titles == ["Limits while measuring", "The target’s own format, checked and not timed"]
    html = render_html(card)
    for text in ("INVALID", "512 MiB by a control group", "TreeEnsembleClassifier"):
        assert text in html


def test_a_busy_machine_is_told_before_the_claims(samples: Samples) -> None:
    html = render_html(samples["full"]())
    assert html.index("The machine was busy") < html.index(">What it would change</h2>")
    assert any(line.topic.startswith("Cost") for line in headline(samples["full"]()))


def test_ticks_have_no_empty_decimals() -> None:
    assert [_short(t) for t in ("1.00 ms", "20.0 µs", "0.0 %", "100", "1.50×", "0.05")] == [
        "1 ms", "20 µs", "0 %", "100", "1.5×", "0.05",
    ]  # fmt: skip
