"""What the card says of features: those that are no longer used, and the rows as a picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from trimgate.report._card import CardInput
from trimgate.report._format import count, number, percent
from trimgate.report._svg import Svg

_MOST_FEATURES = 150
_WIDTH, _HEIGHT, _MARGIN = 760.0, 420.0, 16.0
_EXTENT = 1000.0
_COLOURS = 6
_SIDE = 3.6
_SEEN = {"select_features": "the features that are kept", "reduce_dimensions": "the components"}


def unused_features(card: CardInput) -> dict[str, Any] | None:
    """Features that the winner no longer looks at, and the baseline did; and what that saves."""
    if card.winner is None:
        return None
    gone = [f for f in card.winner.unused_features if f not in card.baseline.unused_features]
    if not gone:
        return None
    notes = card.winner.notes.get("select_features")
    notes = notes if isinstance(notes, Mapping) else {}
    total = len(card.winner.features)
    lead = (
        f"{count(len(gone))} of {count(total)} features. Rows may leave them out or hold anything "
        f"in their place; what computes only them can be switched off.{_saved(notes)}"
    )
    more = max(0, len(gone) - _MOST_FEATURES)
    costs = notes.get("costs")
    costs = costs if isinstance(costs, Mapping) else {}
    shown = [
        {"name": name, "cost": number(float(costs[name])) if name in costs else ""}
        for name in gone[:_MOST_FEATURES]
    ]
    return {
        "lead": lead,
        "names": [feature["name"] for feature in shown],
        "features": shown,
        "more": count(more) if more else "",
    }


def _saved(notes: Mapping[str, Any]) -> str:
    before, after = notes.get("cost_before"), notes.get("cost_after")
    if not isinstance(before, int | float) or not isinstance(after, int | float) or before <= 0:
        return ""
    return (
        f" By the costs that were given a row costs {number(float(after))} in place of "
        f"{number(float(before))}: {percent(1 - after / before)} is saved."
    )


def row_pictures(card: CardInput) -> list[dict[str, Any]]:
    """Pictures of validation rows that steps of the winner's recipe noted."""
    found = []
    for step, seen in _SEEN.items():
        notes = card.winner.notes.get(step) if card.winner else None
        picture = notes.get("picture") if isinstance(notes, Mapping) else None
        if not isinstance(picture, Mapping):
            continue
        rows, changed = len(picture["x"]), sum(picture["changed"])
        values = card.baseline.task == "regression"
        lead = (
            f"{count(rows)} validation rows by t-SNE of {seen}: rows that are alike lie together; "
            "the directions and the distances between groups mean nothing. It is a picture for "
            "people and no part of the model."
        )
        answer = "a clearly different value" if values else "another label"
        ringed = f"Ringed: {answer} than before the step ({count(changed)} of {count(rows)} rows)"
        found.append(
            {
                "identifier": f"rows-{step}",
                "title": f"Rows by {seen}",
                "lead": lead,
                "ringed": ringed,
                "picture": Markup(scatter(picture, f"{lead} {ringed}")),  # noqa: S704  (escaped)
            }
        )
    return found


def scatter(picture: Mapping[str, Any], label: str) -> str:
    """Rows in the plane, by group in colour and shape; changed ones ringed.

    Args:
        picture: `x`, `y` (0 to 1000), `group`, `groups` and `changed`, as the step noted them.
        label: What a screen reader says.

    Returns:
        An `<svg>` element, with the groups named at the right.
    """
    names: Sequence[str] = picture["groups"]
    svg = Svg(_WIDTH, _HEIGHT, label, "map")
    size = _HEIGHT - 2 * _MARGIN
    for x, y, group, changed in zip(
        picture["x"], picture["y"], picture["group"], picture["changed"], strict=True
    ):
        left = _MARGIN + 1.35 * size * float(x) / _EXTENT
        top = _HEIGHT - _MARGIN - size * float(y) / _EXTENT
        _dot(svg, left, top, int(group))
        if changed:
            svg.add("circle", "changed", cx=left, cy=top, r=_SIDE + 3.4)
    left = _MARGIN + 1.35 * size + 28
    for index, name in enumerate(names[:12]):
        top = _MARGIN + 12 + 22 * index
        _dot(svg, left, top, index)
        shown = str(name) if len(str(name)) <= 20 else f"{str(name)[:19]}…"
        svg.text(left + 12, top + 4, shown)
    if len(names) > 12:
        svg.text(left, _MARGIN + 12 + 22 * 12 + 4, f"and {len(names) - 12} more")
    return svg.render()


def _dot(svg: Svg, x: float, y: float, group: int) -> None:
    """A mark whose colour and, from the next round of colours on, shape tell the group."""
    kind = f"g{group % _COLOURS}"
    shape = (group + group // _COLOURS) % 4
    if shape == 0:
        svg.add("circle", kind, cx=x, cy=y, r=_SIDE)
    elif shape == 1:
        svg.add("rect", kind, x=x - 3.2, y=y - 3.2, width=6.4, height=6.4)
    else:
        side = 4.6
        corners = (
            ((x, y - side), (x + side, y + 3.6), (x - side, y + 3.6))
            if shape == 2
            else ((x, y - side), (x + side, y), (x, y + side), (x - side, y))
        )
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        svg.add("polygon", kind, points=points)
