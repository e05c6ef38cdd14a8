"""The server's Prometheus metrics, beside those of KServe and of the process."""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from trimgate.serving._errors import status

if TYPE_CHECKING:
    from trimgate.serving._model import ServedModel

_MODEL = ("model", "digest")
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

REQUESTS = Counter(
    "trimgate_requests", "Inference requests answered.", (*_MODEL, "protocol", "code")
)
ROWS = Counter("trimgate_rows", "Rows predicted.", _MODEL)
SECONDS = Histogram(
    "trimgate_request_seconds",
    "Time to read, predict and encode one request.",
    (*_MODEL, "protocol"),
    buckets=_BUCKETS,
)
READY = Gauge("trimgate_model_ready", "Whether the model answers requests.", _MODEL)


@contextlib.contextmanager
def observed(model: "ServedModel", protocol: str) -> Iterator[None]:
    """Counts and times the inference request that the block answers.

    Args:
        model: The model that is asked.
        protocol: `v1`, `v2`, `v2-binary` or `grpc`.
    """
    start = time.perf_counter()
    code = 200
    try:
        yield
    except Exception as error:
        code = status(error).http
        raise
    finally:
        labels = (model.name, model.info.digest)
        SECONDS.labels(*labels, protocol).observe(time.perf_counter() - start)
        REQUESTS.labels(*labels, protocol, str(code)).inc()
