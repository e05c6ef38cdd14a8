"""`trimgate init-repository`."""

import argparse
import json
from pathlib import Path

from trimgate.cli._common import console, read_card, run_folder
from trimgate.cli._releases import CONFIG, settings
from trimgate.config import load_config
from trimgate.errors import InvalidInput
from trimgate.tasks import releases_of, serving_for


def run(arguments: argparse.Namespace) -> int:
    """Adds a model's base and overlays to the config repository."""
    from trimgate.ops.git import add_to_repository
    from trimgate.ops.kserve import Serving

    section, _ = settings(arguments)
    releases = releases_of(section)
    file = arguments.config or (CONFIG if Path(CONFIG).is_file() else None)
    config = load_config(file) if file else None
    card = read_card(run_folder(arguments.run)) if arguments.run else None
    name = arguments.name or (config.name if config else None)
    if name is None:
        raise InvalidInput("is missing", key="--name", mend="name the model, or the config")
    serving = config.serving if config else Serving(mode=releases.mode)
    with releases.open() as repository:
        revision = add_to_repository(
            repository,
            name,
            list(releases.environments),
            serving=serving_for(serving, card),
            namespaces=releases.namespaces,
        )
    if arguments.json:
        print(json.dumps({"name": name, "revision": revision}))
    elif revision is None:
        console().print(f"{name} is in {releases.access.shown} already", highlight=False)
    else:
        console().print(
            f"{name} is in {releases.access.shown} (commit {revision[:12]}); look through "
            f"base/{name}/inferenceservice.yaml",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    return 0
