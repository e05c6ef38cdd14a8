"""Ranges of activations, measured on training rows batch by batch.

Only one batch's activations are in memory at a time, whatever the method and however many rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs
from trimgate.models.directory import ModelInfo
from trimgate.techniques.quantize._graph import CARRIERS, STATIC, Prepared

_MOST_ROWS = 32
_MOST_BYTES = 2**28


@dataclass(frozen=True)
class Calibration:
    """Rows to measure ranges on.

    Attributes:
        info: Says how the input tensors are made of rows; text is padded to the longest row of
            its batch, as when it is served.
        rows: Training rows.
        method: See `QuantizeConfig`.
        percentile: See `QuantizeConfig`.
    """

    info: ModelInfo
    rows: Dataset
    method: str
    percentile: float

    @classmethod
    def sample(
        cls, info: ModelInfo, train: Dataset, limit: int, seed: int, method: str, percentile: float
    ) -> "Calibration":
        """At most `limit` rows, drawn by chance and left in their order."""
        chosen = np.arange(len(train))
        if len(chosen) > limit:
            generator = np.random.default_rng(seed)
            chosen = np.sort(generator.choice(len(chosen), limit, replace=False))
        return cls(info, train.take(chosen), method, percentile)

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Input tensors by name, of `size` rows at a time."""
        for start in range(0, len(self.rows), size):
            rows = self.rows.take(slice(start, start + size))
            yield build_inputs(self.info, rows.features)


def measure_ranges(prepared: Prepared, scratch: Path, calibration: Calibration) -> Any:
    """Ranges of all tensors that may be quantized.

    Args:
        prepared: The graph.
        scratch: A private directory.
        calibration: Rows and method.

    Returns:
        `onnxruntime.quantization.calibrate.TensorsData`.

    Raises:
        NotApplicable: An activation is not finite.
    """
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    method = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }[calibration.method]
    options: dict[str, Any] = {"symmetric": False}
    if calibration.method == "percentile":
        options["percentile"] = calibration.percentile
    calibrator = create_calibrator(
        prepared.path,
        [*STATIC, *CARRIERS],
        augmented_model_path=str(scratch / "augmented.onnx"),
        calibrate_method=method,
        extra_options=options,
    )
    size = _MOST_ROWS
    if calibration.method != "minmax":
        # These methods look at whole activations rather than at their extremes.
        size = _rows_at_once(calibrator.infer_session, calibration)
    for batch in calibration.batches(size):
        calibrator.collect_data(_Once(batch))
    ranges = calibrator.compute_data()
    for name in ranges:
        if not np.isfinite([float(np.max(np.abs(v))) for v in ranges[name].range_value]).all():
            raise NotApplicable(
                f"the activation {name} is not finite on the training rows, so it has no range"
            )
    return ranges


def replace_ranges(ranges: Any, known: dict[str, tuple[float, float]]) -> None:
    """Puts ranges that were found elsewhere in place of measured ones.

    Args:
        ranges: What `measure_ranges` gave; changed.
        known: Lowest and highest value by the tensor's name.
    """
    from onnxruntime.quantization.calibrate import TensorData

    for name, (lowest, highest) in known.items():
        if name in ranges:
            ranges.data[name] = TensorData(
                lowest=np.float32(lowest).reshape(()), highest=np.float32(highest).reshape(())
            )


def _rows_at_once(session: Any, calibration: Calibration) -> int:
    """So many rows that their activations together take about 256 MiB."""
    outputs: Sequence[Array] = session.run(None, next(calibration.batches(1)))
    a_row = sum(output.nbytes for output in outputs)
    return int(np.clip(_MOST_BYTES // max(a_row, 1), 1, _MOST_ROWS))


class _Once:
    """Gives one batch, as ONNX Runtime's calibrators ask for them."""

    def __init__(self, batch: dict[str, Array]) -> None:
        self._batch: dict[str, Array] | None = batch

    def get_next(self) -> dict[str, Array] | None:
        batch, self._batch = self._batch, None
        return batch
