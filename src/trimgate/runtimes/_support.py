"""What several runtimes need: packages, options and label order."""

import functools
import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import MissingExtra, NotApplicable
from trimgate.models.directory import ModelInfo

Option = str | int | float | bool


def absent(package: str, extra: str) -> str | None:
    """Why an optional package cannot be used, or None when it is installed."""
    return None if _installed(package) else str(MissingExtra(package, extra))


def require(package: str, extra: str) -> None:
    """Raises MissingExtra when an optional package is not installed."""
    if not _installed(package):
        raise MissingExtra(package, extra)


@functools.cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def bad_option(options: Mapping[str, Option], defaults: Mapping[str, Option]) -> str | None:
    """Names the first option that the runtime does not know or that has the wrong type."""
    for key, value in options.items():
        if key not in defaults:
            return f"has no option {key!r}; there are {', '.join(defaults)}"
        if type(value) is not type(defaults[key]):
            wanted = type(defaults[key]).__name__
            return f"option {key} = {value!r} must be of type {wanted}"
    return None


def bad_threads(options: Mapping[str, Option]) -> str | None:
    """Names an option that counts and is negative."""
    for key in ("threads", "streams"):
        if int(options.get(key, 0)) < 0:
            return f"{key} = {options[key]} must not be negative"
    return None


def granted(options: Mapping[str, Option], threads: int) -> int:
    """How many threads to take: what the option says, and never more than are granted."""
    wanted = int(options["threads"])
    return min(wanted, threads) if wanted else threads


def no_onnx(info: ModelInfo) -> str | None:
    """Why there is no ONNX form to serve, or None."""
    if info.has_onnx and info.score_output:
        return None
    return "the model has no ONNX form yet; put the step optimize_graph before"


def writable(values: NDArray[Any]) -> NDArray[Any]:
    """Torch shares memory with writable, contiguous arrays only; others (memmaps) are copied."""
    return values if values.flags.writeable and values.flags.c_contiguous else values.copy("C")


def column_order(classes: list[object], info: ModelInfo) -> NDArray[np.intp] | None:
    """How to reorder score columns from the estimator's classes to `info.labels`.

    Returns:
        Column positions, or None when they already stand in that order.

    Raises:
        NotApplicable: The estimator knows other classes than the record.
    """
    wanted = list(info.labels)
    if classes == wanted:
        return None
    if sorted(map(str, classes)) != sorted(map(str, wanted)):
        raise NotApplicable(
            f"the model's classes {classes[:10]} differ from the labels {wanted[:10]} in model.json"
        )
    position = {str(label): index for index, label in enumerate(classes)}
    return np.array([position[str(label)] for label in wanted])
