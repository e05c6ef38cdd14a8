"""`trimgate submit`."""

import argparse
import os
from pathlib import Path

from trimgate.cli._common import console, need
from trimgate.errors import InvalidInput


def run(arguments: argparse.Namespace) -> int:
    """Starts a compiled pipeline and prints where to watch it."""
    need("kfp", "pipelines")
    from trimgate.ops.kfp_submit import submit

    values: dict[str, object] = {}
    for text in arguments.parameter:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(
                "must be NAME=VALUE", key="--parameter", value=text, mend="write model_uri=s3://..."
            )
        values[name] = value
    if arguments.fail_on_reject:
        values["fail_on_reject"] = True
    run_id, url = submit(
        arguments.pipeline,
        host=arguments.host,
        token=_token(arguments),
        namespace=arguments.namespace,
        experiment=arguments.experiment,
        run_name=arguments.run_name,
        service_account=arguments.service_account,
        arguments=values,
    )
    console().print(f"run {run_id}\n{url}", highlight=False, soft_wrap=True)
    return 0


def _token(arguments: argparse.Namespace) -> str | None:
    if arguments.token_file is None:
        return arguments.token or os.environ.get("TRIMGATE_KFP_TOKEN")
    file = Path(arguments.token_file)
    if not file.is_file():
        raise InvalidInput("the file is missing", key="--token-file", value=str(file))
    return file.read_text().strip()
