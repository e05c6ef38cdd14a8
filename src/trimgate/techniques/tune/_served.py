"""What a trial's model costs when it is served, beside the given one."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trimgate import runtimes
from trimgate.errors import NotApplicable
from trimgate.judge.benchmark import BASELINE, CANDIDATE, BenchmarkSettings, interleave
from trimgate.models import build_inputs
from trimgate.models.directory import ModelInfo, read
from trimgate.runtimes import Session
from trimgate.techniques._base import Context
from trimgate.techniques.tune._config import Goal

_SECONDS = 0.6
_BATCHES = 32


class Served:
    """Costs of models as ratios to those of the given one.

    Models are served by the runtime that their record names, and models that can be trained are
    exported to ONNX first; where that is not possible, both are served natively. Calls of the two
    alternate in this process, so that what else runs on the machine slows both.

    Args:
        source: The given model directory.
        context: Rows to call with, the target's threads and its first batch size.
        goals: What to measure.
    """

    def __init__(self, source: Path, context: Context, goals: tuple[Goal, ...]) -> None:
        self._context = context
        self._goals = goals[1:]
        self._folder = tempfile.TemporaryDirectory(prefix="trimgate-")
        self._given = self._form(source, Path(self._folder.name) / "given")
        self._session: Session | None = None

    def costs(self, directory: Path) -> tuple[float, ...]:
        """Latency and size ratios, as far as they are objectives, in their order."""
        if not self._goals:
            return ()
        with tempfile.TemporaryDirectory(prefix="trimgate-") as scratch:
            served = self._form(directory, Path(scratch) / "served")
            found = {
                "latency": lambda: self._latency(served),
                "size": lambda: read(served).size / read(self._given).size,
            }
            return tuple(found[goal]() for goal in self._goals)

    def close(self) -> None:
        """Lets go of the given model."""
        if self._session is not None:
            self._session.close()
        self._folder.cleanup()

    def _form(self, directory: Path, out: Path) -> Path:
        from trimgate.techniques import get, parse_step

        if not self._goals or read(directory).has_onnx:
            return directory
        step = parse_step({"technique": "optimize_graph"})
        export = get(step.technique)
        info = read(directory)
        if export.refusal(info, step, self._context.target):
            return directory
        try:
            export.apply(directory, out, step, self._context)
        except NotApplicable:
            # timed by the framework that trained it, as it would be served
            return directory
        return out

    def _latency(self, directory: Path) -> float:
        threads = self._context.target.threads
        if self._session is None:
            self._session = runtimes.load(self._given, threads=threads)
        session = runtimes.load(directory, threads=threads)
        try:
            samples = interleave(
                {BASELINE: self._caller(self._session), CANDIDATE: self._caller(session)},
                BenchmarkSettings(seconds=_SECONDS, processes=1, min_rounds=10, resamples=100),
            )
        finally:
            session.close()
        ratios = np.divide(samples.wall[CANDIDATE], samples.wall[BASELINE])
        return float(np.median(ratios))

    def _caller(self, session: Session) -> Callable[[], object]:
        size = self._context.target.batch_sizes[0]
        rows = self._context.validation
        batches = [
            build_inputs(
                session.info,
                rows.take(np.arange(place * size, (place + 1) * size) % len(rows)).features,
            )
            for place in range(min(_BATCHES, max(1, len(rows) // size)))
        ]
        following = itertools.cycle(batches)
        return lambda: session.predict(next(following))


def served_scores(directory: Path, context: Context) -> tuple[ModelInfo, np.ndarray]:
    """The record of a model directory, and its scores on the validation rows."""
    session = runtimes.load(directory, threads=context.target.threads)
    try:
        return session.info, runtimes.predict(session, context.validation)
    finally:
        session.close()
