"""The card of a run: one self-contained HTML file, its Markdown twin, and the terminal's lines."""

from trimgate.report._card import CardInput, DataInfo, Refused, SplitRows, Status
from trimgate.report._compare import ONLY_RATIOS, RunLine, compare_runs, comparison_json
from trimgate.report._examples import Example, Examples, changed_most, pick_examples
from trimgate.report._format import Cell
from trimgate.report._headline import Headline, headline
from trimgate.report._html import render_comparison, render_html, save_card
from trimgate.report._leaderboard import LeaderboardRow, leaderboard_rows, refused_recipes
from trimgate.report._markdown import (
    comparison_markdown,
    leaderboard_markdown,
    render_markdown,
    verdict_markdown,
)
from trimgate.report._pull_request import pull_request_markdown
from trimgate.report._verdict import VerdictText, verdict_text

__all__ = [
    "ONLY_RATIOS",
    "CardInput",
    "Cell",
    "DataInfo",
    "Example",
    "Examples",
    "Headline",
    "LeaderboardRow",
    "Refused",
    "RunLine",
    "SplitRows",
    "Status",
    "VerdictText",
    "changed_most",
    "compare_runs",
    "comparison_json",
    "comparison_markdown",
    "headline",
    "leaderboard_markdown",
    "leaderboard_rows",
    "pick_examples",
    "pull_request_markdown",
    "refused_recipes",
    "render_comparison",
    "render_html",
    "render_markdown",
    "save_card",
    "verdict_markdown",
    "verdict_text",
]
