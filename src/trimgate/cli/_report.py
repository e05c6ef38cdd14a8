"""`trimgate report`."""

import argparse
from pathlib import Path

from trimgate.cli._common import console
from trimgate.cli._show import show_result
from trimgate.errors import InvalidInput


def run(arguments: argparse.Namespace) -> int:
    """Shows a finished run, with its card made anew from the records."""
    from trimgate.report import CardInput, render_markdown, save_card

    folder = Path(arguments.run)
    if not folder.is_dir() and (Path("trimgate-runs") / arguments.run).is_dir():
        folder = Path("trimgate-runs") / arguments.run
    file = folder / "card.json"
    if not file.is_file():
        raise InvalidInput(
            "is not the folder of a finished run (it has no card.json)",
            file=folder,
            mend="see the folders in trimgate-runs",
        )
    try:
        card = CardInput.model_validate_json(file.read_bytes())
    except ValueError as error:
        raise InvalidInput("is not a card record", file=file) from error
    if arguments.format == "json":
        print(file.read_text(), end="")
    elif arguments.format == "markdown":
        print(render_markdown(card), end="")
    else:
        save_card(card, folder)
        show_result(card, folder / "card.html", console())
    return 0
