"""ROC and precision-recall of both models, with the points at which they decide."""

from typing import Any

from markupsafe import Markup

from trimgate.judge.records import Confusion, Curve, Evaluation
from trimgate.report._card import CardInput
from trimgate.report._chart import Chart, linear_axis
from trimgate.report._format import Cell, number, percent, sentence, with_interval

_TITLES = {"roc": "ROC", "precision_recall": "Precision and recall"}
_AREAS = {"roc": "roc_auc", "precision_recall": "average_precision"}


def curves_view(card: CardInput) -> dict[str, Any] | None:
    """Both curves and the operating points; None unless the records hold curves."""
    models = [
        (name, kind, found)
        for name, kind, found in (
            ("Baseline", "baseline", card.baseline_test),
            ("Winner", "winner", card.winner_test if card.status != "baseline" else None),
        )
        if found and found.curves
    ]
    if not models:
        return None
    points = [_point(name, found) for name, _, found in models if found.operating_point]
    return {
        "names": [name for name, _, _ in models],
        "plots": [
            {
                "title": _title(models, kind),
                "picture": Markup(picture),  # noqa: S704
                "areas": _areas(models, kind),
            }
            for kind in ("roc", "precision_recall")
            if (picture := _plot(models, kind))
        ],
        "points": points,
        "costs": any(p["cost"] for p in points),
        "coordinates": _coordinates(models),
    }


def false_positive_rate(confusion: Confusion | None) -> float | None:
    """Of a binary model at its threshold; None when there are no negative rows."""
    if confusion is None or len(confusion.labels) != 2:
        return None
    calm, alarm = confusion.matrix[0]
    return alarm / (calm + alarm) if calm + alarm else None


def _plot(models: list[tuple[str, str, Evaluation]], kind: str) -> str:
    drawn = [(n, k, e, c) for n, k, e in models for c in e.curves if c.kind == kind]
    if not drawn:
        return ""
    across, up = (
        ("false-positive rate", "true-positive rate") if kind == "roc" else ("recall", "precision")
    )
    told = "; ".join(f"{name}: {_area(e, kind) or 'curve'}" for name, _, e, _ in drawn)
    chart = Chart(
        linear_axis(0, 1, across),
        linear_axis(0, 1, up),
        f"{_TITLES[kind]}: {up} by {across}. {told}",
        "curve",
        width=440,
        height=360,
    )
    if kind == "roc":
        chart.line([(0, 0), (1, 1)], "ideal")
    elif (share := _positive_share(drawn[0][2])) is not None:
        chart.across(share, f"chance {percent(share, 2)}" if share > 0.03 else "")
    for name, series, _, curve in drawn:
        chart.line(_points(curve), series, f"{name}: {_TITLES[kind]}")
    for name, series, evaluation, _ in drawn:
        at = _at(evaluation, kind)
        if at is not None and evaluation.operating_point is not None:
            threshold = number(evaluation.operating_point.threshold)
            chart.mark(*at, f"{series} operating", f"{name} decides at {threshold}")
    return chart.render()


def _points(curve: Curve) -> list[tuple[float, float]]:
    return list(zip(curve.x, curve.y, strict=True))


def _at(evaluation: Evaluation, kind: str) -> tuple[float, float] | None:
    """Where a model decides, in the plane of the curve."""
    point = evaluation.operating_point
    if point is None:
        return None
    if kind == "precision_recall":
        return point.recall, point.precision
    rate = false_positive_rate(evaluation.confusion)
    return None if rate is None else (rate, point.recall)


def _positive_share(evaluation: Evaluation) -> float | None:
    confusion = evaluation.confusion
    if confusion is None or len(confusion.labels) != 2:
        return None
    rows = [sum(row) for row in confusion.matrix]
    return rows[1] / sum(rows) if sum(rows) else None


def _title(models: list[tuple[str, str, Evaluation]], kind: str) -> str:
    classes = max(c.classes for _, _, e in models for c in e.curves)
    return _TITLES[kind] + (f", mean over {classes} classes" if classes > 2 else "")


def _area(evaluation: Evaluation, kind: str) -> str:
    metric = evaluation.metrics.get(_AREAS[kind])
    return str(with_interval(metric.interval, "plain")) if metric else ""


def _areas(models: list[tuple[str, str, Evaluation]], kind: str) -> str:
    name = "area" if kind == "roc" else "average precision"
    told = [f"{n} {_area(e, kind)}" for n, _, e in models if _area(e, kind)]
    return sentence(f"{name}: {'; '.join(told)}") if told else ""


def _point(name: str, evaluation: Evaluation) -> dict[str, Any]:
    point = evaluation.operating_point
    if point is None:
        raise ValueError("an evaluation without an operating point")
    rate = false_positive_rate(evaluation.confusion)
    return {
        "name": name,
        "threshold": number(point.threshold),
        "rule": sentence(point.rule),
        "precision": percent(point.precision),
        "recall": percent(point.recall),
        "f1": number(point.f1, places=4),
        "rate": "–" if rate is None else percent(rate),
        "cost": "" if point.cost is None else number(point.cost),
    }


def _coordinates(models: list[tuple[str, str, Evaluation]]) -> list[dict[str, Any]]:
    """A dozen points of each curve, for those who cannot see it."""
    rows = []
    for name, _, evaluation in models:
        for curve in evaluation.curves:
            step = max(1, len(curve.x) // 12)
            across = [number(x) for x in curve.x[::step]]
            up = [number(y) for y in curve.y[::step]]
            text = "; ".join(f"({x}, {y})" for x, y in zip(across, up, strict=True))
            rows.append({"name": f"{name}, {_TITLES[curve.kind]}", "points": Cell(text)})
    return rows
