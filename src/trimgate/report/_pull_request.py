"""The card as a comment on a pull request: short, the verdict first, the rest folded away."""

import re

from trimgate.report._card import CardInput
from trimgate.report._format import count, words
from trimgate.report._headline import headline
from trimgate.report._leaderboard import leaderboard_rows, refused_recipes
from trimgate.report._markdown import escape, gate_markdown, quality_markdown, table
from trimgate.report._markdown_sections import plots_markdown
from trimgate.report._method import footer
from trimgate.report._verdict import rule_counts, verdict_text
from trimgate.report._views import short_digest

LIMIT = 60_000
"""Characters. GitHub takes 65,536, and whoever posts the text may have to add to it."""

_MOST_ROWS = 20
_MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "❔", "baseline": "➖"}
# What a forge would make a mention, a reference or a link of, in spite of Markdown's escapes.
_LINKS = re.compile(r"(@|#|://|www\.)(?=\w)", re.IGNORECASE)


def pull_request_markdown(card: CardInput, *, limit: int = LIMIT) -> str:
    """The card for a pull request on GitHub, GitLab or Gitea.

    Verdict and what changes stand open; gate, quality, leaderboard and provenance are folded.
    What does not fit into the limit is left out from the end, and a line says so.

    Args:
        card: What the card shows.
        limit: The most characters.
    """
    verdict = verdict_text(card)
    parts = [
        f"## {_MARKS[verdict.status]} {verdict.word}: {_plain(verdict.title)}",
        _plain(verdict.summary),
        _changes(card),
    ]
    text = "\n\n".join(part for part in parts if part)
    left_out = []
    for title, body in _folded(card):
        block = f"\n\n<details><summary>{_plain(title)}</summary>\n\n{body}\n\n</details>"
        if len(text) + len(block) > limit - 300:
            left_out.append(title)
        else:
            text += block
    if left_out:
        text += f"\n\nLeft out for length, see the card: {_plain('; '.join(left_out))}."
    return text[: limit - 1] + "\n"


def _changes(card: CardInput) -> str:
    lines = headline(card)
    if not lines:
        return ""
    body = [
        [line.topic, " ".join(filter(None, (line.value, line.word))), line.interval, line.detail]
        for line in lines
    ]
    return _unlinked(table(["", "change", "interval", "baseline → winner"], body))


def _folded(card: CardInput) -> list[tuple[str, str]]:
    """The sections that are folded away, the most important first."""
    found = []
    if card.rules:
        found.append((f"Gate: {rule_counts(card)}", _unlinked(gate_markdown(card))))
    if card.winner_test:
        rows = f"{count(card.winner_test.rows)} test rows"
        found.append((f"Quality on {rows}", _unlinked(quality_markdown(card))))
    found += [
        (part.removeprefix("## "), _unlinked(body))
        for part, body in _sections(plots_markdown(card, table, escape))
    ]
    found.append(_leaderboard(card))
    refused = [[r.name, r.reason] for r in refused_recipes(card)][:_MOST_ROWS]
    if refused:
        found.append(("Refused recipes", _unlinked(table(["recipe", "why"], refused))))
    pairs = [[key, value] for key, value in footer(card)]
    found.append(("Provenance", _unlinked(table(["", ""], pairs))))
    return found


def _sections(parts: list[str]) -> list[tuple[str, str]]:
    """Parts of a Markdown text as headings with what stands below them."""
    found: list[tuple[str, list[str]]] = []
    for part in parts:
        if part.startswith("## "):
            found.append((part, []))
        else:
            found[-1][1].append(part)
    return [(heading, "\n\n".join(body)) for heading, body in found]


def _leaderboard(card: CardInput) -> tuple[str, str]:
    selection = card.selection
    rows = leaderboard_rows(selection, card.candidates, card.baseline_validation)
    digests = {r.name: short_digest(r.model) for r in selection.ranking}
    shown = rows[:_MOST_ROWS]
    body = [
        [
            row.rank,
            f"{row.name} (winner)" if row.winner else row.name,
            row.difference.value,
            str(next(iter(row.speedups.values()), "1×")),
            row.size,
            digests.get(row.name, ""),
        ]
        for row in shown
    ]
    metric = words(selection.metric)
    header = ["#", "recipe", f"{metric} vs baseline", "speed-up", "size", "model"]
    text = table(header, body, right=(2, 3, 4))
    if len(rows) > len(shown):
        text += f"\n\nand {len(rows) - len(shown)} more"
    return f"Leaderboard: {count(len(rows))} models", _unlinked(text)


def _plain(text: str) -> str:
    return _unlinked(escape(text))


def _unlinked(text: str) -> str:
    """Text in which nothing notifies people, refers to an issue or becomes a link."""
    return _LINKS.sub("\\1\u2060", text)
