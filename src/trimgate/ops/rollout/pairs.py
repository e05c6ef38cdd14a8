"""Two models' answers to one request, compared."""

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.ops.rollout.observations import Pair
from trimgate.serving._client import read_outputs

Answer = tuple[list[str | None], NDArray[np.float64], bool]
"""Labels by row, scores `(rows, n)`, and whether they are values rather than probabilities."""


def read_answer(body: bytes, json_bytes: int | None = None) -> Answer:
    """Reads a V1 or V2 answer.

    Args:
        body: Of the HTTP answer.
        json_bytes: The header `Inference-Header-Content-Length` where there is one.

    Raises:
        ValueError: It is no such answer.
    """
    head = json.loads(body if json_bytes is None else body[:json_bytes])
    try:
        if "predictions" in head:
            return _v1(head["predictions"])
        return _v2(read_outputs(body, len(body) if json_bytes is None else json_bytes))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no answer of a model server ({error})") from error


def compare(stable: Answer, canary: Answer | None, row: int) -> Pair:
    """One row of two answers; an answer that is missing, or of another form, is a failure."""
    labels, scores, are_values = stable
    if canary is None or canary[1].shape != scores.shape or len(canary[0]) != len(labels):
        return Pair(stable=labels[row], failed=True)
    gaps = np.abs(canary[1][row] - scores[row])
    if are_values:
        gaps = gaps / np.maximum(np.abs(scores[row]), np.finfo(np.float64).tiny)
    same = np.isnan(scores[row]) & np.isnan(canary[1][row])
    gap = float(np.where(same, 0.0, gaps).max(initial=0.0))
    if not np.isfinite(gap):
        return Pair(stable=labels[row], canary=canary[0][row], failed=True)
    return Pair(stable=labels[row], canary=canary[0][row], gap=gap)


def pair(
    stable: tuple[bytes, int | None], canary: tuple[bytes, int | None] | None, chance: random.Random
) -> Pair | None:
    """A row of a request that both models were asked.

    One row, chosen by chance, stands for the request: rows of one request are often alike, and
    counting each would claim evidence that is not there.

    Args:
        stable: Body and length of the JSON part of the stable model's answer.
        canary: The canary's, or None when it gave none.
        chance: Chooses the row.

    Returns:
        None where the stable model's answer tells nothing.
    """
    try:
        expected = read_answer(*stable)
    except ValueError:
        return None
    rows = len(expected[0])
    if not rows:
        return None
    given = None
    if canary is not None:
        try:
            given = read_answer(*canary)
        except ValueError:
            given = None
    return compare(expected, given, chance.randrange(rows))


def json_bytes(headers: Mapping[str, str]) -> int | None:
    """The length of the JSON part, where the answer has binary tensors."""
    for name, value in headers.items():
        if name.lower() == "inference-header-content-length" and value.isdigit():
            return int(value)
    return None


def _v1(predictions: list[Any]) -> Answer:
    if predictions and isinstance(predictions[0], dict):
        labels: list[str | None] = [str(entry["label"]) for entry in predictions]
        names = sorted(predictions[0]["probabilities"])
        scores = [[entry["probabilities"][name] for name in names] for entry in predictions]
        return labels, np.array(scores, np.float64).reshape(len(labels), -1), False
    values = np.array(predictions, np.float64)
    return [None] * len(values), values.reshape(len(values), -1), True


def _v2(outputs: Mapping[str, NDArray[Any]]) -> Answer:
    numbers = {name: array for name, array in sorted(outputs.items()) if array.dtype.kind == "f"}
    rows = len(next(iter(outputs.values())))
    labels: list[str | None] = [None] * rows
    if "label" in outputs:
        labels = [str(label) for label in outputs["label"]]
    columns = [np.asarray(array, np.float64).reshape(rows, -1) for array in numbers.values()]
    scores = np.hstack(columns) if columns else np.empty((rows, 0))
    return labels, scores, "label" not in outputs
