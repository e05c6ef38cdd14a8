"""`trimgate stop`."""

import argparse

from trimgate.cli._common import console
from trimgate.cli._run import server_state
from trimgate.config import load_config


def run(arguments: argparse.Namespace) -> int:
    """Stops the server that `run --serve` left, if it still runs."""
    from trimgate.serving import stop_recorded

    config = load_config(arguments.config)
    stopped = stop_recorded(server_state(config))
    console().print("stopped" if stopped else "no server of this model runs")
    return 0
