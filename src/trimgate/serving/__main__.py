"""`python -m trimgate.serving DIR`: the server as a process of its own.

When the model answers, one line of JSON on standard output says where. Bad input is answered
with exit code 2 and `{"invalid": {...}}`.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from trimgate.errors import InvalidInput
from trimgate.models import own_process
from trimgate.serving.server import Address, serve


def main(arguments: list[str] | None = None) -> int:
    """Runs the server.

    Returns:
        The exit code: 0 stopped, 2 bad input.
    """
    own_process()
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        serve(
            options.directory,
            host=options.host,
            port=options.port,
            grpc_port=options.grpc_port,
            enable_grpc=not options.no_grpc,
            threads=options.threads,
            name=options.name,
            max_rows=options.max_rows,
            warm_up=not options.no_warm_up,
            grace=options.grace,
            verify_key=options.verify_key,
            on_ready=_announce,
            stop_on_eof=options.stop_on_eof,
        )
    except InvalidInput as error:
        sys.stderr.write(f"{error}\n")
        fields = ("problem", "file", "key", "value", "mend")
        told = {field: getattr(error, field) for field in fields}
        _say(json.dumps({"invalid": told}, default=str))
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trimgate.serving", allow_abbrev=False)
    parser.add_argument("directory", type=Path, help="model directory")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="REST port; 0: any free one")
    parser.add_argument("--grpc-port", type=int, help="default: the port after --port")
    parser.add_argument("--no-grpc", action="store_true", help="serve REST only")
    parser.add_argument("--threads", type=int, default=1, help="threads of the model")
    parser.add_argument("--name", help="the model's name in the URLs")
    parser.add_argument("--max-rows", type=int, default=100_000, help="most rows of a request")
    parser.add_argument("--no-warm-up", action="store_true", help="ready without a first call")
    parser.add_argument("--grace", type=int, default=20, help="seconds for open requests at a stop")
    parser.add_argument(
        "--verify-key", type=Path, help="public key (PEM) that the model must be signed for"
    )
    parser.add_argument(
        "--stop-on-eof", action="store_true", help="also stop when standard input ends"
    )
    return parser


def _announce(address: Address) -> None:
    _say(address.model_dump_json())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Everything is closed; taking down KServe's imports one by one would take seconds.
    os._exit(code)
