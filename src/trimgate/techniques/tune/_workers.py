"""Several processes that share a study.

`python -m trimgate.techniques.tune._workers` is such a process: it reads a job as JSON from the
first line of stdin and ends when stdin does, that is, when the process that started it is gone.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimgate.data.dataset import Dataset
from trimgate.errors import TrimgateError
from trimgate.targets import Target
from trimgate.techniques._base import Context
from trimgate.techniques.tune._config import TuneConfig
from trimgate.techniques.tune._study import Progress, Trials, quiet, shared_numbers
from trimgate.techniques.tune._tasks import make_task

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_POLL = 0.2
_ROUNDS = 8


def work_together(trials: Trials, source: Path) -> None:
    """Carries out what is left of a study in `config.workers` processes.

    A process that dies costs the trial that it was at, which is tried again.

    Args:
        trials: A study that is prepared; nobody else works on it.
        source: The given model directory.

    Raises:
        TrimgateError: The processes die without a trial.
    """
    folder, context = trials.folder, trials.context
    rows = {"train": context.train, "validation": context.validation}
    for name, part in rows.items():
        if not (folder / name).exists():
            part.save(folder / name)
    progress = Progress(trials)
    for attempt in range(_ROUNDS):
        begin, end = len(trials.settled()), trials.most()
        if begin >= end or trials.late() or trials.hopeless():
            return
        claims = Path(tempfile.mkdtemp(prefix="claims-", dir=folder))
        job = {
            "source": str(source.resolve()),
            "config": trials.config.model_dump(mode="json"),
            "folder": str(folder.resolve()),
            "claims": [str(claims.resolve()), begin, end],
            "metric": context.metric,
            "target": context.target.model_dump(mode="json"),
            "seed": context.seed,
            "effort": context.effort,
        }
        died = _run(job, min(trials.config.workers, end - begin), folder, trials, progress)
        trials.retire("the process that tried it died")
        if died and len(trials.settled()) == begin and attempt:
            raise TrimgateError(f"the processes that tune the model fail: {died}")


def _run(
    job: dict[str, Any], workers: int, folder: Path, trials: Trials, progress: Progress
) -> str | None:
    """Starts the processes and waits for their end; gives the last words of one that died."""
    # one thread each: the processes share the cores
    environment = {**os.environ, **dict.fromkeys(_THREADS, "1")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-m", "trimgate.techniques.tune._workers"]
    errors = [folder / f"worker-{place}.log" for place in range(workers)]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for file in errors:
            with file.open("wb") as stream:
                started.append(
                    subprocess.Popen(  # this Python, no shell, fixed arguments
                        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                        stderr=stream, env=environment,
                    )
                )  # fmt: skip
            pipe = started[-1].stdin
            if pipe is not None:
                pipe.write(json.dumps(job).encode() + b"\n")
                pipe.flush()
        while any(process.poll() is None for process in started):
            progress.tell(trials)
            time.sleep(_POLL)
        progress.tell(trials)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
    return _last_words(started, errors)


def _last_words(processes: Sequence[subprocess.Popen[bytes]], errors: Sequence[Path]) -> str | None:
    for process, file in zip(processes, errors, strict=True):
        if process.returncode:
            lines = file.read_text(errors="replace").strip().splitlines()
            return lines[-1] if lines else f"ended with {process.returncode}"
    return None


def main() -> None:
    """Works on a study until nothing is left to claim."""
    from trimgate.models import own_process

    own_process()
    job = json.loads(sys.stdin.buffer.readline())

    def follow() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=follow, name="follows the parent", daemon=True).start()
    folder = Path(job["folder"])
    config = TuneConfig.model_validate(job["config"])
    context = Context(
        train=Dataset.load(folder / "train"),
        validation=Dataset.load(folder / "validation"),
        metric=job["metric"],
        target=Target.model_validate(job["target"]),
        seed=job["seed"],
        effort=job["effort"],
    )
    single = replace(context, target=context.target.model_copy(update={"threads": 1}))
    claims, begin, end = job["claims"]
    with quiet():
        task = make_task(Path(job["source"]), config, single)
        try:
            Trials(task, config, context, folder).work(shared_numbers(Path(claims), begin, end))
        finally:
            task.close()


if __name__ == "__main__":
    main()
