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
import json
import logging
import os
import re
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimgate import processes
from trimgate.errors import InvalidInput, TrimgateError
from trimgate.ops.kfp_containers import Containers, in_containers

_log = logging.getLogger("trimgate.ops")

_COLOR = re.compile(r"\x1b\[\d*m")
_EVENT = re.compile(
    r"^[\d:.]+ - \w+ - (Executing task|Task) '([^']+)'(?: finished with status (\w+))?$"
)
_NOTE = re.compile(r"^ *\d\d:\d\d:\d\d (trimgate\.[\w.]+): (.*)$")
_ERROR = re.compile(r"^ *(?:trimgate\.errors\.)?(InvalidInput|NotApplicable|MissingExtra): (.*)$")
_EXCEPTION = re.compile(r"^(?:\w+\.)*([A-Z]\w*): (.+)$")
_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")


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
        super().__init__(f"the task {task!r} failed: {_reason(tail)}; its output is in {log}")


def _reason(tail: str) -> str:
    """The exception that a task ended with, or the last words of a process that was killed."""
    lines = tail.splitlines()
    for line in reversed(lines):
        found = _EXCEPTION.match(line)
        if found:
            known = found[1] in ("MeasurementError", "ServerFailed", "OSError")
            return found[2] if known else f"{found[1]}: {found[2]}"
    if lines and re.search(r"\bKilled\b", lines[-1]):
        return "its process was killed (out of memory?)"
    return lines[-1] if lines else "its process ended without a word (killed, or out of memory?)"


def run_local(
    pipeline: Any,
    arguments: Mapping[str, Any],
    *,
    root: Path,
    log: Path,
    on_event: Callable[[Event], None],
    cache: bool = True,
    containers: Containers | None = None,
) -> LocalRun:
    """Runs a compiled pipeline function in this process's environment, or in containers.

    Args:
        pipeline: A `@dsl.pipeline` function.
        arguments: Its arguments.
        root: Folder for the tasks' outputs and the cache; kept between runs.
        log: File that gets everything that kfp and the tasks print.
        on_event: Called with each event, in this thread.
        cache: Take results that an earlier run left for the same inputs and code.
        containers: Run each task in a container; left out, in a process of its own.

    Raises:
        InvalidInput: A task found bad input.
        TaskFailed: A task failed for another reason.
    """
    from kfp import local

    titles = _titles(pipeline.pipeline_spec)
    _drop_broken(root / "cache")
    stream = _Stream(log, titles, on_event)
    with (
        contextlib.nullcontext(local.SubprocessRunner(use_venv=False))
        if containers is None
        else in_containers(containers) as runner,
        stream,
        _restored(),
        _task_folder(),
        processes.followed(),
        processes.ending_children(),
        contextlib.redirect_stdout(stream),
        warnings.catch_warnings(),
    ):
        # kfp warns for each task that a laptop shows no display names; the events have them.
        warnings.filterwarnings("ignore", "Task .*no effect in the current local runner")
        local.init(
            runner=runner,
            pipeline_root=str(root),
            workspace_root=str(root / "workspace"),  # else each run leaves a folder in /tmp
            raise_on_error=True,
            enable_caching=cache,
            cache_root=str(root / "cache"),
        )
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
    for package in (
        "numpy",
        "onnx",
        "onnxruntime",
        "openvino",
        "scikit-learn",
        "skl2onnx",
        "torch",
    ):
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
            self._on_event(Event("note", self._title, _DIGEST.sub(r"\1", note[2])))
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


def _drop_broken(cache: Path) -> None:
    """Deletes cache entries that cannot be read, or whose artifacts were changed since.

    The runner itself asks only whether the path of an artifact is still there.
    """
    for file in cache.glob("*.json"):
        try:
            uris = list(_uris(json.loads(file.read_bytes())))
            whole = all(_untouched(uri, file) and not _provisional(uri) for uri in uris)
        except (ValueError, TypeError, AttributeError, OSError):
            whole = False
        if not whole:
            _log.info("%s is not whole; its task is done again", file)
            file.unlink(missing_ok=True)


def _uris(entry: dict[str, Any]) -> Iterator[Path]:
    for value in entry.values():
        if isinstance(value, dict) and "uri" in value:
            yield Path(value["uri"])


def _provisional(path: Path) -> bool:
    """Whether the task only said that it had no time left, which may be otherwise today."""
    file = path / "refused.json"
    return file.is_file() and not json.loads(file.read_bytes()).get("final", True)


def _untouched(path: Path, entry: Path) -> bool:
    """Whether nothing below a path was written, added or removed after its cache entry."""
    if not path.exists():
        return False
    written = entry.stat().st_mtime_ns
    below = path.rglob("*") if path.is_dir() else ()
    return all(p.stat().st_mtime_ns <= written for p in (path, *below))


@contextlib.contextmanager
def _task_folder() -> Iterator[None]:
    """Tasks put their temporary files where they go with the run, also when they are killed."""
    previous = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="trimgate-", ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            if previous is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = previous


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, printing = root.handlers[:], root.level, builtins.print
    try:
        yield
    finally:
        root.handlers[:], builtins.print = handlers, printing
        root.setLevel(level)
