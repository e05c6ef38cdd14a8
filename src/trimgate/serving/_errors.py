"""What a client is told about an exception, over HTTP and over gRPC."""

import logging
from typing import NamedTuple

import grpc
from kserve import errors as kserve_errors
from starlette.exceptions import HTTPException

from trimgate.errors import InvalidInput

logger = logging.getLogger("trimgate.serving")


class Status(NamedTuple):
    """An HTTP code, its counterpart in gRPC, and the message."""

    http: int
    grpc: grpc.StatusCode
    message: str


class TooLarge(HTTPException):
    """The body is over the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than {limit} bytes")


def status(error: Exception) -> Status:
    """Translates an exception; one that nobody foresaw is an internal error."""
    code = grpc.StatusCode
    match error:
        case InvalidInput() | kserve_errors.InvalidInput():
            return Status(400, code.INVALID_ARGUMENT, str(error))
        case kserve_errors.ModelNotFound():
            return Status(404, code.NOT_FOUND, str(error))
        case kserve_errors.ModelNotReady() | kserve_errors.ServerNotReady():
            return Status(503, code.UNAVAILABLE, str(error))
        case NotImplementedError():
            return Status(501, code.UNIMPLEMENTED, str(error) or "not implemented")
        case HTTPException():
            return Status(error.status_code, code.INVALID_ARGUMENT, str(error.detail))
        case _:
            return Status(500, code.INTERNAL, "internal error; the server's log has the cause")


def explain(error: Exception) -> Status:
    """`status`, with the traceback of an unforeseen error in the log."""
    result = status(error)
    if result.http == 500:
        logger.error("a request failed", exc_info=error)
    else:
        logger.debug("a request was refused: %s", result.message)
    return result
