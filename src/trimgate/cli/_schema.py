"""`trimgate schema`."""

import argparse

from trimgate.config import json_schema


def run(_arguments: argparse.Namespace) -> int:
    """Prints the JSON Schema of the config file, for editors."""
    print(json_schema(), end="")
    return 0
