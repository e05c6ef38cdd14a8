"""The HTML card: what the template shows, and the file."""

import base64
import functools
import hashlib
from collections.abc import Iterable
from datetime import UTC
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trimgate.judge.records import save
from trimgate.report._calibration import calibration_view
from trimgate.report._card import CardInput
from trimgate.report._compare import comparison_view
from trimgate.report._confusion import confusion_view
from trimgate.report._cost import cost_view
from trimgate.report._curves import curves_view
from trimgate.report._distributions import distribution_plots, load_view
from trimgate.report._features import row_pictures, unused_features
from trimgate.report._flips import flips_view
from trimgate.report._format import TIMES, difference_style, percent, sentence, words
from trimgate.report._fronts import pareto_plots
from trimgate.report._headline import headline, rows_per_call
from trimgate.report._leaderboard import leaderboard_rows, refused_recipes
from trimgate.report._lineage import lineage_graph
from trimgate.report._markdown import render_markdown
from trimgate.report._method import controls, footer, method_panels, paragraphs
from trimgate.report._pull_request import pull_request_markdown
from trimgate.report._resources import concurrent_rows, energy_view, loadgen_rows
from trimgate.report._rules import rule_row
from trimgate.report._slices import slices_view
from trimgate.report._steps import chips, names_steps
from trimgate.report._verdict import gate_level, no_gate, rule_counts, verdict_text
from trimgate.report._views import (
    agreement,
    latency_panels,
    lineage_rows,
    quality_rows,
    served_view,
)


def render_html(card: CardInput) -> str:
    """The card as one self-contained HTML document: inline style and SVG, no script, no network.

    All text of the run (names, reasons, parameters) is escaped.
    """
    return _page("card.html.j2", _view(card))


def render_comparison(cards: Iterable[CardInput]) -> str:
    """Several runs over time as one self-contained HTML page, with trends of their ratios."""
    return _page("compare.html.j2", comparison_view(cards))


def save_card(card: CardInput, directory: str | Path) -> Path:
    """Writes `card.html`, `card.md`, `card.json` and `pull-request.md`.

    Each is written under a temporary name first. `card.md` has no raw HTML, for viewers that
    allow none; `pull-request.md` is short and folds its details away.

    Args:
        card: What the card shows.
        directory: Where; made when it is not there.

    Returns:
        The path of `card.html`.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        "card.md": render_markdown(card),
        "pull-request.md": pull_request_markdown(card),
        "card.html": render_html(card),
    }
    save(card, directory / "card.json")
    for name, text in texts.items():
        partial = directory / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(directory / name)
    return directory / "card.html"


def _page(template: str, view: dict[str, Any]) -> str:
    """A whole page, with the policy that lets no script but our own run, and nothing be loaded."""
    script = scripts() if view.get("cost") else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    if script:
        policy += f"; script-src 'sha256-{digest}'"
    shown = {**view, "policy": policy, "script": Markup(script)}  # noqa: S704  (our own file)
    return _environment().get_template(template).render(shown).lstrip()


@functools.cache
def scripts() -> str:
    """The only script of a card."""
    return files("trimgate.report").joinpath("templates/card.js").read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("trimgate.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _view(card: CardInput) -> dict[str, Any]:
    rows = leaderboard_rows(card.selection, card.candidates, card.baseline_validation)
    rules = [rule_row(rule, card.selection.metric) for rule in card.rules]
    sizes = dict.fromkeys(size for row in rows for size in row.speedups)
    metric = card.selection.metric
    test = card.winner_test or card.baseline_test
    refused = [
        {
            "name": r.name,
            "chips": chips(r.steps),
            "named": not names_steps(r.name, chips(r.steps)),
            "reason": sentence(r.reason),
        }
        for r in refused_recipes(card)
    ]
    return {
        "card": card,
        "times": TIMES,
        "created": card.created.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "confidence": percent(card.confidence, 2),
        "verdict": verdict_text(card),
        "rule_counts": rule_counts(card),
        "gate_level": gate_level(card),
        "winner_chips": chips(card.winner.recipe) if card.winner else (),
        "headline": headline(card),
        "in_points": difference_style(metric) == "points",
        "pareto": pareto_plots(card),
        "rows": rows,
        "metric_name": sentence(words(metric)),
        "batch_columns": [(s, rows_per_call(s) if s else "") for s in sizes],
        "leaderboard_caption": _caption(card),
        "selection_reason": sentence(card.selection.reason),
        "refused": refused,
        "rules": [{**vars(r), "picture": Markup(r.picture)} for r in rules],  # noqa: S704
        "test_rows": f"{test.rows:,}".replace(",", "\u202f") if test else "the",
        "no_gate": no_gate(card),
        "quality": quality_rows(card),
        "agreement": agreement(card),
        "latency": latency_panels(card),
        "served": served_view(card),
        "busy": card.benchmark.busy if card.benchmark else "",
        "slices": slices_view(card),
        "calibration": calibration_view(card),
        "curves": curves_view(card),
        "confusion": confusion_view(card),
        "distributions": distribution_plots(card),
        "load": load_view(card),
        "concurrent": concurrent_rows(card),
        "loadgen": loadgen_rows(card),
        "energy": energy_view(card),
        "cost": cost_view(card),
        "flips": flips_view(card),
        "graph": lineage_graph(card),
        "lineage": lineage_rows(card),
        "unused": unused_features(card),
        "row_pictures": row_pictures(card),
        "method": paragraphs(card),
        "controls": controls(card),
        "method_panels": method_panels(card),
        "footer": footer(card),
    }


def _caption(card: CardInput) -> str:
    rows = card.baseline_validation.rows if card.baseline_validation else None
    where = f"On {rows:,} validation rows".replace(",", "\u202f") if rows else "On validation rows"
    return (
        f"{where}, objective {words(card.selection.objective)}. Speed-ups are against the "
        f"baseline in the same process; under each value its {percent(card.confidence, 2)} interval"
    )
