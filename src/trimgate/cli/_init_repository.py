"""`trimgate init-repository`."""

import argparse
import json

from trimgate.cli._common import console
from trimgate.cli._releases import settings
from trimgate.errors import InvalidInput
from trimgate.tasks import releases_of


def run(arguments: argparse.Namespace) -> int:
    """Adds a model's base and overlays to the config repository."""
    from trimgate.config import load_config
    from trimgate.ops.git import add_to_repository

    section, _ = settings(arguments)
    releases = releases_of(section)
    name = arguments.name or (load_config(arguments.config).name if arguments.config else None)
    if name is None:
        raise InvalidInput("is missing", key="--name", mend="name the model, or the config")
    with releases.open() as repository:
        revision = add_to_repository(
            repository,
            name,
            list(releases.environments),
            mode=releases.mode,
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
