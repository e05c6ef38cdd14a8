"""`trimgate serve`."""

import argparse
from pathlib import Path

from trimgate.cli._common import need


def run(arguments: argparse.Namespace) -> int:
    """Serves a model directory until it is told to end."""
    need("kserve", "serving")
    from trimgate.serving import serve

    serve(
        Path(arguments.model),
        host=arguments.host,
        port=arguments.port,
        grpc_port=arguments.grpc_port,
        threads=arguments.threads,
        name=arguments.name,
    )
    return 0
