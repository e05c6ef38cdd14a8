"""Runs a pipeline on this machine with `kfp.local`, around the runner's traps.

What kfp 2.17 does on its own, and what is done about it here: it deletes the `workspace_root`
that it is given (none is given, so it makes and deletes its own); it can leave `builtins.print`
and the root logger's handlers replaced (both are put back); its cache does not notice edits of
the library (callers put `code_digest` into every task's environment); and it prints every
task's raw output (which goes to the log file, while the caller gets events).
"""

import builtins
import contextlib
import hashlib
import importlib.metadata
import io
import logging
import os
import re
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from trimgate.errors import InvalidInput, TrimgateError

_COLOR = re.compile(r"\x1b\[\d*m")
_EVENT = re.compile(
    r"^[\d:.]+ - \w+ - (Executing task|Task) '([^']+)'(?: finished with status (\w+))?$"
)
_NOTE = re.compile(r"^ *\d\d:\d\d:\d\d (trimgate\.[\w.]+): (.*)$")
_ERROR = re.compile(r"^ *(?:trimgate\.errors\.)?(InvalidInput|NotApplicable|MissingExtra): (.*)$")


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    Attributes:
        kind: A task starts or is done, or says something.
        task: The task's display name.
        text: What it says.
    """

    kind: Literal["start", "done", "note"]
    task: str
    text: str = ""


@dataclass(frozen=True)
class LocalRun:
    """What a finished run gave.

    Attributes:
        outputs: The pipeline's outputs by name: values, or paths of artifacts.
        executed: Tasks that were carried out.
        reused: Tasks whose results an earlier run had left.
    """

    outputs: dict[str, Any]
    executed: int
    reused: int


class TaskFailed(TrimgateError):
    """A task of a local run failed.

    Attributes:
        task: Its display name.
        tail: The last lines of its output.
    """

    def __init__(self, task: str, tail: str, log: Path) -> None:
        self.task = task
        self.tail = tail
        super().__init__(f"the task {task!r} failed; the whole log is {log}\n{tail}")


def run_local(
    pipeline: Any,
    arguments: Mapping[str, Any],
    *,
    root: Path,
    log: Path,
    on_event: Callable[[Event], None],
    cache: bool = True,
) -> LocalRun:
    """Runs a compiled pipeline function in this process's environment.

    Args:
        pipeline: A `@dsl.pipeline` function.
        arguments: Its arguments.
        root: Folder for the tasks' outputs and the cache; kept between runs.
        log: File that gets everything that kfp and the tasks print.
        on_event: Called with each event, in this thread.
        cache: Take results that an earlier run left for the same inputs and code.

    Raises:
        InvalidInput: A task found bad input.
        TaskFailed: A task failed for another reason.
    """
    from kfp import local

    titles = _titles(pipeline.pipeline_spec)
    stream = _Stream(log, titles, on_event)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(root),
        raise_on_error=True,
        enable_caching=cache,
        cache_root=str(root / "cache"),
    )
    with (
        stream,
        _restored(),
        _ending_children(),
        contextlib.redirect_stdout(stream),
        warnings.catch_warnings(),
    ):
        # kfp warns for each task that a laptop shows no display names; the events have them.
        warnings.filterwarnings("ignore", "Task .*no effect in the current local runner")
        try:
            run = pipeline(**arguments)
        except RuntimeError as error:
            failure = stream.failure or _Failure("pipeline", str(error), "")
            if failure.problem:
                raise InvalidInput(failure.problem) from error
            raise TaskFailed(failure.task, failure.tail, log) from error
    outputs = {
        name: getattr(value, "path", value) if hasattr(value, "uri") else value
        for name, value in run.outputs.items()
    }
    return LocalRun(outputs, stream.executed, max(0, len(_leaves(pipeline)) - stream.executed))


def count_tasks(pipeline: Any) -> int:
    """How many tasks a run goes through at most, each branch of a condition counted once."""
    return len(_leaves(pipeline))


def code_digest() -> str:
    """SHA-256 over trimgate's own code and the versions of what it computes with."""
    import trimgate
    import trimgate.components

    digest = hashlib.sha256()
    for folder in (*trimgate.__path__, *trimgate.components.__path__):
        for file in sorted(Path(folder).rglob("*.py")):
            digest.update(file.read_bytes())
    for package in ("numpy", "onnx", "onnxruntime", "openvino", "scikit-learn", "skl2onnx", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            digest.update(f"{package}=={importlib.metadata.version(package)}".encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Failure:
    task: str
    tail: str
    problem: str


class _Stream(io.TextIOBase):
    """Takes kfp's output: all of it to the log, what matters to the caller."""

    def __init__(
        self, log: Path, titles: Mapping[str, str], on_event: Callable[[Event], None]
    ) -> None:
        self.executed = 0
        self.failure: _Failure | None = None  # the first one: kfp goes on with other branches
        self._tail: deque[str] = deque(maxlen=25)
        self._title = ""
        self._problem = ""
        self._file = log.open("a", encoding="utf-8")
        self._titles = titles
        self._on_event = on_event
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(_COLOR.sub("", line))
        return len(text)

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        super().close()
        self._file.close()

    def _line(self, line: str) -> None:
        self._file.write(line + "\n")
        event = _EVENT.match(line)
        if event:
            what, name, status = event.groups()
            if name not in self._titles:
                return
            self._title = self._titles[name]
            if what == "Executing task":
                self._tail.clear()
                self._problem = ""
                self.executed += 1
                self._on_event(Event("start", self._title))
            elif status == "SUCCESS":
                self._on_event(Event("done", self._title))
            elif self.failure is None:
                self.failure = _Failure(self._title, "\n".join(self._tail), self._problem)
            return
        note = _NOTE.match(line)
        if note:
            self._on_event(Event("note", self._title, note[2]))
        error = _ERROR.match(line)
        if error:
            self._problem = error[2]
        if line.strip():
            self._tail.append(line.strip())


def _titles(spec: Any) -> dict[str, str]:
    """Display names by the component names that kfp.local prints; importers left out."""
    dags = [spec.root.dag, *(c.dag for c in spec.components.values())]
    executors = spec.deployment_spec["executors"]
    return {
        task.component_ref.name.removeprefix("comp-"): task.task_info.name
        for dag in dags
        for task in dag.tasks.values()
        if (label := spec.components[task.component_ref.name].executor_label)
        and "importer" not in executors[label]
    }


def _leaves(pipeline: Any) -> list[str]:
    spec = pipeline.pipeline_spec
    titles = _titles(spec)
    root = {t.component_ref.name.removeprefix("comp-") for t in spec.root.dag.tasks.values()}
    inner = [name for name in titles if name not in root]
    # Of the tasks inside conditions one branch runs; ours have one task each.
    return [name for name in titles if name in root] + inner[:1]


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, printing = root.handlers[:], root.level, builtins.print
    try:
        yield
    finally:
        root.handlers[:], builtins.print = handlers, printing
        root.setLevel(level)


@contextlib.contextmanager
def _ending_children() -> Iterator[None]:
    """While in here, SIGTERM ends the running task's processes and then this one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        for pid in reversed(_descendants(os.getpid())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _descendants(pid: int) -> list[int]:
    """Pids of the processes that a process started, and so on down, parents first."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, file.read_text().split()):
                found += [child, *_descendants(child)]
    return found
