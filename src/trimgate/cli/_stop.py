"""`trimgate stop`."""

import argparse

from trimgate.cli._common import console
from trimgate.cli._rollout import state_files
from trimgate.cli._run import server_state
from trimgate.config import load_config


def run(arguments: argparse.Namespace) -> int:
    """Stops what `run --serve` and `rollout serve --detach` left, if it still runs."""
    from trimgate.serving import stop_recorded

    config = load_config(arguments.config)
    files = [server_state(config), *state_files(config.promote.store, config.name)]
    stopped = [file for file in files if stop_recorded(file)]
    console().print("stopped" if stopped else "no server of this model runs")
    return 0
