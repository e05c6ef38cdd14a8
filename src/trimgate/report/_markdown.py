"""The Markdown twin of the card, for pull requests and for viewers that show no raw HTML."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC

from trimgate.judge.records import Candidate, Evaluation, RuleResult, Selection, Verdict
from trimgate.report._card import CardInput
from trimgate.report._compare import ONLY_RATIOS, comparison_table
from trimgate.report._features import unused_features
from trimgate.report._format import sentence, words
from trimgate.report._headline import headline, rows_per_call
from trimgate.report._leaderboard import leaderboard_rows, refused_recipes
from trimgate.report._markdown_sections import plots_markdown
from trimgate.report._method import controls, footer, method_panels
from trimgate.report._rules import rule_row
from trimgate.report._verdict import no_gate, rule_counts, verdict_text
from trimgate.report._views import (
    agreement,
    lineage_rows,
    quality_rows,
    served_view,
)

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&])|^(?=[-+=]+(?:\s|$))|(?<=^\d)(?=[.)]\s)")
_BREAKS = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]+")
_OUTCOMES = {"pass": "✓ pass", "fail": "✗ fail", "inconclusive": "? inconclusive"}


def render_markdown(card: CardInput) -> str:
    """The card as Markdown without raw HTML: verdict, headline, leaderboard, rules, details."""
    verdict = verdict_text(card)
    parts = [f"# {verdict.word}: {escape(verdict.title)}", escape(verdict.summary)]
    if lines := headline(card):
        parts.append(
            "\n".join(
                f"- **{escape(h.text)}** ({escape(h.topic)}: {escape(h.detail)})" for h in lines
            )
        )
    parts.append(leaderboard_markdown(card.selection, card.candidates, card.baseline_validation))
    parts += _gate(card)
    parts += _quality(card)
    parts += plots_markdown(card, table, escape)
    parts += _served(card)
    parts += _lineage(card)
    parts += _refused(card)
    parts += _method(card)
    return "\n\n".join(part for part in parts if part) + "\n"


def leaderboard_markdown(
    selection: Selection,
    candidates: Iterable[Candidate] = (),
    baseline: Evaluation | None = None,
) -> str:
    """The leaderboard as Markdown (see `leaderboard_rows`)."""
    rows = leaderboard_rows(selection, candidates, baseline)
    parts = ["## Leaderboard", escape(sentence(selection.reason))]
    if all(row.reference for row in rows):
        return "\n\n".join([*parts, "No recipe was measured."])
    sizes = list(dict.fromkeys(size for row in rows for size in row.speedups))
    header = [
        "#", "Recipe", words(selection.metric), "vs baseline",
        *(f"speed-up, {rows_per_call(s)}" if s else "speed-up" for s in sizes),
        "CPU speed-up", "size", "peak memory", "cold start", "why",
    ]  # fmt: skip
    body = [
        [
            row.rank,
            f"{row.name} (winner)" if row.winner else row.name,
            str(row.metric),
            str(row.difference),
            *(str(row.speedups.get(s, "1×" if row.reference else "–")) for s in sizes),
            "1×" if row.reference else str(row.cpu),
            row.size,
            row.peak_rss,
            row.cold_start,
            row.reason,
        ]
        for row in rows
    ]
    return "\n\n".join([*parts, table(header, body, right=range(2, len(header) - 1))])


def verdict_markdown(verdict: Verdict, primary: str = "") -> str:
    """A verdict and its rules as Markdown, the outcome first.

    Args:
        verdict: What the gate said.
        primary: The primary metric.
    """
    outcome = "baseline kept" if verdict.keeps_baseline else verdict.outcome
    parts = [f"# {sentence(outcome)}", escape(sentence(verdict.summary))]
    if not verdict.keeps_baseline:
        parts.append(_rules_table(verdict.rules, primary))
    return "\n\n".join(parts) + "\n"


def gate_markdown(card: CardInput) -> str:
    """The gate's rules as a table."""
    return _rules_table(card.rules, card.selection.metric)


def quality_markdown(card: CardInput) -> str:
    """Every metric on the test rows as a table, and which answers changed."""
    header = ["metric", "baseline", "winner", "difference", "better is"]
    keys = ("name", "baseline", "winner", "difference", "better")
    body = [[str(row[key]) for key in keys] for row in quality_rows(card)]
    return "\n\n".join(
        part for part in (table(header, body, right=(1, 2, 3)), escape(agreement(card))) if part
    )


def _gate(card: CardInput) -> list[str]:
    if not card.rules:
        return ["## Gate", no_gate(card)]
    return ["## Gate", rule_counts(card) + ".", gate_markdown(card)]


def comparison_markdown(cards: Iterable[CardInput]) -> str:
    """Several runs over time as a Markdown table."""
    header, body = comparison_table(cards)
    return "\n\n".join(["# Runs compared", table(header, body), escape(ONLY_RATIOS)]) + "\n"


def _rules_table(results: Iterable[RuleResult], primary: str) -> str:
    rules = [rule_row(result, primary) for result in results]
    body = [
        [
            r.label,
            str(r.observed),
            r.limit,
            _OUTCOMES[r.outcome],
            r.reason + (f" About {r.rows_needed} rows would decide it." if r.rows_needed else ""),
        ]
        for r in rules
    ]
    header = ["rule", "observed", "limit", "outcome", "why"]
    return table(header, body, right=(1, 2))


def _quality(card: CardInput) -> list[str]:
    return ["## Quality on the test rows", quality_markdown(card)] if card.winner_test else []


def _served(card: CardInput) -> list[str]:
    served = served_view(card)
    if served is None:
        return []
    lines = [f"- {'✓' if held else '✗'} {escape(name)}" for name, held in served["checks"]]
    lines += [f"- ✗ {escape(error)}" for error in served["errors"]]
    return ["## The served model", escape(served["detail"]) + ".", "\n".join(lines)]


def _lineage(card: CardInput) -> list[str]:
    steps = lineage_rows(card)
    if not steps:
        return []
    lines = [
        f"{i}. {escape(s['title'])}"
        + "".join(f", {escape(k)} {escape(v)}" for k, v in s["parameters"])
        + (f" ({escape(s['short'])})" if s["digest"] else "")
        + (f". {escape(s['remark'])}" if s["remark"] else "")
        for i, s in enumerate(steps, 1)
    ]
    parts = ["## How the winner was made", "\n".join(lines)]
    if unused := unused_features(card):
        names = ", ".join(escape(n) for n in unused["names"])
        more = f" and {unused['more']} more" if unused["more"] else ""
        parts += ["## Features no longer used", escape(unused["lead"]), f"{names}{more}."]
    return parts


def _refused(card: CardInput) -> list[str]:
    body = [[r.name, sentence(r.reason)] for r in refused_recipes(card)]
    return ["## Refused recipes", table(["recipe", "why"], body)] if body else []


def _method(card: CardInput) -> list[str]:
    parts = ["## How it was measured"]
    if rows := controls(card):
        header = ["batch", "A/A control", "A/A control, CPU", "rounds", "processes", "state"]
        keys = ("rows", "wall", "cpu", "rounds", "processes", "state")
        parts.append(table(header, [[str(r[k]) for k in keys] for r in rows], right=(1, 2, 3, 4)))
    for panel in method_panels(card):
        facts = "; ".join(f"{k} {v}" for k, v in panel["pairs"])
        notes = "".join(f" {note}." for note in panel["notes"])
        parts.append(f"**{panel['title']}.** {escape(facts)}.{escape(notes)}")
    made = card.created.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    pairs = "; ".join(f"{k} {v}" for k, v in (*footer(card), ("Made", made)))
    return [*parts, escape(pairs)]


def table(header: Sequence[str], body: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A Markdown table of escaped cells; the columns in `right` are aligned to the right."""
    numeric = set(right)
    rule = ["---:" if i in numeric else "---" for i in range(len(header))]
    lines = [[escape(h) for h in header], rule, *([escape(c) for c in row] for row in body)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escape(text: str) -> str:
    """Text that no viewer reads as markup, on one line."""
    return _SPECIAL.sub(lambda m: "\\" + m.group(), _BREAKS.sub(" ", text))
