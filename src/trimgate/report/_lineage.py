"""How every candidate was made, as a graph: baseline, steps, candidates, winner."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from trimgate.report._card import CardInput
from trimgate.report._format import with_interval
from trimgate.report._leaderboard import refused_recipes
from trimgate.report._steps import step_label
from trimgate.report._svg import FONT, Svg, shorten, text_width
from trimgate.report._views import short_digest

_ROW, _HEIGHT, _GAP, _PAD = 44.0, 28.0, 34.0, 11.0
_LONGEST = 26
_MOST = 24
_LEAF = 268.0


@dataclass
class _Step:
    """A step in the graph; recipes that begin alike share it.

    Attributes:
        label: As on the chips.
        ends: The lines of the recipes that end here: name, detail, kind.
        kind: `winner` on the winner's path, `refused` where nothing was made, or `other`.
        depth, row: Where it stands.
    """

    label: str
    ends: list[tuple[str, str, str]] = field(default_factory=list)
    children: list["_Step"] = field(default_factory=list)
    key: str = ""
    kind: str = "other"
    depth: int = 0
    row: float = 0.0


def lineage_graph(card: CardInput) -> dict[str, Any] | None:
    """The graph and its caption; None when nothing was tried.

    Recipes that begin with the same steps share them. With more than 24 recipes only the best
    are drawn; the leaderboard has all of them.
    """
    recipes = _recipes(card)
    if not recipes:
        return None
    drawn = recipes[:_MOST]
    root = _Step("Baseline", kind="winner")
    for steps, name, detail, kind in drawn:
        node = root
        for step in steps:
            key = json.dumps(step, sort_keys=True, default=str)
            found = next((c for c in node.children if c.key == key), None)
            if found is None:
                found = _Step(step_label(step), key=key, kind="refused", depth=node.depth + 1)
                node.children.append(found)
            if kind == "winner" or found.kind == "refused":
                found.kind = kind
            node = found
        node.ends.append((name, detail, kind))
    _place(root, 0.0)
    told = "; ".join(f"{name}, {detail}" for _, name, detail, _ in drawn)
    digest = short_digest(card.baseline.digest)
    picture = _draw(root, f"From the baseline {digest} to the candidates: {told}", digest)
    return {"picture": Markup(picture), "more": len(recipes) - len(drawn)}  # noqa: S704  (escaped)


def _recipes(card: CardInput) -> list[tuple[Sequence[dict[str, Any]], str, str, str]]:
    """Steps, name, detail and kind of every recipe, the best first, refused ones last."""
    by_name = {c.name: c for c in card.candidates}
    found: list[tuple[Sequence[dict[str, Any]], str, str, str]] = []
    for ranked in sorted(card.selection.ranking, key=lambda r: r.rank):
        candidate = by_name.get(ranked.name)
        if not ranked.steps or (candidate and candidate.refusal):
            continue
        timed = candidate.benchmark.batches[:1] if candidate and candidate.benchmark else ()
        void = any(batch.state == "void" for batch in timed)
        speed = "void" if void else with_interval(ranked.speedup, "ratio").value
        detail = f"{short_digest(ranked.model)} · {speed}"
        kind = "winner" if ranked.winner else "other"
        found.append((ranked.steps, ranked.name, detail, kind))
    found += [(r.steps, r.name, "refused", "refused") for r in refused_recipes(card) if r.steps]
    return found


def _place(node: _Step, row: float) -> float:
    """Gives rows to what is below a node; returns the first free row after it."""
    start = row
    row += len(node.ends)
    for child in node.children:
        row = _place(child, row)
    node.row = start if node.ends else node.children[0].row if node.children else start
    return max(row, start + 1)


def _draw(root: _Step, label: str, digest: str) -> str:
    nodes = list(_walk(root))
    widths: dict[int, float] = {}
    for node in nodes:
        text = digest if node is root else shorten(node.label, _LONGEST)
        wide = text_width(text, FONT) + 2 * _PAD
        widths[node.depth] = max(widths.get(node.depth, 84.0), wide)
    lefts, left = {}, 8.0
    for depth in sorted(widths):
        lefts[depth] = left
        left += widths[depth] + _GAP
    rows = max(node.row + len(node.ends) for node in nodes)
    svg = Svg(left + _LEAF, max(rows, 1) * _ROW + 12, label, "graph")
    for node in nodes:
        _node(svg, node, lefts, widths, left, digest if node is root else "")
    return svg.render()


def _walk(node: _Step) -> list[_Step]:
    return [node, *(below for child in node.children for below in _walk(child))]


def _node(
    svg: Svg,
    node: _Step,
    lefts: dict[int, float],
    widths: dict[int, float],
    leaves: float,
    digest: str,
) -> None:
    left, width = lefts[node.depth], widths[node.depth]
    right, middle = left + width, _middle(node.row)
    for child in node.children:
        _edge(svg, right, middle, lefts[child.depth], _middle(child.row), child.kind)
    for index, (name, detail, kind) in enumerate(node.ends):
        at = _middle(node.row + index)
        _edge(svg, right, middle, leaves, at, kind)
        group = svg.group(f"leaf {kind}", f"{name}: {detail}")
        svg.add("circle", "mark", group, cx=leaves + 5, cy=at, r=5.0)
        svg.text(leaves + 18, at - 2, shorten(name, 36), "name", parent=group)
        svg.text(leaves + 18, at + 13, detail, "detail", parent=group)
    group = svg.group(f"step {node.kind}", node.label)
    tall = _HEIGHT + (12 if digest else 0)
    svg.add("rect", "box", group, x=left, y=middle - tall / 2, width=width, height=tall, rx=7.0)
    text, centre = shorten(node.label, _LONGEST), left + width / 2
    svg.text(centre, middle + (-3 if digest else 4.5), text, "name", "middle", group)
    if digest:
        svg.text(centre, middle + 13, digest, "detail", "middle", group)


def _middle(row: float) -> float:
    return 6 + (row + 0.5) * _ROW


def _edge(svg: Svg, x: float, y: float, to_x: float, to_y: float, kind: str) -> None:
    bend = min(_GAP, to_x - x) / 2
    middle, end = f"{x + bend:.1f}", f"{x + 2 * bend:.1f},{to_y:.1f}"
    path = f"M{x:.1f},{y:.1f}C{middle},{y:.1f} {middle},{to_y:.1f} {end}H{to_x:.1f}"
    svg.add("path", f"edge {kind}", d=path)
