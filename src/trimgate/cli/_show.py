"""What the terminal shows of a finished run."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimgate.report import CardInput, headline, leaderboard_rows, refused_recipes, verdict_text

STYLE = {
    "pass": "bold green",
    "fail": "bold red",
    "inconclusive": "bold yellow",
    "baseline": "bold cyan",
}


def show_result(card: CardInput, html: Path, out: Console) -> None:
    """Prints leaderboard, verdict, what changed, and where the card is.

    Args:
        card: The finished run.
        html: The card's file.
        out: Where to print.
    """
    rows = leaderboard_rows(card.selection, card.candidates, card.baseline_validation)
    batches = sorted({batch for row in rows for batch in row.speedups if batch})
    metric = card.selection.metric.replace("_", " ")
    table = Table(
        title=f"{card.name} on {card.target.name}: {metric} on the validation rows",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("", justify="right")
    table.add_column("recipe", overflow="fold")
    for name in ("metric", "vs baseline"):
        table.add_column(name, justify="right", no_wrap=True)
    for batch in batches:
        table.add_column(f"{batch} row{'s' * (batch > 1)}", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    for row in rows:
        cells = [row.metric.value, row.difference.value]
        cells += [row.speedups[b].value if b in row.speedups else "1×" for b in batches]
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
    by_reason: dict[str, list[str]] = {}
    for refused in refused_recipes(card):
        by_reason.setdefault(refused.reason, []).append(refused.name)
    for reason, names in by_reason.items():
        out.print(Text(f"left out: {', '.join(names)}: {reason}", style="dim"))
    verdict = verdict_text(card)
    out.print()
    out.print(Text(f"{verdict.word.upper()}  {verdict.title}", style=STYLE[verdict.status]))
    out.print(Text(verdict.summary))
    claims = [claim.text for claim in headline(card) if claim.primary]
    if claims:
        out.print(Text(" · ".join(claims), style="bold"))
    if card.verdict and not card.verdict.keeps_baseline:
        for rule in card.verdict.rules:
            mark = {"pass": "✓", "fail": "✗", "inconclusive": "?"}[rule.outcome]
            line = Text(f"{rule.rule}: {rule.reason}", style=STYLE[rule.outcome][5:])
            grid = Table.grid(padding=(0, 1, 0, 0))
            grid.add_row(Text(f"  {mark}", style=line.style), line)
            out.print(grid, soft_wrap=not out.is_terminal)
    out.print()
    out.print(Text(f"card     {html}"), soft_wrap=True)
