"""Which layers hurt when they are quantized, and how few of them must stay in float32."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs, sample_rows
from trimgate.models.directory import ModelInfo
from trimgate.models.export import open_session, run_session, scores_of
from trimgate.techniques._base import Context
from trimgate.techniques.quantize._int8 import Quantizer
from trimgate.training import Measure

_RANKED_ON = 32
_BATCH = 256
_LOUDEST = 200.0


class Chosen(NamedTuple):
    """Layers that stay in float32, and what is told of them in the card."""

    keep: tuple[str, ...]
    note: dict[str, Any]


def choose_excluded(
    quantizer: Quantizer,
    source: Path,
    scratch: Path,
    info: ModelInfo,
    context: Context,
    tolerance: float,
    max_excluded: float,
) -> Chosen:
    """Ranks the layers by what quantizing each alone does to the scores, and keeps the worst.

    How many are kept is found by bisection on the primary metric of the validation rows, which
    takes it that keeping more never makes the model worse.

    Args:
        quantizer: Writes the versions that are compared.
        source: The ONNX file before quantization.
        scratch: A private directory.
        info: Its record.
        context: Training rows to rank on, validation rows to measure on.
        tolerance: By how much the metric may get worse.
        max_excluded: The largest share of the layers that may be kept.

    Raises:
        NotApplicable: The model's own scores are not finite.
    """
    layers = quantizer.prepared.layers
    trial = scratch / "trial.onnx"
    few = sample_rows(context.train, _RANKED_ON)
    wanted = _raw(source, info, few)
    if not np.isfinite(wanted).all():
        raise NotApplicable("the model gives scores that are not finite", file=source)
    ranked: list[tuple[float, str]] = []
    for layer in layers:
        quantizer.write([other for other in layers if other != layer], trial)
        ranked.append((signal_to_noise(wanted, _raw(trial, info, few)), layer))
    ranked.sort()
    order = [layer for _, layer in ranked]
    measure = Measure.of(context.metric, info, context.validation)
    reference = measure(scores_of(_raw(source, info, context.validation), info))
    tried: dict[int, float] = {}

    def good(number: int) -> bool:
        quantizer.write(order[:number], trial)
        value = measure(scores_of(_raw(trial, info, context.validation), info))
        tried[number] = value
        return measure.acceptable(value, reference, tolerance)

    most = min(math.floor(max_excluded * len(layers)), len(layers) - 1)
    within = good(0)
    number = 0
    if not within:
        number = most
        within = most > 0 and good(most)
        low = 0
        while within and number - low > 1:
            middle = (low + number) // 2
            if good(middle):
                number = middle
            else:
                low = middle
        if not within:
            # no number is good enough: the best that was seen, the fewest of equals
            number = min(tried, key=lambda n: (-measure.gain(tried[n], reference), n))
    trial.unlink()
    note = {
        "excluded": order[:number],
        "sensitivity_db": {layer: round(noise, 2) for noise, layer in ranked},
        "metric": context.metric,
        "metric_float": reference,
        "metric_by_excluded": {str(n): value for n, value in sorted(tried.items())},
        "within_tolerance": within,
    }
    return Chosen(tuple(order[:number]), note)


def signal_to_noise(wanted: Array, found: Array) -> float:
    """Signal to noise of scores that rounding disturbed, in decibels.

    Args:
        wanted: Scores, any shape.
        found: The same with rounding; not finite counts as nothing but noise.

    Returns:
        At most 200, which stands for equal.
    """
    if not np.isfinite(found).all():
        return -_LOUDEST
    signal = float(np.linalg.norm(wanted.astype(np.float64)))
    noise = float(np.linalg.norm(found.astype(np.float64) - wanted))
    if noise <= signal * 10 ** (-_LOUDEST / 20):
        return _LOUDEST
    return 20 * math.log10(max(signal, 1e-30) / noise)


def _raw(path: Path, info: ModelInfo, rows: Dataset) -> Array:
    """Raw scores from ONNX Runtime, in batches."""
    session = open_session(path)
    parts: Sequence[Array] = [
        run_session(
            session,
            info.score_output,
            build_inputs(info, rows.take(slice(start, start + _BATCH)).features),
        )
        for start in range(0, len(rows), _BATCH)
    ]
    return np.concatenate(parts)
