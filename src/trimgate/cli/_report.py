"""`trimgate report`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from trimgate.cli._common import RUNS, check_output, console, read_card, run_folder
from trimgate.cli._show import STYLE, show_result
from trimgate.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

    from trimgate.report import CardInput


def run(arguments: argparse.Namespace) -> int:
    """Shows a finished run, with its card made anew from the records; or compares several."""
    from trimgate.report import pull_request_markdown, render_markdown, save_card

    if arguments.compare:
        return _compare(arguments)
    if arguments.output:
        raise InvalidInput("goes with --compare", key="--output", value=arguments.output)
    if len(arguments.run) != 1:
        told = "no run is named" if not arguments.run else "several runs are named"
        raise InvalidInput(told, key="RUN", mend="name one, or add --compare")
    folder = run_folder(arguments.run[0])
    card = read_card(folder)
    if arguments.format == "json":
        print((folder / "card.json").read_text(), end="")
    elif arguments.format == "markdown":
        print(render_markdown(card), end="")
    elif arguments.format == "pull-request":
        print(pull_request_markdown(card), end="")
    else:
        save_card(card, folder)
        show_result(card, folder / "card.html", console())
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    """Compares runs: a table here, and a page with the trends."""
    from trimgate.report import comparison_json, comparison_markdown, render_comparison

    folders, beside = _runs(arguments.run)
    output = Path(arguments.output) if arguments.output else beside / "compare.html"
    check_output(output)
    cards = [read_card(folder) for folder in folders]
    if arguments.format == "json":
        print(comparison_json(cards), end="")
    elif arguments.format in ("markdown", "pull-request"):
        print(comparison_markdown(cards), end="")
    else:
        partial = output.with_name(f".{output.name}.partial")
        partial.write_text(render_comparison(cards), encoding="utf-8")
        partial.replace(output)
        _show(cards, output, console())
    return 0


def _runs(names: list[str]) -> tuple[list[Path], Path]:
    """The folders of the runs, and the folder that holds them.

    Raises:
        InvalidInput: There are none.
    """
    if len(names) > 1:
        folders = [run_folder(name) for name in names]
        return folders, folders[0].absolute().parent
    root = Path(names[0]) if names else RUNS
    found = sorted(file.parent for file in root.glob("*/card.json"))
    if not found:
        raise InvalidInput(
            "holds no finished runs", file=root, mend="name the runs, or the folder that holds them"
        )
    return found, root


def _show(cards: "list[CardInput]", page: Path, out: "Console") -> None:
    from trimgate.report import ONLY_RATIOS, compare_runs

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("winner", overflow="fold")
    for name in ("difference", "speed-up", "CPU", "smaller", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in compare_runs(cards):
        cells = line.cells
        table.add_row(
            line.run,
            Text(line.word, style=STYLE[line.status]),
            line.recipe,
            *(cells[k].value for k in ("difference", "speedup", "cost", "size", "memory")),
        )
    out.print(table)
    out.print(Text(ONLY_RATIOS, style="dim"))
    out.print()
    out.print(Text(f"page     {page}"), soft_wrap=True)
