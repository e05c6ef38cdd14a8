"""`trimgate diff`."""

import argparse
import json

from trimgate.cli._common import console
from trimgate.cli._releases import settings, table
from trimgate.tasks import releases_of


def run(arguments: argparse.Namespace) -> int:
    """Prints what is released in one environment and not in another."""
    from trimgate.ops.promotion import diff

    section, _ = settings(arguments)
    first, second = arguments.first, arguments.second
    found = diff(releases_of(section), first, second, arguments.name)
    if arguments.json:
        told = {
            each.name: {key: {first: one, second: other} for key, one, other in each.changes}
            for each in found
        }
        print(json.dumps(told, indent=2))
        return 0
    out = console()
    if not found:
        out.print(f"{first} and {second} release the same", highlight=False)
        return 0
    shown = table("model", "", first, second)
    for each in found:
        for number, (key, one, other) in enumerate(each.changes):
            shown.add_row("" if number else each.name, key, one or "none", other or "none")
    out.print(shown, highlight=False, markup=False)
    return 0
