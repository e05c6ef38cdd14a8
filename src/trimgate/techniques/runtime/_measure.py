"""Engines and their options, timed side by side on a model's own rows."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate import runtimes
from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.judge.benchmark import BASELINE, BenchmarkSettings, interleave
from trimgate.models.directory import ModelInfo, RuntimeChoice
from trimgate.runtimes import Session

# Distinct batches that are cycled through, so that no call answers from a warm cache.
_BATCHES = 16
_MOST_BYTES = 64 * 2**20
_ROUNDS = 20


@dataclass(frozen=True)
class Bench:
    """A model to time.

    Attributes:
        directory: Its files.
        info: Its record.
        rows: To call it with.
        threads: Of a session.
        seconds: Of measuring for each batch size.
        seed: Of the order of the variants.
    """

    directory: Path
    info: ModelInfo
    rows: Dataset
    threads: int
    seconds: float
    seed: int = 0

    def load(self, choice: RuntimeChoice) -> Session:
        """The model loaded by an engine.

        Raises:
            NotApplicable: The engine cannot run it.
        """
        info = self.info.model_copy(update={"runtime": choice})
        if reason := runtimes.refusal(info):
            raise NotApplicable(reason)
        return runtimes.get(choice.name).load(self.directory, info, threads=self.threads)

    @contextlib.contextmanager
    def sessions(self, choices: Mapping[str, RuntimeChoice]) -> Iterator[dict[str, Session]]:
        """The model loaded by several engines at once."""
        with contextlib.ExitStack() as stack:
            loaded: dict[str, Session] = {}
            for name, choice in choices.items():
                loaded[name] = self.load(choice)
                stack.callback(loaded[name].close)
            yield loaded

    def batches(self, size: int) -> list[dict[str, NDArray[Any]]]:
        """Inputs of some calls with so many rows; rows are repeated where there are too few."""
        from trimgate.models import build_inputs

        few = build_inputs(self.info, self.rows.take(slice(0, 1)).features)
        row = max(1, sum(values.nbytes for values in few.values()))
        count = max(1, min(_BATCHES, len(self.rows) // size, _MOST_BYTES // (row * size)))
        picks = [np.arange(n * size, (n + 1) * size) % len(self.rows) for n in range(count)]
        return [build_inputs(self.info, self.rows.take(rows).features) for rows in picks]


def speeds(
    bench: Bench, sessions: Mapping[str, Session], size: int, *, share: float = 1.0
) -> dict[str, NDArray[np.float64]]:
    """How many times as fast as the first session each is, in paired rounds.

    Args:
        bench: The model and its rows.
        sessions: By name.
        size: Rows in a call.
        share: Of the bench's seconds to spend.

    Returns:
        `(rounds,)` ratios by name; those of the first are 1.
    """
    batches = bench.batches(size)
    names = list(sessions)
    variants = {
        BASELINE if name == names[0] else name: _caller(sessions[name].predict, batches)
        for name in names
    }
    settings = BenchmarkSettings(processes=1, min_rounds=_ROUNDS, seed=bench.seed)
    samples = interleave(variants, settings, seconds=bench.seconds * share)
    base = np.asarray(samples.wall[BASELINE])
    return {
        name: base / np.asarray(samples.wall[BASELINE if name == names[0] else name])
        for name in names
    }


def _caller(
    predict: Callable[[Mapping[str, NDArray[Any]]], object],
    batches: Sequence[Mapping[str, NDArray[Any]]],
) -> Callable[[], object]:
    following = itertools.cycle(batches)
    return lambda: predict(next(following))


def typical(ratios: NDArray[np.float64]) -> float:
    """The median of paired ratios."""
    return float(np.median(ratios))


def is_gain(ratios: NDArray[np.float64], least: float) -> bool:
    """Whether the median is a gain of at least so much, and the other way is not in doubt.

    The lower end is the order statistic of a 95 % interval of the median.
    """
    ordered = np.sort(ratios)
    low = ordered[max(0, math.floor(len(ordered) / 2 - 0.98 * math.sqrt(len(ordered))))]
    return bool(typical(ratios) >= least and low > 1.0)
