"""A server as a child process: start it, wait until it answers, stop it."""

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from trimgate.errors import InvalidInput, TrimgateError
from trimgate.models.directory import read
from trimgate.serving.server import Address, check_port

logger = logging.getLogger("trimgate.serving")

_DETACHED: list["subprocess.Popen[bytes]"] = []  # kept, so that none is reported as forgotten


class ServerFailed(TrimgateError):
    """The server ended, or did not answer in time; the message ends with its log."""


class ServerState(BaseModel):
    """What the state file of a detached server says.

    Attributes:
        pid: Its process.
        url: Base URL of the REST side.
        grpc: `host:port` of the gRPC side.
        name: The model's name in the URLs.
        digest: The model's content digest.
        started: ISO 8601 time in UTC.
        command: Its command line, by which the process is known again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    pid: int
    url: str
    grpc: str | None
    name: str
    digest: str
    started: str
    command: tuple[str, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens."""
        return (self.url,) if self.grpc is None else (self.url, self.grpc)


@dataclass
class RunningServer:
    """A server that answers; as a context manager it is stopped at the end.

    Attributes:
        address: Where it answers.
        command: Its command line.
    """

    address: Address
    command: tuple[str, ...]
    _process: "subprocess.Popen[bytes]" = field(repr=False)

    @property
    def url(self) -> str:
        """Base URL of the REST side."""
        return self.address.url

    @property
    def grpc(self) -> str | None:
        """`host:port` of the gRPC side."""
        return self.address.grpc

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def stop(self, timeout: float = 30.0) -> int:
        """Ends the server with SIGTERM, and with SIGKILL when it has not drained in time.

        Args:
            timeout: Seconds that it gets.

        Returns:
            Its exit code: 0 when it drained.
        """
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            logger.warning("the server (process %d) did not stop; it is killed", self.pid)
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process in _DETACHED:
            _DETACHED.remove(self._process)
        return self._process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def start(
    directory: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    grpc_port: int | None = None,
    threads: int = 1,
    name: str | None = None,
    timeout: float = 60.0,
    log: str | Path | None = None,
    detach: bool = False,
    state_file: str | Path | None = None,
) -> RunningServer:
    """Starts a server in a process of its own and waits until it answers.

    It ends with this process, whatever becomes of it, unless it is detached.

    Args:
        directory: The model directory.
        host: Address to listen on.
        port: REST port; 0 chooses a free one.
        grpc_port: gRPC port; by default the one after `port`, or a free one where that is 0.
        threads: Intra-op threads of the session.
        name: The model's name in the URLs; by default that of `model.json`.
        timeout: Seconds that it has to become ready.
        log: File for its log; by default the log is kept for error messages alone.
        detach: Leave it running when this process ends.
        state_file: Where to write a `ServerState`, for `stop_recorded`; a server that the file
            records already is stopped first.

    Raises:
        InvalidInput: The server refused the directory or an option, such as a port in use.
        ServerFailed: It ended, or did not answer in time.
    """
    if state_file is not None:
        read(directory)  # before the old server is gone
        check_port(port, host=host, grpc_port=grpc_port, state_file=state_file)
        stop_recorded(state_file)
    command = [sys.executable, "-m", "trimgate.serving", str(Path(directory).resolve())]
    command += ["--host", host, "--port", str(port), "--threads", str(threads)]
    if grpc_port is not None:
        command += ["--grpc-port", str(grpc_port)]
    if name is not None:
        command += ["--name", name]
    return launch(command, timeout=timeout, log=log, detach=detach, state_file=state_file)


def launch(
    command: list[str],
    *,
    timeout: float = 60.0,
    log: str | Path | None = None,
    detach: bool = False,
    state_file: str | Path | None = None,
) -> RunningServer:
    """Starts any command that speaks as `python -m trimgate.serving` does, and waits for it.

    Its first line on standard output is an `Address` or `{"invalid": {...}}`, and with
    `--stop-on-eof`, which is added unless it is detached, it ends when its standard input does.

    Args:
        command: The command line.
        timeout: Seconds that it has to become ready.
        log: File for its log; by default the log is kept for error messages alone.
        detach: Leave it running when this process ends.
        state_file: Where to write a `ServerState`; a server that it records already is not
            stopped here.

    Raises:
        InvalidInput: It refused an option.
        ServerFailed: It ended, or did not answer in time.
    """
    if not detach:
        command = [*command, "--stop-on-eof"]
    with _log_file(log) as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=detach,
        )
        try:
            address = _await_ready(process, timeout, errors)
        except BaseException:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
    running = RunningServer(address, tuple(command), process)
    if detach:
        _DETACHED.append(process)
    if state_file is not None:
        record(address, command, state_file)
    return running


def record(address: Address, command: Sequence[str], state_file: str | Path) -> None:
    """Writes the state file of a server that runs.

    Args:
        address: Where it answers.
        command: The command line of its process.
        state_file: The file, for `read_state` and `stop_recorded`.
    """
    state = ServerState(
        **address.model_dump(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(command),
    )
    Path(state_file).parent.mkdir(parents=True, exist_ok=True)
    partial = Path(f"{state_file}.partial")
    partial.write_text(state.model_dump_json(indent=2) + "\n")
    partial.replace(state_file)


def read_state(state_file: str | Path) -> ServerState | None:
    """What a state file records, if that server still runs.

    Raises:
        InvalidInput: It is not a state file.
    """
    path = Path(state_file)
    if not path.is_file():
        return None
    try:
        state = ServerState.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InvalidInput("is not a server's state file", file=path, mend="delete it") from error
    return state if _is_ours(state) else None


def stop_recorded(state_file: str | Path, timeout: float = 30.0) -> bool:
    """Stops the server that a state file records, and removes the file.

    A process is ended only when its command line is the recorded one, so never a stranger that
    was given the same process number later.

    Args:
        state_file: What `start` wrote; it need not exist.
        timeout: Seconds that the server gets before it is killed.

    Returns:
        Whether a server was running.
    """
    state = read_state(state_file)
    if state is not None:
        logger.info("stopping the server at %s (process %d)", state.url, state.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while _is_ours(state) and time.monotonic() < deadline:
            time.sleep(0.02)
        if _is_ours(state):
            logger.warning("the server (process %d) did not stop; it is killed", state.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.pid, signal.SIGKILL)
    Path(state_file).unlink(missing_ok=True)
    return state is not None


def _is_ours(state: ServerState) -> bool:
    """Whether the process runs and has the command line that was recorded."""
    for process in _DETACHED:
        process.poll()  # reaps a child of ours that has ended
    try:
        line = Path(f"/proc/{state.pid}/cmdline").read_bytes()
    except OSError:
        return False
    return tuple(os.fsdecode(part) for part in line.split(b"\0")[:-1]) == state.command


@contextlib.contextmanager
def _log_file(path: str | Path | None) -> Iterator[IO[bytes]]:
    if path is None:
        with tempfile.TemporaryFile() as file:
            yield file
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("w+b") as file:
            yield file


def _await_ready(process: "subprocess.Popen[bytes]", timeout: float, errors: IO[bytes]) -> Address:
    line = _first_line(process, time.monotonic() + timeout)
    if line is None:
        raise ServerFailed(f"the server was not ready after {timeout:g} s{_tail(errors)}")
    if not line:
        code = process.wait()
        raise ServerFailed(f"the server ended with exit code {code}{_tail(errors)}")
    told = json.loads(line)
    if "invalid" in told:
        process.wait()
        raise InvalidInput(**told["invalid"])
    return Address.model_validate(told)


def _first_line(process: "subprocess.Popen[bytes]", deadline: float) -> bytes | None:
    """The first line of standard output; empty at its end, None when time is up."""
    assert process.stdout is not None  # noqa: S101 (we asked for the pipe)
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            return None
        more = os.read(process.stdout.fileno(), 65536)
        if not more:
            return b""
        line += more
    return line


def _tail(errors: IO[bytes], lines: int = 15) -> str:
    errors.seek(0)
    tail = errors.read().decode(errors="replace").strip().splitlines()[-lines:]
    return ":\n" + "\n".join(tail) if tail else " and wrote no log"
