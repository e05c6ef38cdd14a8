"""The server's Prometheus metrics, beside those of KServe and of the process."""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

from trimgate.serving._errors import status

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
BANDS = Counter(
    "trimgate_scores",
    "Rows by the band that the top score falls into: what drift is seen by.",
    (*_MODEL, "band"),
)
READY = Gauge("trimgate_model_ready", "Whether the model answers requests.", _MODEL)


def count_rows(model: "ServedModel", scores: "NDArray[np.floating[Any]]") -> None:
    """Counts the rows of a request, and for classifiers the bands that their scores fall into.

    Args:
        model: The model that answered.
        scores: (rows, classes) probabilities, or (rows,) values of a regression.
    """
    labels = (model.name, model.info.digest)
    ROWS.labels(*labels).inc(len(scores))
    if model.info.task == "regression":  # its values have no scale known here
        return
    # of two classes the score of the second, which says which of them, too
    top = scores[:, 1] if model.info.task == "binary" and scores.ndim == 2 else scores.max(axis=-1)
    bands = np.clip((np.ravel(top) * 10).astype(np.int64), 0, 9)
    for band, rows in zip(*np.unique(bands, return_counts=True), strict=True):
        BANDS.labels(*labels, f"0.{band}").inc(int(rows))


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
