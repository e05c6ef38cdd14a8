"""Measures two model directories in fresh processes.

`python -m trimgate.judge.harness` is such a process: it reads a job as JSON from stdin and
writes the result as JSON to stdout.
"""

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.errors import NotApplicable, TrimgateError
from trimgate.judge import _child, energy, load
from trimgate.judge.benchmark import BASELINE, CANDIDATE, BenchmarkSettings, Samples, summarise
from trimgate.judge.cost import cost
from trimgate.judge.formats import check_format
from trimgate.judge.limits import Limits, limited
from trimgate.judge.loadgen import check_installed
from trimgate.judge.records import (
    BatchBenchmark,
    Benchmark,
    Concurrent,
    Energy,
    Footprint,
    LoadGenRun,
    LoadResult,
)
from trimgate.models.directory import ModelInfo, read
from trimgate.targets import Target, standing

_log = logging.getLogger("trimgate.judge")

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_MOST_BYTES = 256 * 2**20


# As the allocators of the engines and of NumPy put it.
_MEMORY = re.compile(r"bad_alloc|allocate", re.IGNORECASE)


class MeasurementError(TrimgateError):
    """A measuring process did not give a result."""


class OutOfMemory(MeasurementError):
    """A measuring process did not get the memory that it asked for, or was killed for it."""


def run_benchmark(
    baseline_dir: Path,
    candidate_dir: Path,
    rows_dir: Path,
    target: Target,
    settings: BenchmarkSettings | None = None,
    name: str = "candidate",
    *,
    baseline_footprint: Footprint | None = None,
) -> Benchmark:
    """Times a candidate beside the baseline, and measures what each takes.

    Args:
        baseline_dir: Model directory of the baseline.
        candidate_dir: Model directory of the candidate.
        rows_dir: Rows to call them with, as `Dataset.save` wrote them.
        target: Gives batch sizes, threads, callers, rates, limits and price.
        settings: The protocol's settings.
        name: The recipe's name.
        baseline_footprint: The baseline's, when it was measured before on this machine.

    A timing that comes out void is continued in as many processes again, and judged on all of
    them.

    Both are called with the same rows. The A/A control is the baseline's session called under a
    second name; what differs between sessions of one model shows between the processes, each of
    which loads both models anew.

    Raises:
        InvalidInput: A directory is not what it should be, or the rows do not fit a model.
        NotApplicable: A model cannot be loaded here, or not within the target's memory.
        MissingExtra: LoadGen is asked for and not installed.
        MeasurementError: A process crashed or took too long.
    """
    from trimgate.environment import describe

    settings = settings or BenchmarkSettings()
    if settings.loadgen:
        check_installed()
    directories = {BASELINE: Path(baseline_dir).resolve(), CANDIDATE: Path(candidate_dir).resolve()}
    infos = {role: read(path) for role, path in directories.items()}
    before = describe()
    with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
        rows, inputs = _prepare(Path(rows_dir), infos, target, settings.seed, Path(folder))
        roles = {
            role: {"model": str(directories[role]), "inputs": str(inputs[role])} for role in infos
        }
        common = {
            "rows": rows,
            "batch_sizes": list(target.batch_sizes),
            "threads": target.threads,
        }
        measured = _Measured(common, roles, target, settings)
        footprints = measured.footprints(infos, baseline_footprint)
        batches = _timed(measured)
        few = _child.read_inputs(inputs[CANDIDATE], range(min(rows, 16)))
        return Benchmark(
            baseline_model=infos[BASELINE].digest,
            model=infos[CANDIDATE].digest,
            name=name,
            target=target.name,
            batches=batches,
            baseline=footprints[BASELINE],
            candidate=footprints[CANDIDATE],
            environment=before,
            settings={**settings.model_dump(mode="json"), "threads": target.threads},
            concurrent=measured.concurrent(),
            load=measured.load(),
            loadgen=measured.loadgen(batches),
            energy=measured.energy(batches[0]),
            cost=cost(batches, target),
            limits=measured.limits,
            busy=_busy(name, batches, before),
            standing=standing(target),
            format=check_format(directories[CANDIDATE], infos[CANDIDATE], target, few),
        )


@dataclass
class _Measured:
    """Runs the measuring processes of one benchmark.

    Attributes:
        common: What every job has.
        roles: Directories of model and inputs, by role.
        limits: How the target's limits were applied, so far.
    """

    common: Mapping[str, Any]
    roles: Mapping[str, Mapping[str, str]]
    target: Target
    settings: BenchmarkSettings
    limits: dict[str, str] = field(default_factory=dict)

    def run(self, mode: str, job: Mapping[str, Any] | None = None, *, alone: bool = False) -> Any:
        """The result of a job in a fresh process, both models in it, or one `alone`."""
        given = {
            **self.common,
            **({} if alone else self.roles),
            "settings": self.settings.model_dump(mode="json"),
            "mode": mode,
            **(job or {}),
        }
        with limited(self.target, memory=alone) as limits:
            self.limits.update(limits.words)
            return _run(given, self.target.threads, self.settings.timeout, limits)

    def footprints(
        self, infos: Mapping[str, ModelInfo], known: Footprint | None
    ) -> dict[str, Footprint]:
        """What each model takes, loaded alone.

        Raises:
            NotApplicable: The candidate does not run within the target's memory.
        """
        found = {}
        for role, info in infos.items():
            if role == BASELINE and known is not None:
                found[role] = known
                continue
            try:
                measured = self.run("footprint", self.roles[role], alone=True)
            except OutOfMemory as error:
                if role == CANDIDATE:
                    raise NotApplicable(
                        f"it does not run within the {self.target.memory_limit_mb} MiB of "
                        f"{self.target.name} ({self.limits['memory']}; {error})"
                    ) from error
                # what it takes without the limit is what it is compared with
                self.limits["baseline"] = "it does not run within the memory; measured without"
                measured = self.run("footprint", self.roles[role])
            found[role] = Footprint(size=info.size, **measured)
        return found

    def concurrent(self) -> tuple[Concurrent, ...]:
        """Throughput of the target's callers, where it has several."""
        callers, kind = self.target.concurrency, self.target.callers
        if callers == 1:
            return ()
        if kind == "threads":
            blocks = [self.run("together", {"concurrency": callers, "together": False})]
        else:
            blocks = self._together(callers)
        return (
            load.summarise_concurrent(
                [[load.Block.model_validate(block) for block in own] for own in blocks],
                callers=callers,
                kind=kind,
                batch_size=self.target.batch_sizes[0],
                confidence=self.settings.confidence,
            ),
        )

    def _together(self, callers: int) -> list[Any]:
        """Processes of one caller each that begin at the same time."""
        ready = threading.Barrier(callers, timeout=self.settings.timeout)
        start: list[float] = []

        def begin() -> float:
            if ready.wait() == 0:
                start.append(time.monotonic() + 0.2)
            ready.wait()
            return start[0]

        job = {
            **self.common,
            **self.roles,
            "settings": self.settings.model_dump(mode="json"),
            "mode": "together",
            "concurrency": 1,
            "together": True,
        }
        with (
            limited(self.target, memory=False) as limits,
            ThreadPoolExecutor(callers) as pool,
        ):
            self.limits.update(limits.words)

            def call() -> Any:
                try:
                    return _run(job, self.target.threads, self.settings.timeout, limits, begin)
                except BaseException:
                    ready.abort()  # the others would wait for this one
                    raise

            calls = [pool.submit(call) for _ in range(callers)]
            problems = [error for made in calls if (error := made.exception()) is not None]
        # one that failed breaks the barrier of the others, whose errors say no more
        causes = [e for e in problems if not isinstance(e, threading.BrokenBarrierError)]
        if problems:
            raise (causes or problems)[0]
        return [made.result() for made in calls]

    def load(self) -> tuple[LoadResult, ...]:
        """Latency under open-loop load, at the target's rates."""
        if not self.target.rates:
            return ()
        job = {"rates": list(self.target.rates), "concurrency": self.target.concurrency}
        results = self.run("load", job)
        return tuple(LoadResult.model_validate(result) for result in results)

    def loadgen(self, batches: Sequence[BatchBenchmark]) -> tuple[LoadGenRun, ...]:
        """MLPerf LoadGen's scenarios, where the settings ask for it."""
        if not self.settings.loadgen:
            return ()
        expected = {role: getattr(batches[0], role).p50 for role in self.roles}
        runs = tuple(
            LoadGenRun.model_validate(result)
            for result in self.run("loadgen", {"expected": expected})
        )
        for run in runs:
            if not run.valid:
                _log.warning("LoadGen, %s, %s: INVALID (%s)", run.variant, run.scenario, run.reason)
        return runs

    def energy(self, batch: BatchBenchmark) -> Energy | None:
        """Read from the processor where it can be, else estimated from CPU time."""
        if self.target.device == "gpu":
            return None  # what the GPU takes, no CPU time tells
        if self.target.device == "cpu" and energy.available():
            return Energy.model_validate(self.run("energy"))
        return energy.estimate(batch, self.target.watts_per_core)


def _timed(measured: _Measured) -> tuple[BatchBenchmark, ...]:
    """The interleaved timing in fresh processes; twice as many where it comes out void."""
    settings, target = measured.settings, measured.target
    runs: list[list[Samples]] = []
    for process in range(2 * settings.processes):
        if process == settings.processes and not _void(runs, target, settings):
            break
        results = measured.run("time", {"process": process})
        runs.append([Samples.model_validate(result) for result in results])
    return _summaries(runs, target, settings)


def _busy(name: str, batches: Sequence[BatchBenchmark], environment: Mapping[str, Any]) -> str:
    """A warning when the machine was too busy to conclude; empty else."""
    told = []
    for batch in batches:
        if batch.state == "void":
            told.append(
                f"batch size {batch.batch_size}: nothing may be concluded, as the baseline against "
                f"itself came out at {batch.control.value:.3f}"
            )
        elif batch.state == "loaded":
            told.append(
                f"batch size {batch.batch_size}: most samples were disturbed, so that no 99th "
                "percentile is given"
            )
    if not told:
        return ""
    load = environment["load_average"][0]
    message = (
        f"the machine was busy (load {load:.1f} on {environment['cores']} cores): "
        f"{'; '.join(told)}; measure again when it is quiet"
    )
    _log.warning("%s: %s", name, message)
    return message


def _summaries(
    runs: Sequence[Sequence[Samples]], target: Target, settings: BenchmarkSettings
) -> tuple[BatchBenchmark, ...]:
    return tuple(
        summarise([run[position] for run in runs], size, settings)
        for position, size in enumerate(target.batch_sizes)
    )


def _void(runs: Sequence[Sequence[Samples]], target: Target, settings: BenchmarkSettings) -> bool:
    return any(batch.state == "void" for batch in _summaries(runs, target, settings))


def _prepare(
    directory: Path, infos: Mapping[str, ModelInfo], target: Target, seed: int, folder: Path
) -> tuple[int, dict[str, Path]]:
    """Writes the input tensors of some rows, the same for both models."""
    from trimgate.data.stream import row_count, take
    from trimgate.models import build_inputs

    rng = np.random.default_rng(seed)
    total = row_count(directory)
    wanted = min(total, max(256, 4 * max(target.batch_sizes)))
    order = rng.permutation(total)[:wanted]
    data = take(directory, np.sort(order))
    order = np.argsort(np.argsort(order))  # positions among those
    few = data.take(order[:16])
    for info in infos.values():
        row_bytes = sum(t.nbytes for t in build_inputs(info, few.features).values()) / len(few)
        wanted = min(wanted, max(1, int(_MOST_BYTES / max(row_bytes, 1))))
    rows = data.take(np.sort(order[:wanted]))
    inputs = {}
    for role, info in infos.items():
        inputs[role] = folder / role
        tensors = build_inputs(info, rows.features)
        _child.write_inputs(inputs[role], tensors, tokens=info.tokenizer is not None)
    return len(rows), inputs


def _run(
    job: Mapping[str, Any],
    threads: int,
    timeout: float,
    limits: Limits,
    begin: Callable[[], float] | None = None,
) -> Any:
    """Runs a job in a fresh process of this Python.

    Args:
        job: What it reads.
        threads: Of its numeric libraries.
        timeout: Seconds.
        limits: What it is held to.
        begin: Called when the process says that it is ready; it is told the result.
    """
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin disturb the other variant
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = limits.command([sys.executable, "-m", "trimgate.judge.harness"])
    with subprocess.Popen(  # this Python, no shell, fixed arguments
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            text = json.dumps(job) + "\n"
            if begin is not None:
                text = _say_when(process, text, begin)
            out, errors = process.communicate(text, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(
                f"measuring took more than {timeout:g} s and was given up; raise benchmark.timeout"
            ) from error
        finally:
            process.kill()
    last = (errors.strip().splitlines() or ["no message"])[-1]
    # within little memory an import may fail, or a library crash, without a word about memory
    if process.returncode != 0 and (limits.memory or process.returncode == -9):
        raise OutOfMemory(f"a measuring process ran out of memory ({last})")
    if process.returncode < 0:
        raise MeasurementError(f"a measuring process died of signal {-process.returncode}")
    if process.returncode > 0 or not out:
        raise MeasurementError(f"a measuring process failed: {last}")
    answer = json.loads(out)
    if "error" in answer:
        if limits.memory and _MEMORY.search(answer["error"]):
            raise OutOfMemory(answer["error"])
        raise NotApplicable(answer["error"])
    return answer["result"]


def _say_when(process: "subprocess.Popen[str]", text: str, begin: Callable[[], float]) -> str:
    """Gives a process its job, waits until it is ready, and says when to begin."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError("we asked for the pipes")
    process.stdin.write(text)
    process.stdin.flush()
    if not process.stdout.readline():
        process.wait()
        return ""  # what went wrong is read by the caller
    return f"{begin()}\n"


if __name__ == "__main__":
    sys.exit(_child.main())
