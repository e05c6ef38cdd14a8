"""`trimgate rollback`."""

import argparse

from trimgate.cli._releases import keep_champion, settings, show
from trimgate.tasks import releases_of


def run(arguments: argparse.Namespace) -> int:
    """Reverts the last promotion of a model in an environment."""
    from trimgate.ops.promotion import rollback

    section, mlflow = settings(arguments)
    releases = releases_of(section)
    done = rollback(
        releases,
        arguments.name,
        arguments.environment,
        how="pull-request" if arguments.pull_request else "commit",
    )
    show(done, as_json=arguments.json)
    if arguments.environment == list(releases.environments)[-1]:
        keep_champion(mlflow, done)
    return 0
