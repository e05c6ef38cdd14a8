"""What several commands need."""

import importlib.util
import sys
from pathlib import Path

from rich.console import Console

from trimgate.config import load_config
from trimgate.errors import MissingExtra
from trimgate.plan import Plan, make_plan


def console() -> Console:
    """Standard output, bound to the real stream at the time of the call."""
    return Console(file=sys.stdout, soft_wrap=False)


def need(package: str, extra: str) -> None:
    """Refuses with one line when an optional package is not installed.

    Raises:
        MissingExtra: It is not.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(package, extra)


def plan_from(file: str) -> Plan:
    """Reads and checks a config, its rows and its model.

    A torch builder may stand beside the config: its folder is importable from here on, for the
    tasks' processes too.
    """
    need("kfp", "pipelines")
    add_to_path(Path(file).resolve().parent)
    return make_plan(load_config(file), file)


def add_to_path(folder: Path) -> None:
    """Makes modules in a folder importable, here and in processes started from here."""
    import os

    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    paths = [str(folder), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
