"""The verdict in words."""

from dataclasses import dataclass

from trimgate.report._card import CardInput, Status
from trimgate.report._format import THIN, count, sentence

_WORDS: dict[Status, str] = {
    "pass": "Passed",
    "fail": "Rejected",
    "inconclusive": "Inconclusive",
    "baseline": "Baseline kept",
}


@dataclass(frozen=True)
class VerdictText:
    """The outcome: its status, one word for it, a line, and why."""

    status: Status
    word: str
    title: str
    summary: str


def verdict_text(card: CardInput) -> VerdictText:
    """What the run decided, for the top of the card."""
    winner = card.selection.winner
    titles: dict[Status, str] = {
        "pass": f"“{winner}” may replace the baseline",
        "fail": f"“{winner}” must not replace the baseline",
        "inconclusive": f"Not yet proven: “{winner}” stays out of production",
        "baseline": "The model stays as it is: no recipe beat it",
    }
    if card.status == "baseline":
        summary = card.selection.reason or (card.verdict.summary if card.verdict else "")
    elif card.verdict is None:
        summary = no_gate(card)
    else:
        summary = card.verdict.summary
    return VerdictText(card.status, _WORDS[card.status], titles[card.status], sentence(summary))


def rule_counts(card: CardInput) -> str:
    """How the rules came out ("5 of 6 rules passed, 1 inconclusive"); empty without rules."""
    rules = card.rules
    if not rules:
        return ""
    by = {kind: sum(r.outcome == kind for r in rules) for kind in ("pass", "fail", "inconclusive")}
    text = f"{count(by['pass'])} of {count(len(rules))} rule{'s' * (len(rules) != 1)} passed"
    if by["fail"]:
        text += f", {by['fail']} failed"
    if by["inconclusive"]:
        text += f", {by['inconclusive']} inconclusive"
    return text


def gate_level(card: CardInput) -> str:
    """What level the gate's intervals have, when it is not that of the rest of the card."""
    levels = {r.observed.confidence for r in card.rules if r.observed and r.observed.confidence < 1}
    level = min(levels, default=card.confidence)
    if abs(level - card.confidence) < 1e-9:
        return ""
    two_sided, one_sided = (f"{100 * x:.4g}{THIN}%" for x in (level, (1 + level) / 2))
    return f"Its intervals are at {two_sided}, which is {one_sided} on the side that counts."


def no_gate(card: CardInput) -> str:
    """Why there are no gate rules to show."""
    if card.status == "baseline":
        return "There was nothing to gate: the baseline was kept."
    if card.verdict is None:
        return "The gate did not run. Without a verdict nothing is called passed."
    return "The gate had no rules. Without rules nothing is called passed."
