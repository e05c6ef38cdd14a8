"""`trimgate serve`."""

import argparse
from pathlib import Path

from trimgate.cli._common import need
from trimgate.serving import Address, serve


def run(arguments: argparse.Namespace) -> int:
    """Serves a model directory until it is told to end."""
    need("kserve", "serving")
    serve(
        Path(arguments.model),
        host=arguments.host,
        port=arguments.port,
        grpc_port=arguments.grpc_port,
        threads=arguments.threads,
        name=arguments.name,
        verify_key=arguments.verify_key,
        on_ready=_say,
    )
    return 0


def _say(address: Address) -> None:
    """Where the model answers, once it does."""
    print(f"{address.name} answers at {address.url} (gRPC {address.grpc})", flush=True)
