"""The server as a process: gRPC, load, ports, draining."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from trimgate import models, runtimes
from trimgate.errors import InvalidInput
from trimgate.models.directory import read, seal
from trimgate.ops.signing import sign
from trimgate.serving import serve, start
from trimgate.serving._client import HttpClient, RequestFailed, grpc_infer
from trimgate.serving._kserve import prepare
from trimgate.serving.process import launch


def _rows(example, count):
    inputs = models.build_inputs(example.info, example.rows.take(slice(count)).features)
    session = runtimes.load(example.directory)
    return inputs, session.predict(inputs)


@pytest.fixture
def stub(server):
    prepare()
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as services

    with grpc.insecure_channel(server.grpc, [("grpc.enable_http_proxy", 0)]) as channel:
        yield services.GRPCInferenceServiceStub(channel)


def test_listens_on_loopback_only(server):
    port = urlsplit(server.url).port
    table = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
    listening = [
        line.split()[1] for line in table.splitlines() if f":{port:04X} " in line and " 0A " in line
    ]
    assert listening == [f"0100007F:{port:04X}"]


def test_keeps_no_file_open_for_writing(server):
    """The root file system of its container may be read-only."""
    opened = []
    for descriptor in Path(f"/proc/{server.pid}/fdinfo").iterdir():
        flags = int(re.search(r"flags:\s+(\d+)", descriptor.read_text())[1], 8)
        target = str(Path(f"/proc/{server.pid}/fd/{descriptor.name}").readlink())
        if flags & os.O_ACCMODE and target.startswith("/") and not target.startswith("/dev/"):
            opened.append(target)
    assert [Path(target).name for target in opened] == ["server.log"]


def test_grpc_answers_as_the_session(server, cancer):
    inputs, scores = _rows(cancer, 50)
    outputs = grpc_infer(server.grpc, "cancer", inputs)
    np.testing.assert_allclose(outputs["probabilities"], scores, rtol=1e-6)
    assert outputs["label"].tolist() == scores.argmax(axis=1).tolist()


def test_grpc_contents_are_answered_with_contents(stub, cancer):
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages

    inputs, scores = _rows(cancer, 2)
    values = inputs["X"].reshape(-1).tolist()
    tensor = {"name": "X", "datatype": "FP32", "shape": [2, 30]}
    request = messages.ModelInferRequest(
        model_name="cancer", id="7", inputs=[{**tensor, "contents": {"fp32_contents": values}}]
    )
    answer = stub.ModelInfer(request)
    assert answer.id == "7"
    assert answer.outputs[0].contents.fp32_contents == pytest.approx(scores.reshape(-1))
    assert not answer.raw_output_contents


def test_grpc_health_and_metadata(stub, cancer):
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages

    assert stub.ServerReady(messages.ServerReadyRequest()).ready
    assert stub.ModelReady(messages.ModelReadyRequest(name="cancer")).ready
    told = stub.ModelMetadata(messages.ModelMetadataRequest(name="cancer"))
    assert [(t.name, t.datatype, list(t.shape)) for t in told.inputs] == [("X", "FP32", [-1, 30])]
    assert list(told.versions) == [cancer.info.digest[7:19]]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model_name": "nobody"}, "NOT_FOUND"),
        ({"model_version": "7"}, "NOT_FOUND"),
        ({"inputs": []}, "INVALID_ARGUMENT"),
        ({"raw_input_contents": [b"abc"]}, "INVALID_ARGUMENT"),
        ({"raw_input_contents": []}, "INVALID_ARGUMENT"),
        (
            {"inputs": [{"name": "X", "datatype": "COMPLEX", "shape": [1, 30]}]},
            "INVALID_ARGUMENT",
        ),
        ({"outputs": [{"name": "logits"}]}, "INVALID_ARGUMENT"),
    ],
)
def test_bad_grpc_requests(stub, changes, code):
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages

    fields = {
        "model_name": "cancer",
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 30]}],
        "raw_input_contents": [bytes(120)],
    }
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(messages.ModelInferRequest(**(fields | changes)))
    assert raised.value.code().name == code
    assert raised.value.details()


def test_a_large_grpc_message(server, cancer):
    inputs, scores = _rows(cancer, 1)
    many = {"X": np.repeat(inputs["X"], 90_000, axis=0)}  # 10.8 MB, over gRPC's default of 4
    outputs = grpc_infer(server.grpc, "cancer", many)
    np.testing.assert_allclose(outputs["probabilities"][-1], scores[0], rtol=1e-5)


def test_load_with_bad_requests_in_between(server, cancer):
    inputs, scores = _rows(cancer, 8)
    wrong: list[object] = []
    answered = [0] * 8
    end = time.monotonic() + 2.0

    def ask(worker: int) -> None:
        with HttpClient(server.url, "cancer") as client:
            while time.monotonic() < end:
                try:
                    if worker % 4 == 3:
                        client.request("POST", "/v2/models/cancer/infer", b'{"inputs": [{', {})
                        wrong.append("a bad request was answered")
                    given = client.infer(inputs, binary=worker % 2 == 0)
                    if not np.allclose(given["probabilities"], scores, rtol=1e-5):
                        wrong.append(given)
                except RequestFailed as error:
                    if error.code != 400 or worker % 4 != 3:
                        wrong.append(error)
                answered[worker] += 1

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(answered)
    with HttpClient(server.url, "cancer") as client:
        assert client.get("/v2/models/cancer/ready")["ready"]


def test_garbage_does_not_end_the_server(server, client):
    address = (urlsplit(server.url).hostname, urlsplit(server.url).port)
    for garbage in (
        b"\0\1\2\3" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        with socket.create_connection(address, timeout=5) as sock:
            sock.sendall(garbage)
            sock.recv(1000)
    assert client.get("/v2/health/ready")["ready"]


def test_body_over_the_limit_is_refused_before_it_is_read(server, client):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    connection.putrequest("POST", "/v1/models/cancer:predict")
    connection.putheader("Content-Length", str(10**10))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert client.get("/v2/health/ready")["ready"]


def test_sigterm_answers_open_requests_and_refuses_new_ones(cancer):
    body = json.dumps({"instances": [[1.0] * 30]}).encode()
    with start(cancer.directory) as server:
        parts = urlsplit(server.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        connection.putrequest("POST", "/v1/models/cancer:predict")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:40])
        with HttpClient(server.url, "cancer") as other:
            other.get("/v2/health/ready")  # by now the server has read the open request's head
        os.kill(server.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection((parts.hostname, parts.port), timeout=1).close()
            except ConnectionRefusedError:
                break
            time.sleep(0.02)
        else:
            pytest.fail("new connections are still taken")
        connection.send(body[40:])
        response = connection.getresponse()
        assert response.status == 200
        assert len(json.loads(response.read())["predictions"]) == 1
        connection.close()
        assert server.stop() == 0


def test_name_with_a_space(cancer):
    with (
        start(cancer.directory, name="my model") as server,
        HttpClient(server.url, "my model") as client,
    ):
        assert len(client.predict([[1.0] * 30])) == 1


@pytest.mark.parametrize("key", ["--port", "--grpc-port"])
def test_port_in_use(key, cancer, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"port": port} if key == "--port" else {"port": 0, "grpc_port": port}
        with pytest.raises(InvalidInput) as raised:
            start(cancer.directory, **ports)
        assert raised.value.key == key
        assert raised.value.value == port
        assert "0 chooses a free one" in raised.value.mend
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "trimgate.serving",
                str(cancer.directory),
                "--port",
                "0",
                key,
                str(port),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"{key} = {port}" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"port": 70000}, "--port = 70000"),
        ({"host": "no.such.host.invalid"}, "--host"),
        ({"port": 0, "name": "a/b"}, "--name"),
    ],
)
def test_bad_options(arguments, words, cancer):
    with pytest.raises(InvalidInput, match=words):
        serve(cancer.directory, **arguments)


def test_altered_model_is_not_served(cancer, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(cancer.directory, copy)
    with (copy / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(InvalidInput, match="altered"):
        serve(copy, port=0)


def test_only_what_is_loaded_must_be_safe(cancer, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(cancer.directory, copy)
    (copy / "model.skops").write_bytes(b"kept for training, and not read by a server")
    seal(copy, read(copy).model_copy(update={"framework": "sklearn"}))
    with start(copy) as server:
        assert server.address.digest == read(copy).digest
    (copy / "more.json").write_bytes(b"\x80\x04K\x01.")
    seal(copy, read(copy))
    with pytest.raises(InvalidInput, match=r"more\.json: is a pickle, which runs code"):
        start(copy)


def test_a_key_serves_what_is_signed_for_it_alone(cancer, keys, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(cancer.directory, copy)
    with pytest.raises(InvalidInput, match="the model is not signed"):
        serve(copy, port=0, verify_key=keys / "a.pub")
    sign(copy, key=keys / "a.pem")
    with pytest.raises(InvalidInput, match="another key signed it"):
        serve(copy, port=0, verify_key=keys / "b.pub")
    command = [sys.executable, "-m", "trimgate.serving", str(copy), "--port", "0"]
    with launch([*command, "--verify-key", str(keys / "a.pub")]) as server:
        assert server.address.digest == cancer.info.digest
    (copy / "more.txt").write_text("added later")
    with pytest.raises(InvalidInput, match=r"more\.txt: is not what was signed"):
        launch([*command, "--verify-key", str(keys / "a.pub")])
