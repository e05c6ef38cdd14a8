"""The card's plots as Markdown tables, for viewers without pictures."""

from collections.abc import Callable

from trimgate.report._calibration import calibration_view
from trimgate.report._card import CardInput
from trimgate.report._cost import cost_view
from trimgate.report._curves import curves_view
from trimgate.report._distributions import load_view
from trimgate.report._resources import energy_view
from trimgate.report._slices import slices_view

_MOST = 40

Table = Callable[..., str]
Escape = Callable[[str], str]


def plots_markdown(card: CardInput, table: Table, escape: Escape) -> list[str]:
    """Slices, operating points, calibration, load, cost and energy, where the records hold them.

    Args:
        card: What the card shows.
        table: Makes a Markdown table of header, rows and right-aligned columns.
        escape: Makes text of text.
    """
    return [
        *_slices(card, table),
        *_points(card, table),
        *_calibration(card, table),
        *_load(card, table),
        *_cost(card, table, escape),
        *_energy(card, escape),
    ]


def _slices(card: CardInput, table: Table) -> list[str]:
    found = slices_view(card)
    if found is None:
        return []
    order = ("fail", "inconclusive", "pass", "unjudged")
    rows = sorted(found["rows"], key=lambda row: order.index(row["outcome"]))
    body = [
        [row["name"], row["rows"], str(row["difference"]), row["corrected"], row["said"]]
        for row in rows[:_MOST]
    ]
    counts = ", ".join(f"{n} {said}" for said, n in found["counts"])
    header = ["slice", "rows", "difference", "corrected", "outcome"]
    more = f" The {_MOST} that matter most:" if len(rows) > _MOST else ""
    return ["## Slices of the test rows", f"{counts}.{more}", table(header, body, right=(1, 2, 3))]


def _points(card: CardInput, table: Table) -> list[str]:
    found = curves_view(card)
    if found is None or not found["points"]:
        return []
    keys = ("name", "threshold", "rule", "precision", "recall", "f1", "rate")
    header = [
        "model", "threshold", "chosen by", "precision", "recall", "F1", "false-positive rate",
    ]  # fmt: skip
    body = [[point[key] for key in keys] for point in found["points"]]
    return ["## Where the models decide", table(header, body, right=(1, 3, 4, 5, 6))]


def _calibration(card: CardInput, table: Table) -> list[str]:
    found = calibration_view(card)
    if found is None:
        return []
    body = [[row["name"], str(row["ece"]), str(row["brier"])] for row in found["models"]]
    header = ["model", "expected calibration error", "Brier score"]
    return ["## Calibration", table(header, body, right=(1, 2))]


def _load(card: CardInput, table: Table) -> list[str]:
    parts = []
    for group in load_view(card):
        body = [
            [row["rate"], m["name"], m["p50"], m["p99"], str(row["ratio"]), m["failed"]]
            for row in group["rows"]
            for m in row["models"]
        ]
        header = ["requests a second", "model", "median", "99th percentile", "ratio", "trouble"]
        title = f"## Latency under load: {group['title'].lower()}"
        parts += [title, table(header, body, right=(0, 2, 3, 4))]
    return parts


def _cost(card: CardInput, table: Table, escape: Escape) -> list[str]:
    found = cost_view(card)
    if found is None:
        return []
    keys = ("traffic", "baseline", "winner", "saving", "interval")
    header = ["predictions a month", "baseline", "winner", "saving a month", "interval"]
    body = [[row[key] for key in keys] for row in found["rows"]]
    basis = escape(f"In {found['currency']}. {found['basis']} {found['month']}".rstrip())
    return ["## Cost", basis, table(header, body, right=range(5))]


def _energy(card: CardInput, escape: Escape) -> list[str]:
    found = energy_view(card)
    if found is None:
        return []
    told = f"{found['value']} {found['word']} {found['interval']}"
    detail = f"{found['baseline']} → {found['winner']} J for 1000 predictions"
    source = "" if found["measured"] else "An estimate, not a measurement. "
    return ["## Energy", escape(f"{told}: {detail}. {source}{found['method']}.")]
