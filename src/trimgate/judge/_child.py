"""What runs inside a fresh measuring process. Keep its imports light: they count as memory."""

import functools
import importlib
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.judge import load
from trimgate.judge.benchmark import BASELINE, CANDIDATE, CONTROL, BenchmarkSettings, interleave
from trimgate.models import trim
from trimgate.models.directory import read

Array = NDArray[Any]
Inputs = dict[str, Array]

# What is imported before a model is loaded, by runtime; `native` is the model's framework.
_ENGINES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "openvino-ep": "onnxruntime",
    "daal4py": "daal4py",
}
_INDEX = "inputs.json"
# Distinct batches that are cycled through, so that no call answers from a warm cache.
_BATCHES = 64
_FOOTPRINT_CALLS = 3


def write_inputs(directory: Path, inputs: Mapping[str, Array], *, tokens: bool = False) -> None:
    """Keeps input tensors as `.npy` files; strings as fixed-width text.

    Args:
        directory: A new one.
        inputs: The tensors by name.
        tokens: They are tokens of texts, each filled up to the longest.
    """
    directory.mkdir(parents=True)
    index = []
    for position, (name, values) in enumerate(inputs.items()):
        text = values.dtype == object
        kept = values.astype(str) if text else values
        np.save(directory / f"{position}.npy", kept, allow_pickle=False)
        index.append({"name": name, "text": text, "tokens": tokens})
    (directory / _INDEX).write_text(json.dumps(index))


def read_inputs(directory: Path, rows: Sequence[int] | Array) -> Inputs:
    """The given rows of what `write_inputs` kept; only these come into memory.

    Texts are as long as the longest of these rows, as in a request.
    """
    inputs = {}
    index = json.loads((directory / _INDEX).read_text())
    for position, entry in enumerate(index):
        values = np.load(directory / f"{position}.npy", mmap_mode="r")[np.asarray(rows)]
        inputs[entry["name"]] = values.astype(object) if entry["text"] else np.array(values)
    return trim(inputs) if index and index[0]["tokens"] else inputs


def time_models(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Times two model directories side by side.

    Args:
        job: `baseline` and `candidate`, each with `model` and `inputs` directories; `rows` kept
            there; `batch_sizes`, `threads`, `settings`, `process` (its number).

    Returns:
        `Samples` for each batch size.
    """
    settings = BenchmarkSettings.model_validate(job["settings"])
    sizes = job["batch_sizes"]
    results = []
    with _sessions(job) as sessions:
        for number, size in enumerate(sizes):
            inputs = {role: _inputs(job, role, size) for role in sessions}
            variants = {
                name: _caller(sessions[role].predict, inputs[role])
                for name, role in (
                    (BASELINE, BASELINE),
                    (CONTROL, BASELINE),
                    (CANDIDATE, CANDIDATE),
                )
            }
            samples = interleave(
                variants,
                settings,
                seconds=settings.seconds / settings.processes / len(sizes),
                seed=settings.seed + 1000 * job["process"] + number,
            )
            results.append(samples.model_dump(mode="json"))
    return results


def load_models(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Open-loop load on two model directories in turn; sessions belong to threads.

    Args:
        job: As for `time_models`, and `rates` and `concurrency`.

    Returns:
        A `LoadResult` for each rate.
    """
    settings = BenchmarkSettings.model_validate(job["settings"])
    size = job["batch_sizes"][0]
    with _workers(job, size, job["concurrency"]) as variants:
        return [
            load.summarise_load(
                load.load_blocks(
                    variants,
                    rate=rate,
                    seconds=settings.load_seconds,
                    seed=settings.seed + number,
                ),
                where="session",
                rate=rate,
                concurrency=job["concurrency"],
                batch_size=size,
                confidence=settings.confidence,
            ).model_dump(mode="json")
            for number, rate in enumerate(job["rates"])
        ]


def call_together(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Several callers of two model directories in turn, each with a session of its own.

    Args:
        job: As for `time_models`, and `concurrency` (callers in this process) and `together`:
            whether to say that it is ready and wait to be told when to begin.

    Returns:
        A `Block` for each block.
    """
    settings = BenchmarkSettings.model_validate(job["settings"])
    with _workers(job, job["batch_sizes"][0], job["concurrency"]) as variants:
        start = 0.0
        if job["together"]:
            print("ready", file=job["tell"], flush=True)
            start = float(sys.stdin.readline())
        blocks = load.concurrent_blocks(
            variants, seconds=settings.load_seconds, seed=settings.seed, start=start
        )
    return [block.model_dump(mode="json") for block in blocks]


def measure_energy(job: Mapping[str, Any]) -> dict[str, Any]:
    """Joules of two model directories in turn, by the processor's counters.

    Args:
        job: As for `time_models`.

    Returns:
        An `Energy`.
    """
    from trimgate.judge import energy

    settings = BenchmarkSettings.model_validate(job["settings"])
    size = job["batch_sizes"][0]
    with _sessions(job) as sessions:
        variants = {
            role: _caller(session.predict, _inputs(job, role, size))
            for role, session in sessions.items()
        }
        found = energy.measure(
            variants,
            energy.Rapl(),
            batch_size=size,
            seconds=settings.seconds,
            seed=settings.seed,
            confidence=settings.confidence,
        )
    return found.model_dump(mode="json")


def run_loadgen(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """MLPerf LoadGen's scenarios for two model directories, one after the other.

    Args:
        job: As for `time_models`, and `expected`: seconds of a call by role.

    Returns:
        A `LoadGenRun` for each scenario and model.
    """
    from trimgate.judge import loadgen

    settings = BenchmarkSettings.model_validate(job["settings"])
    size = job["batch_sizes"][0]
    runs = []
    with _sessions(job) as sessions:
        for role, session in sessions.items():
            batches = _inputs(job, role, size)
            for scenario in loadgen.SCENARIOS:
                run = loadgen.run_loadgen(
                    functools.partial(_predict, session, batches),
                    len(batches),
                    scenario=scenario,
                    variant="baseline" if role == BASELINE else "candidate",
                    seconds_per_call=job["expected"][role],
                    seconds=settings.loadgen_seconds,
                    seed=settings.seed,
                )
                runs.append(run.model_dump(mode="json"))
    return runs


def _predict(session: Any, batches: Sequence[Inputs], number: int) -> object:
    return session.predict(batches[number % len(batches)])


@contextmanager
def _sessions(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The two models, loaded."""
    from trimgate import runtimes

    with ExitStack() as stack:
        sessions = {}
        for role in (BASELINE, CANDIDATE):
            sessions[role] = runtimes.load(Path(job[role]["model"]), threads=job["threads"])
            stack.callback(sessions[role].close)
        yield sessions


def _inputs(job: Mapping[str, Any], role: str, size: int) -> list[Inputs]:
    """Batches of a model's input tensors."""
    directory = Path(job[role]["inputs"])
    return [read_inputs(directory, rows) for rows in _batches(size, job["rows"])]


@contextmanager
def _workers(job: Mapping[str, Any], size: int, count: int) -> Iterator[dict[str, load.Workers]]:
    """So many threads for each of the two models."""
    from trimgate import runtimes

    with ExitStack() as stack:

        def make(role: str, batches: list[Inputs]) -> load.Call:
            session = runtimes.load(Path(job[role]["model"]), threads=job["threads"])
            stack.callback(session.close)
            return functools.partial(_predict, session, batches)

        variants = {}
        for role in (BASELINE, CANDIDATE):
            made = functools.partial(make, role, _inputs(job, role, size))
            variants[role] = stack.enter_context(load.Workers(made, count))
        yield variants


def measure_footprint(job: Mapping[str, Any]) -> dict[str, float]:
    """Memory and times to load of one model directory, in this process.

    Args:
        job: `model` and `inputs` directories; `rows`, `batch_sizes` and `threads`.

    Returns:
        The fields of `Footprint` but `size`.
    """
    info = read(Path(job["model"]))
    first, *others = [read_inputs(Path(job["inputs"]), _batches(s, job["rows"])[0])
                      for s in job["batch_sizes"]]  # fmt: skip
    start = time.perf_counter()
    from trimgate import runtimes

    importlib.import_module(_ENGINES.get(info.runtime.name, info.framework))
    base = peak_memory()
    before = time.perf_counter()
    session = runtimes.load(Path(job["model"]), threads=job["threads"])
    loaded = time.perf_counter()
    session.predict(first)
    answered = time.perf_counter()
    for inputs in (first, *others):
        for _ in range(_FOOTPRINT_CALLS):
            session.predict(inputs)
    session.close()
    return {
        "peak_rss": peak_memory(),
        "base_rss": base,
        "cold_start": answered - start,
        "load": loaded - before,
    }


def peak_memory() -> int:
    """Peak resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _batches(size: int, rows: int) -> list[Array]:
    """Positions of the rows of each batch; they wrap around when there are too few."""
    count = min(_BATCHES, max(1, rows // size))
    return [np.arange(b * size, (b + 1) * size) % rows for b in range(count)]


def _caller(predict: Callable[[Inputs], Array], batches: list[Inputs]) -> Callable[[], object]:
    following = itertools.cycle(batches)
    return lambda: predict(next(following))


_MODES: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "time": time_models,
    "footprint": measure_footprint,
    "load": load_models,
    "together": call_together,
    "energy": measure_energy,
    "loadgen": run_loadgen,
}


def main() -> int:
    """Reads a job from the first line of stdin, writes its result to stdout as JSON."""
    from trimgate.models import own_process

    own_process()
    # Whatever an engine prints goes to stderr, so that stdout holds the result alone.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        job = {**json.loads(sys.stdin.readline()), "tell": out}
        work = _MODES[job["mode"]]
        from trimgate.errors import TrimgateError

        try:
            answer = {"result": work(job)}
        except TrimgateError as error:
            answer = {"error": str(error)}
        json.dump(answer, out)
    return 0
