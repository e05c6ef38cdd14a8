"""KServe imported with care: the one place that names it.

Importing it takes a second, and `kserve.model_server` parses `sys.argv` while it is imported,
so an option of ours that looks like the beginning of one of its own would end the process. The
other modules that need KServe at module level (`_model`, `_rest`, `_grpc`, `_app`) are imported
inside functions only, after `prepare`.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from trimgate.errors import MissingExtra


def prepare() -> None:
    """Imports KServe and makes it quiet.

    Raises:
        MissingExtra: KServe is not installed.
    """
    # With it, prometheus_client would write files; one worker process needs none.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    with _no_arguments():
        try:
            import kserve.model_server  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "kserve", "serving") from error
    quiet()


def quiet() -> None:
    """Leaves KServe's loggers nothing but warnings.

    They write several lines for every request and a traceback for every bad one; KServe's
    `ModelServer` turns them on again when it is made.
    """
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def _no_arguments() -> Iterator[None]:
    given = sys.argv
    sys.argv = given[:1]
    try:
        yield
    finally:
        sys.argv = given
