"""The graph of recipes: shared beginnings, the winner's path, digests, refusals."""

import xml.etree.ElementTree as ET
from collections.abc import Callable

from report.sample_records import EXPORT, PRUNE, SELECT, digest

from trimgate.judge.records import Ranked
from trimgate.report import CardInput, Refused
from trimgate.report._lineage import lineage_graph

Samples = dict[str, Callable[[], CardInput]]


def graph(card: CardInput) -> ET.Element:
    found = lineage_graph(card)
    assert found is not None
    return ET.fromstring(found["picture"])


def texts(svg: ET.Element, kind: str) -> list[str]:
    return [
        "|".join(t.text or "" for t in g.iter("text"))
        for g in svg.iter("g")
        if str(g.get("class")).startswith(kind)
    ]


def test_recipes_that_begin_alike_share_their_steps(samples: Samples) -> None:
    svg = graph(samples["passing"]())
    steps = texts(svg, "step")
    assert steps.count("select features") == 1
    assert steps[0] == "Baseline|sha256:010101010101"
    leaves = texts(svg, "leaf")
    assert leaves[0] == "prune trees → ONNX|sha256:121212121212 · 3.10×"
    assert len(leaves) == 5  # four were measured, one refused
    assert leaves[-1] == "static INT8|refused"


def test_the_winner_s_path_runs_from_the_baseline_to_its_leaf(samples: Samples) -> None:
    svg = graph(samples["passing"]())
    assert texts(svg, "step winner") == [
        "Baseline|sha256:010101010101", "select features", "prune trees", "ONNX",
    ]  # fmt: skip
    edges = [e for e in svg.iter("path") if e.get("class") == "edge winner"]
    assert len(edges) == 4
    assert len([e for e in svg.iter("path") if e.get("class") == "edge refused"]) == 2


def test_no_recipe_means_no_graph(samples: Samples) -> None:
    card = samples["passing"]()
    empty = card.selection.model_copy(update={"ranking": ()})
    update = {"selection": empty, "candidates": (), "refused": ()}
    assert lineage_graph(card.model_copy(update=update)) is None


def test_many_recipes_are_cut_and_counted(samples: Samples) -> None:
    card = samples["passing"]()
    first = card.selection.ranking[0]
    ranking = tuple(
        first.model_copy(
            update={"rank": i, "name": f"r{i}" * 60, "steps": ({**PRUNE, "amount": i / 100},)}
        )
        for i in range(1, 41)
    )
    assert all(isinstance(r, Ranked) for r in ranking)
    many = card.selection.model_copy(update={"ranking": ranking})
    found = lineage_graph(card.model_copy(update={"selection": many, "candidates": ()}))
    assert found is not None
    assert found["more"] == 17  # forty and a refused one, of which 24 are drawn
    svg = ET.fromstring(found["picture"])
    assert len(texts(svg, "leaf")) == 24
    height = float(str(svg.get("viewBox")).split()[3])
    tops = [float(str(e.get("cy"))) for e in svg.iter("circle")]
    assert max(tops) < height
    assert len(set(tops)) == 24


def test_a_recipe_that_another_goes_on_from_keeps_its_own_line(samples: Samples) -> None:
    card = samples["passing"]()
    rows = [
        card.selection.ranking[0].model_copy(update=u)
        for u in (
            {"rank": 1, "name": "long", "steps": (SELECT, PRUNE, EXPORT), "winner": False},
            {"rank": 2, "name": "short", "steps": (SELECT, PRUNE), "winner": True},
        )
    ]
    update = {"selection": card.selection.model_copy(update={"ranking": tuple(rows)})}
    svg = graph(card.model_copy(update={**update, "candidates": (), "refused": ()}))
    marks = [float(str(e.get("cy"))) for e in svg.iter("circle")]
    assert len(set(marks)) == 2
    assert texts(svg, "step winner")[-1] == "prune trees"
    assert digest(1)[:19] in texts(svg, "step")[0]


def test_refused_recipes_without_steps_are_not_drawn(samples: Samples) -> None:
    card = samples["passing"]().model_copy(update={"refused": (Refused(name="x", reason="y"),)})
    assert not any("refused" in t for t in texts(graph(card), "leaf"))
