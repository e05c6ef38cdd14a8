"""Whether the ONNX form says what the model says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import NotApplicable
from trimgate.models._tokenizer import batches
from trimgate.models.directory import ModelInfo
from trimgate.models.scores import to_scores

Array = NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """How close the ONNX form must be to the model.

    Attributes:
        score: Largest difference of a score that counts as equal (relative for regression,
            where scores have a unit).
        rows: Share of the rows whose scores must be equal.
        labels: Share of the rows that must get the same label.
    """

    score: float = 1e-4
    rows: float = 0.999
    labels: float = 0.999


@dataclass(frozen=True)
class Parity:
    """What was seen on the sample.

    Attributes:
        rows: Rows that were compared.
        max_difference: Largest absolute difference of a score.
        mean_difference: Mean absolute difference of the scores.
        close: Share of rows with equal scores, within the tolerance.
        agreement: Share of rows with the same label (for regression: as `close`).
    """

    rows: int
    max_difference: float
    mean_difference: float
    close: float
    agreement: float

    def holds(self, tolerance: Tolerance) -> bool:
        """Whether it is within the tolerance."""
        return self.close >= tolerance.rows and self.agreement >= tolerance.labels

    def as_dict(self) -> dict[str, float | int]:
        """For the notes of a record."""
        return asdict(self)


def compare(expected: Array, found: Array, tolerance: Tolerance, *, regression: bool) -> Parity:
    """Compares the scores of two forms on the same rows.

    Args:
        expected: `(rows,)` or `(rows, classes)`, all finite.
        found: The same shape.
        tolerance: What counts as equal.
        regression: Whether scores are values with a unit.
    """
    difference = np.abs(np.asarray(expected, np.float64) - np.asarray(found, np.float64))
    difference = np.where(np.isnan(difference), np.inf, difference)
    limit: Any = tolerance.score
    if regression:
        limit = tolerance.score * np.maximum(np.abs(expected), np.abs(expected).mean())
        close = float((difference <= limit + 1e-12).mean())
        agreement = close
    else:
        close = float((difference.max(axis=1) <= limit).mean())
        agreement = float((expected.argmax(axis=1) == found.argmax(axis=1)).mean())
    return Parity(
        rows=len(expected),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        close=close,
        agreement=agreement,
    )


def open_session(model: Path | bytes) -> Any:
    """An `onnxruntime.InferenceSession` on one thread.

    Raises:
        NotApplicable: ONNX Runtime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    content = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # its exceptions have no base of their own
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        raise NotApplicable(f"ONNX Runtime cannot load the model: {line}") from error


def run_session(session: Any, output: str | None, inputs: Mapping[str, Array]) -> Array:
    """One output of a session.

    Raises:
        NotApplicable: It fails on these inputs.
    """
    try:
        return np.asarray(session.run([output], dict(inputs))[0])
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        raise NotApplicable(f"ONNX Runtime cannot run the model: {line}") from error


def run_onnx(path: Path, info: ModelInfo, inputs: Mapping[str, Array]) -> Array:
    """Raw scores of an ONNX file from ONNX Runtime.

    Raises:
        NotApplicable: ONNX Runtime cannot load or run it.
    """
    session = open_session(path)
    parts = [run_session(session, info.score_output, part) for part in batches(info, inputs)]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def scores_of(raw: Array, info: ModelInfo) -> Array:
    """Scores from raw ones; text labels come as bytes or str."""
    if raw.dtype.kind in "SU":
        raw = raw.astype(object)
    return to_scores(raw, info)
