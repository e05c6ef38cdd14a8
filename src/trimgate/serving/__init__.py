"""The model server, its process, and the smoke test that queries it.

Nothing here is imported from KServe until a server starts or a test runs.
"""

from trimgate.serving.curl import curl_example
from trimgate.serving.process import (
    RunningServer,
    ServerFailed,
    ServerState,
    read_state,
    start,
    stop_recorded,
)
from trimgate.serving.server import Address, check_port, serve
from trimgate.serving.smoke import smoke_test

__all__ = [
    "Address",
    "RunningServer",
    "ServerFailed",
    "ServerState",
    "check_port",
    "curl_example",
    "read_state",
    "serve",
    "smoke_test",
    "start",
    "stop_recorded",
]
