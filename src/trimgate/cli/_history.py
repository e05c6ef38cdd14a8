"""`trimgate history`."""

import argparse
import json

from trimgate.cli._common import console
from trimgate.cli._releases import as_dict, settings, table
from trimgate.tasks import releases_of


def run(arguments: argparse.Namespace) -> int:
    """Prints the commits that changed a model's releases, the newest first."""
    from trimgate.ops.promotion import history

    section, _ = settings(arguments)
    entries = history(releases_of(section), arguments.name, arguments.environment)
    if arguments.json:
        listed = [
            {
                "revision": entry.revision,
                "time": entry.time.isoformat(),
                "author": entry.author,
                "subject": entry.subject,
                **as_dict(entry.release),
            }
            for _, entry in entries
        ]
        print(json.dumps(listed, indent=2))
        return 0
    out = table("time", "environment", "stable", "canary", "commit", "what")
    for environment, entry in entries:
        stable, canary = entry.release.stable, entry.release.canary
        out.add_row(
            f"{entry.time.astimezone():%Y-%m-%d %H:%M:%S}",
            environment,
            stable.digest[7:19] if stable else "none",
            f"{canary.digest[7:19]} {entry.release.traffic_percent} %" if canary else "",
            entry.revision[:12],
            entry.subject,
        )
    console().print(out, highlight=False, markup=False)
    return 0
