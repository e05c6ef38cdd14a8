"""The card of a run: one self-contained HTML file, its Markdown twin, and the terminal's lines."""

from trimgate.report._card import CardInput, DataInfo, Refused, SplitRows, Status
from trimgate.report._format import Cell
from trimgate.report._headline import Headline, headline
from trimgate.report._html import render_html, save_card
from trimgate.report._leaderboard import LeaderboardRow, leaderboard_rows, refused_recipes
from trimgate.report._markdown import leaderboard_markdown, render_markdown, verdict_markdown
from trimgate.report._verdict import VerdictText, verdict_text

__all__ = [
    "CardInput",
    "Cell",
    "DataInfo",
    "Headline",
    "LeaderboardRow",
    "Refused",
    "SplitRows",
    "Status",
    "VerdictText",
    "headline",
    "leaderboard_markdown",
    "leaderboard_rows",
    "refused_recipes",
    "render_html",
    "render_markdown",
    "save_card",
    "verdict_markdown",
    "verdict_text",
]
