"""Starting, leaving and stopping server processes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trimgate.errors import InvalidInput
from trimgate.serving import (
    ServerFailed,
    ServerState,
    check_port,
    read_state,
    start,
    stop_recorded,
)
from trimgate.serving._client import HttpClient


def _ended(pid: int) -> bool:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_detached_server_outlives_its_parent_and_is_replaced(cancer, tmp_path):
    state_file = tmp_path / "server.json"
    program = (
        "import sys; from trimgate.serving import start;"
        "start(sys.argv[1], detach=True, state_file=sys.argv[2], name='first')"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(cancer.directory), str(state_file)],
        check=True,
        timeout=60,
    )
    first = read_state(state_file)
    assert first is not None
    with HttpClient(first.url, "first") as client:
        assert client.get("/v2/models/first/ready")["ready"]
    second = start(cancer.directory, detach=True, state_file=state_file)
    try:
        assert _ended(first.pid)
        recorded = read_state(state_file)
        assert recorded is not None
        assert (recorded.pid, recorded.url) == (second.pid, second.url)
        assert recorded.digest == cancer.info.digest
        with pytest.raises(InvalidInput, match="not a model directory"):
            start(tmp_path, detach=True, state_file=state_file)
        assert read_state(state_file) == recorded  # still there
    finally:
        assert stop_recorded(state_file)
    assert _ended(second.pid)
    assert not state_file.exists()
    assert not stop_recorded(state_file)


def test_stranger_with_the_recorded_number_is_left_alone(server, tmp_path):
    state_file = tmp_path / "server.json"
    state = {
        **server.address.model_dump(),
        "pid": os.getpid(),
        "started": "2026-01-01T00:00:00+00:00",
        "command": server.command,
    }
    state_file.write_text(json.dumps(state))
    assert read_state(state_file) is None
    assert not stop_recorded(state_file)  # we are still here


def test_damaged_state_file(tmp_path):
    state_file = tmp_path / "server.json"
    state_file.write_text('{"pid": 1}')
    with pytest.raises(InvalidInput, match="state file"):
        stop_recorded(state_file)


def test_server_ends_with_its_parent(cancer):
    program = (
        "import os, sys; from trimgate.serving import start;"
        "print(start(sys.argv[1]).pid, flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(cancer.directory)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert _ended(int(ended.stdout))


def test_not_ready_in_time(cancer):
    with pytest.raises(ServerFailed, match=r"not ready after 0.05 s"):
        start(cancer.directory, timeout=0.05)


def test_server_that_dies_is_reported_with_its_log(cancer, tmp_path, monkeypatch):
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    with pytest.raises(ServerFailed, match="exit code 3:\nout of luck"):
        start(cancer.directory)


def test_check_port(server, tmp_path):
    port = int(server.url.rpartition(":")[2])
    grpc_port = int(server.grpc.rpartition(":")[2])
    with pytest.raises(InvalidInput, match=f"--port = {port}"):
        check_port(port)
    state = ServerState(
        **server.address.model_dump(), started="2026-01-01T00:00:00+00:00", command=server.command
    )
    state_file = tmp_path / "server.json"
    state_file.write_text(state.model_dump_json())
    check_port(port, grpc_port=grpc_port, state_file=state_file)
    check_port(0)


def test_not_a_model_directory(tmp_path):
    with pytest.raises(InvalidInput, match="not a model directory"):
        start(tmp_path)


def test_model_that_the_runtime_refuses(cancer, tmp_path):
    from trimgate.models.directory import RuntimeChoice, seal

    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "model.onnx").write_bytes((cancer.directory / "model.onnx").read_bytes())
    seal(broken, cancer.info.model_copy(update={"score_output": "?"}))
    with pytest.raises(InvalidInput, match="output"):  # what the runtime refuses
        start(broken)
    seal(broken, cancer.info.model_copy(update={"runtime": RuntimeChoice(name="native")}))
    with pytest.raises(InvalidInput, match="ONNX form only"):
        start(broken)
