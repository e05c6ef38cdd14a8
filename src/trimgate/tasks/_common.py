"""What the tasks share: their files, their log, and values that survive KFP."""

import atexit
import base64
import json
import logging
import os
import resource
import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import InvalidInput
from trimgate.judge import records

REFUSED = "refused.json"
EVALUATION = "evaluation.json"
PREDICTIONS = "predictions.parquet"
SELECTION = "selection.json"
CANDIDATES = "candidates.json"
SAMPLE = "sample.json"

# KFP sets it where it executes a component.
_RUNTIME = "_KFP_RUNTIME"
# So many rows are enough to make choices on.
_GUIDES = 262_144

DEADLINE = "TRIMGATE_DEADLINE"
"""Environment variable: the time (seconds since the epoch) after which no step begins."""


def start(*, timing: bool = False) -> None:
    """Sets up plain timestamped lines for a task's process, whatever its root logger does.

    Args:
        timing: Whether the task measures speed, so that thread pools stay as users have them.
    """
    from trimgate.environment import wait_patiently
    from trimgate.models import own_process
    from trimgate.processes import end_with_reader

    logger = logging.getLogger("trimgate")
    if logger.handlers:
        return
    end_with_reader()
    own_process()
    if not timing:
        wait_patiently()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if os.environ.get(_RUNTIME) == "true":  # not in a program that calls the library
        atexit.unregister(_say_resources)  # once
        atexit.register(_say_resources)


def _say_resources() -> None:
    """What the task took, for `benchmarks/task_resources.py`."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    taken = {
        "cpu_seconds": round(
            own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 2
        ),
        # of this process and of the largest that it started
        "peak_rss_mb": round((own.ru_maxrss + children.ru_maxrss) / 1024),
    }
    print(f"resources {json.dumps(taken)}")


def encode(value: object) -> str:
    """A JSON value as text that survives KFP's lists: compressed, base64url."""
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(value).encode(), 9)).decode()


def decode(text: str) -> Any:
    """What `encode` was given."""
    return json.loads(zlib.decompress(base64.urlsafe_b64decode(text)))


def log_metrics(artifact: Any, values: Mapping[str, float]) -> None:
    """Logs finite values to a KFP `Metrics` artifact, and to its file so that caching works."""
    finite = {name: float(value) for name, value in values.items() if np.isfinite(value)}
    for name, value in finite.items():
        artifact.log_metric(name, value)
    Path(artifact.path).write_text(json.dumps(finite, indent=2) + "\n")


def read_evaluation(directory: str) -> records.Evaluation:
    return records.load(records.Evaluation, Path(directory) / EVALUATION)


def read_selection(directory: str) -> tuple[records.Selection, list[records.Candidate]]:
    listed = json.loads((Path(directory) / CANDIDATES).read_text())
    return (
        records.load(records.Selection, Path(directory) / SELECTION),
        [records.Candidate.model_validate(entry) for entry in listed],
    )


def refusal(directory: str | Path, recipe: str = "") -> str | None:
    """Why there is no model, or None; where recipes have reasons of their own, that of one."""
    file = Path(directory) / REFUSED
    if not file.is_file():
        return None
    reason = json.loads(file.read_text())["reason"]
    if isinstance(reason, dict):
        return str(reason.get(recipe) or next(iter(reason.values())))
    return str(reason)


def guide(validation: str, most: int = _GUIDES, seed: int = 0) -> Dataset:
    """The validation rows that choices are made on, or so many of them."""
    from trimgate.data.splits import half_rows
    from trimgate.data.stream import labels_of, take

    labels = labels_of(validation)
    rows = half_rows(labels, ranking=False)
    return take(validation, rows[spread(labels[rows], most, seed)])


def spread(labels: Array, most: int, seed: int) -> Array:
    """Positions of at most `most` rows, evenly over the rows sorted by label; ascending."""
    from trimgate.data.splits import comparable

    if len(labels) <= most:
        return np.arange(len(labels))
    known = comparable(labels)
    shuffled = np.random.default_rng(seed).permutation(len(known))
    order = shuffled[np.argsort(known[shuffled], kind="stable")]
    picked = order[np.linspace(0, len(known) - 1, most).astype(np.int64)]
    values, first = np.unique(known, return_index=True)
    # a rare class has at least one row, so that a model can be trained on the sample
    if len(values) <= most // 2 and labels.dtype.kind != "f":
        picked = np.append(picked, first[~np.isin(values, known[picked])])
    return np.sort(picked)


def deadline_passed() -> bool:
    return time.time() > float(os.environ.get(DEADLINE, "inf"))


def effort_of(rows: str | Path) -> float:
    """Share of the usual work that is worth doing on these rows: below 1 on a sample."""
    file = Path(rows) / SAMPLE
    return float(json.loads(file.read_text())["effort"]) if file.is_file() else 1.0


def check_unchanged(found: str, expected: str, file: Path) -> None:
    if found != expected:
        raise InvalidInput(
            "changed since the run was planned", file=file, mend="start the run again"
        )


def in_bytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"
