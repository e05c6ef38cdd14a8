"""What several commands need."""

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from trimgate.config import load_config
from trimgate.errors import InvalidInput, MissingExtra
from trimgate.plan import Plan, make_plan
from trimgate.tasks import fetch_model

if TYPE_CHECKING:
    from trimgate.report import CardInput

RUNS = Path("trimgate-runs")


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


def plan_from(file: str, runs: Path | None = None) -> Plan:
    """Reads and checks a config, its rows and its model.

    A torch builder may stand beside the config: its folder is importable from here on, for the
    tasks' processes too.

    Args:
        file: The config.
        runs: Folder of the runs, where a model of the registry is kept; beside the config when
            left out.
    """
    need("kfp", "pipelines")
    folder = Path(file).resolve().parent
    add_to_path(folder)
    runs = runs or folder / RUNS
    config, uri = fetch_model(load_config(file), runs.resolve() / "work" / "models", file)
    plan = make_plan(config, file)
    return dataclasses.replace(plan, model_uri=uri if uri.startswith("s3://") else "")


def check_writable(folder: Path, key: str, file: str | None = None) -> None:
    """Whether a folder can be written, or made when it is not there yet.

    Args:
        folder: The folder.
        key: The option or config key that names it, for the message.
        file: The config file, for the message.

    Raises:
        InvalidInput: It cannot.
    """
    above = folder.absolute()
    while not above.exists() and not above.is_symlink():
        above = above.parent
    reason = None
    if not above.is_dir():
        reason = f"{above} is not a folder"
    elif not os.access(above, os.W_OK | os.X_OK):
        reason = f"{above} cannot be written"
    if reason:
        raise InvalidInput(
            reason, file=file, key=key, value=str(folder), mend="name a folder of yours"
        )


def check_output(file: Path) -> None:
    """Whether a file can be written.

    Raises:
        InvalidInput: It is a folder, or its folder is missing or cannot be written.
    """
    reason = None
    if file.is_dir():
        reason = "is a folder; name a file in it"
    elif not file.absolute().parent.is_dir():
        reason = f"the folder {file.parent} is missing"
    elif not os.access(file.absolute().parent, os.W_OK | os.X_OK):
        reason = f"the folder {file.parent} cannot be written"
    if reason:
        raise InvalidInput(reason, key="--output", value=str(file))


def add_to_path(folder: Path) -> None:
    """Makes modules in a folder importable, here and in processes started from here."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    paths = [str(folder), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def run_folder(name: str) -> Path:
    """The folder of a run, by its path or by its name in `trimgate-runs`."""
    folder = Path(name)
    return RUNS / name if not folder.is_dir() and (RUNS / name).is_dir() else folder


def read_card(folder: Path) -> "CardInput":
    """The record of a finished run.

    Raises:
        InvalidInput: There is none, or it is damaged.
    """
    from trimgate.report import CardInput

    file = folder / "card.json"
    if not file.is_file():
        raise InvalidInput(
            "is not the folder of a finished run (it has no card.json)",
            file=folder,
            mend="see the folders in trimgate-runs",
        )
    try:
        return CardInput.model_validate_json(file.read_bytes())
    except ValueError as error:
        raise InvalidInput("is not a card record", file=file) from error
