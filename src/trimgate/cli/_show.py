"""What the terminal shows of a finished run."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimgate.report import CardInput, headline, leaderboard_rows, refused_recipes, verdict_text

_STYLE = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow", "baseline": "bold cyan"}


def show_result(card: CardInput, html: Path, out: Console) -> None:
    """Prints leaderboard, verdict, what changed, and where the card is.

    Args:
        card: The finished run.
        html: The card's file.
        out: Where to print.
    """
    rows = leaderboard_rows(card.selection, card.candidates, card.baseline_validation)
    batches = sorted({batch for row in rows for batch in row.speedups if batch})
    table = Table(title=f"{card.name} on {card.target.name} (validation)", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("recipe")
    for name in (card.selection.metric.replace("_", " "), "vs baseline"):
        table.add_column(name, justify="right")
    for batch in batches:
        table.add_column(f"speed, {batch} row{'s' * (batch > 1)}", justify="right")
    table.add_column("size", justify="right")
    table.add_column("memory", justify="right")
    for row in rows:
        speeds = [row.speedups.get(batch) for batch in batches]
        cells = [row.metric.value, row.difference.value, *(s.value if s else "1.00×" for s in speeds)]
        table.add_row(
            "★" if row.winner else row.rank,
            row.name,
            *cells,
            row.size,
            row.peak_rss,
            style="bold" if row.winner else "dim" if not row.admissible else None,
        )
    out.print()
    out.print(table)
    for refused in refused_recipes(card):
        out.print(Text(f"not tried: {refused.name}: {refused.reason}", style="dim"))
    verdict = verdict_text(card)
    out.print()
    out.print(Text(f"{verdict.word.upper()}  {verdict.title}", style=_STYLE[verdict.status]))
    out.print(Text(verdict.summary))
    claims = [claim.text for claim in headline(card) if claim.primary]
    if claims:
        out.print(Text(" · ".join(claims), style="bold"))
    if card.verdict:
        for rule in card.verdict.rules:
            mark = {"pass": "✓", "fail": "✗", "inconclusive": "?"}[rule.outcome]
            out.print(Text(f"  {mark} {rule.rule}: {rule.reason}", style=_STYLE[rule.outcome][5:]))
    out.print()
    out.print(Text(f"card     {html}"), soft_wrap=True)
