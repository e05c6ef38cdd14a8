"""Confusion matrices of both models, and what changed between them."""

from typing import Any, Literal

from markupsafe import Markup

from trimgate.judge.records import Confusion
from trimgate.report._card import CardInput
from trimgate.report._format import MINUS, count, number, percent, signed
from trimgate.report._svg import Svg, shorten

_BESIDE = 4  # classes of tables that fit side by side
_LARGEST = 10  # classes; above, cells are drawn without their numbers
_LISTED = 20
_LONGEST = 18


def confusion_view(card: CardInput) -> dict[str, Any] | None:
    """The matrices and their difference; None for regression and old records.

    Up to ten classes each cell is written; above, the matrices are drawn as pictures and the
    cells that changed most are listed.
    """
    before = card.baseline_test.confusion if card.baseline_test else None
    test = card.winner_test if card.status != "baseline" else None
    after = test.confusion if test else None
    models = [(name, c) for name, c in (("Baseline", before), ("Winner", after)) if c]
    if not models:
        return None
    comparable = before is not None and after is not None and before.labels == after.labels
    small = len(models[0][1].labels) <= _LARGEST
    changed = _changed(before, after) if before and after and comparable else []
    tables = [_table(name, found) for name, found in models] if small else []
    if small and comparable and before and after:
        tables.append(_difference(before, after))
    return {
        "tables": tables,
        "wide": small and len(models[0][1].labels) > _BESIDE,
        "pictures": [] if small else [_picture(name, found) for name, found in models],
        "changes": changed[:_LISTED],
        "unlisted": count(len(changed) - _LISTED) if len(changed) > _LISTED else "",
        "classes": count(len(models[0][1].labels)),
        "thresholds": _thresholds(models),
    }


def _thresholds(models: list[tuple[str, Confusion]]) -> str:
    told = [f"{n} at {number(c.threshold)}" for n, c in models if c.threshold is not None]
    return f"Decided at the operating points: {', '.join(told)}." if told else ""


def _table(name: str, found: Confusion) -> dict[str, Any]:
    rows = []
    for true, (label, row) in enumerate(zip(found.labels, found.matrix, strict=True)):
        total = sum(row)
        cells = [
            {
                "text": count(n),
                "small": percent(n / total, 2) if n else "",
                "shade": round(55 * n / total) if total else 0,
                "kind": "right" if true == column else "wrong",
            }
            for column, n in enumerate(row)
        ]
        rows.append({"label": shorten(label, _LONGEST), "cells": cells})
    return {
        "name": name,
        "labels": _shown(found),
        "rows": rows,
        "caption": "Share of the true class",
    }


def _difference(before: Confusion, after: Confusion) -> dict[str, Any]:
    largest = max(
        (abs(b - a) for x, y in zip(before.matrix, after.matrix, strict=True)
         for a, b in zip(x, y, strict=True)),
        default=0,
    )  # fmt: skip
    rows = []
    for true, label in enumerate(before.labels):
        cells = []
        for column in range(len(before.labels)):
            n = after.matrix[true][column] - before.matrix[true][column]
            good: Literal["better", "worse", "same"] = (
                "same" if n == 0 else "better" if (n > 0) == (true == column) else "worse"
            )
            shade = round(55 * abs(n) / largest) if largest else 0
            cells.append({"text": _change(n), "small": "", "shade": shade, "kind": good})
        rows.append({"label": shorten(label, _LONGEST), "cells": cells})
    return {
        "name": "Difference",
        "labels": _shown(before),
        "rows": rows,
        "caption": "Winner minus baseline: a plus on the diagonal is better, beside it worse",
    }


def _changed(before: Confusion, after: Confusion) -> list[dict[str, str]]:
    """Cells that differ, the largest difference first."""
    found = []
    for true, label in enumerate(before.labels):
        for column, predicted in enumerate(before.labels):
            was, now = before.matrix[true][column], after.matrix[true][column]
            if was != now:
                found.append((abs(now - was), label, predicted, was, now, true == column))
    found.sort(key=lambda cell: -cell[0])
    return [
        {
            "true": shorten(label, 40),
            "predicted": shorten(predicted, 40),
            "baseline": count(was),
            "winner": count(now),
            "change": _change(now - was),
            "kind": "better" if (now > was) == right else "worse",
        }
        for _, label, predicted, was, now, right in found
    ]


def _picture(name: str, found: Confusion) -> dict[str, Any]:
    """Many classes as squares, darker for a larger share of the true class."""
    size, left, top = len(found.labels), 12.0, 22.0
    side = 380.0 / size
    right = sum(row[i] for i, row in enumerate(found.matrix))
    rows = sum(map(sum, found.matrix))
    label = f"{name}: {count(right)} of {count(rows)} rows on the diagonal of {size} classes"
    svg = Svg(404, 420, label, "heat")
    svg.text(left, 14, "↓ true class, predicted class →", "axis-label")
    svg.add("rect", "frame", x=left, y=top, width=380.0, height=380.0)
    for true, row in enumerate(found.matrix):
        total = sum(row)
        for column, n in enumerate(row):
            if not n:
                continue
            kind = "right" if true == column else "wrong"
            said = f"{found.labels[true]} as {found.labels[column]}: {count(n)}"
            group = svg.group(kind, said)
            # the square root, lest rare mistakes be invisible
            svg.add(
                "rect", "cell", group, x=left + column * side, y=top + true * side,
                width=side, height=side, fill_opacity=f"{max(0.08, (n / total) ** 0.5):.2f}",
            )  # fmt: skip
    return {"name": name, "picture": Markup(svg.render())}  # noqa: S704  (texts are escaped)


def _shown(found: Confusion) -> list[str]:
    return [shorten(label, _LONGEST) for label in found.labels]


def _change(n: int) -> str:
    return signed(count(n).replace("-", MINUS))
