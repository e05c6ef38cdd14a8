"""Measures two model directories in fresh processes.

`python -m trimgate.judge.harness` is such a process: it reads a job as JSON from stdin and
writes the result as JSON to stdout.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.errors import NotApplicable, TrimgateError
from trimgate.judge import _child
from trimgate.judge.benchmark import BASELINE, CANDIDATE, BenchmarkSettings, Samples, summarise
from trimgate.judge.records import BatchBenchmark, Benchmark, Footprint
from trimgate.models.directory import ModelInfo, read
from trimgate.targets import Target

_log = logging.getLogger("trimgate.judge")

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_MOST_BYTES = 256 * 2**20


class MeasurementError(TrimgateError):
    """A measuring process did not give a result."""


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
        target: Gives the batch sizes and the number of threads.
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
        NotApplicable: A model cannot be loaded here.
        MeasurementError: A process crashed or took too long.
    """
    from trimgate.data.dataset import Dataset
    from trimgate.environment import describe

    settings = settings or BenchmarkSettings()
    directories = {BASELINE: Path(baseline_dir).resolve(), CANDIDATE: Path(candidate_dir).resolve()}
    infos = {role: read(path) for role, path in directories.items()}
    data = Dataset.load(rows_dir)
    with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
        rows, inputs = _prepare(data, infos, target, settings.seed, Path(folder))
        common = {
            "rows": rows,
            "batch_sizes": list(target.batch_sizes),
            "threads": target.threads,
        }
        roles = {
            role: {"model": str(directories[role]), "inputs": str(inputs[role])} for role in infos
        }
        runs: list[list[Samples]] = []
        for process in range(2 * settings.processes):
            if process == settings.processes and not _void(runs, target, settings):
                break
            job = {
                **common,
                **roles,
                "mode": "time",
                "settings": settings.model_dump(mode="json"),
                "process": process,
            }
            results = _run(job, target.threads, settings.timeout)
            runs.append([Samples.model_validate(result) for result in results])
        footprints = {}
        for role, info in infos.items():
            if role == BASELINE and baseline_footprint is not None:
                footprints[role] = baseline_footprint
                continue
            job = {**common, **roles[role], "mode": "footprint"}
            measured = _run(job, target.threads, settings.timeout)
            footprints[role] = Footprint(size=info.size, **measured)
    batches = _summaries(runs, target, settings)
    for batch in batches:
        if batch.state != "clean":
            _log.warning("%s, batch size %d: the timing is %s", name, batch.batch_size, batch.state)
    return Benchmark(
        baseline_model=infos[BASELINE].digest,
        model=infos[CANDIDATE].digest,
        name=name,
        target=target.name,
        batches=batches,
        baseline=footprints[BASELINE],
        candidate=footprints[CANDIDATE],
        environment=describe(),
        settings={**settings.model_dump(mode="json"), "threads": target.threads},
    )


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
    data: Any, infos: Mapping[str, ModelInfo], target: Target, seed: int, folder: Path
) -> tuple[int, dict[str, Path]]:
    """Writes the input tensors of some rows, the same for both models."""
    from trimgate.models import build_inputs

    rng = np.random.default_rng(seed)
    wanted = min(len(data), max(256, 4 * max(target.batch_sizes)))
    order = rng.permutation(len(data))[:wanted]
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


def _run(job: Mapping[str, Any], threads: int, timeout: float) -> Any:
    """Runs a job in a fresh process of this Python."""
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin disturb the other variant
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-m", "trimgate.judge.harness"]
    try:
        done = subprocess.run(  # this Python, no shell, fixed arguments
            command,
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(
            f"measuring took more than {timeout:g} s and was given up; raise benchmark.timeout"
        ) from error
    if done.returncode < 0:
        hint = " (out of memory?)" if done.returncode == -9 else ""
        raise MeasurementError(f"a measuring process died of signal {-done.returncode}{hint}")
    if done.returncode > 0 or not done.stdout:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MeasurementError(f"a measuring process failed: {last}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise NotApplicable(answer["error"])
    return answer["result"]


if __name__ == "__main__":
    sys.exit(_child.main())
