"""Ends processes that were started from here, and this one when who started it is gone."""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

_FOLLOW = "TRIMGATE_ENDS_WITH_READER"


def descendants(pid: int) -> list[int]:
    """Pids of the processes that a process started, and so on down, parents first."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, file.read_text().split()):
                found += [child, *descendants(child)]
    return found


def end_descendants(keep: frozenset[int] = frozenset(), grace: float = 5.0) -> None:
    """Ends every process below this one: SIGTERM, and SIGKILL for those that stay.

    Args:
        keep: Pids of processes to leave alone, with what is below them.
        grace: Seconds between the two.
    """
    pids = _below(keep)
    _signal(pids, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(map(_runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    _signal([pid for pid in pids if _runs(pid)], signal.SIGKILL)


@contextlib.contextmanager
def ending_children() -> Iterator[None]:
    """Whatever is started in here ends with it when it is left by an exception.

    In the main thread SIGTERM is such an exception: `SystemExit(143)`.
    """
    before = frozenset(descendants(os.getpid()))

    def end(number: int, _frame: FrameType | None) -> None:
        # At once: who started a child waits for its end on the way out.
        _signal(_below(before), signal.SIGTERM)
        raise SystemExit(128 + number)

    main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, end) if main else None
    try:
        yield
    except BaseException:
        end_descendants(keep=before)
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def followed() -> Iterator[None]:
    """Tasks that are started in here call `end_with_reader` when they start."""
    previous = os.environ.get(_FOLLOW)
    os.environ[_FOLLOW] = "1"
    try:
        yield
    finally:
        if previous is None:
            del os.environ[_FOLLOW]
        else:
            os.environ[_FOLLOW] = previous


def end_with_reader() -> None:
    """Ends this process and those below it once nobody reads its standard output any more.

    That is so when the run that started the task was killed outright. Only under `followed`,
    and only where standard output is a pipe. The main thread gets five seconds to remove what it
    has half-written.
    """
    if os.environ.pop(_FOLLOW, None) is None or not hasattr(select, "poll"):
        return
    number = sys.stdout.fileno()

    def watch() -> None:
        poll = select.poll()
        poll.register(number, 0)  # only errors: the other end of the pipe was closed
        poll.poll()
        end_descendants()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        os._exit(128 + signal.SIGTERM)

    def leave(signalled: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signalled)

    if not os.isatty(number):
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, leave)
        threading.Thread(target=watch, name="follows the run", daemon=True).start()


def _below(keep: frozenset[int]) -> list[int]:
    """Pids of the processes below this one, children before parents, but those to keep."""
    kept = {p for pid in keep for p in (pid, *descendants(pid))}
    return [pid for pid in reversed(descendants(os.getpid())) if pid not in kept]


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _runs(pid: int) -> bool:
    """Whether a process is there and has not ended (a zombie has)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
