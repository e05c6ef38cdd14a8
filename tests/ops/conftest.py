import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import pytest
from ops.seaweed import CuttingProxy, Seaweed, environment

TOKEN = "token-that-must-not-be-logged"


class KubeflowApi(BaseHTTPRequestHandler):
    """Speaks the calls of the Kubeflow Pipelines API that a submission makes."""

    def do_GET(self):
        self._answer(None)

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        self._answer(json.loads(self.rfile.read(length)))

    def _answer(self, body):
        state = self.server.state
        url = urlparse(self.path)
        state["calls"].append((self.command, url.path, body))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "unauthorized"})
        if url.path == "/apis/v2beta1/healthz":
            return self._send(200, {"multi_user": False})
        if url.path == "/apis/v2beta1/experiments" and self.command == "GET":
            wanted = json.loads(parse_qs(url.query).get("filter", ["{}"])[0])
            values = [p["stringValue"] for p in wanted.get("predicates", [])]
            found = [e for e in state["experiments"] if not values or e["display_name"] in values]
            return self._send(200, {"experiments": found, "total_size": len(found)})
        if url.path == "/apis/v2beta1/experiments":
            made = {**body, "experiment_id": f"exp-{len(state['experiments'])}"}
            state["experiments"].append(made)
            return self._send(200, made)
        if url.path == "/apis/v2beta1/runs" and self.command == "POST":
            state["runs"].append(body)
            return self._send(200, {**body, "run_id": f"run-{len(state['runs'])}"})
        return self._send(404, {"error": f"no such call: {self.path}"})

    def _send(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def kubeflow():
    """A Kubeflow Pipelines API on loopback: its URL, and what it was told."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), KubeflowApi)
    server.state = {"calls": [], "experiments": [], "runs": []}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory):
    """A real S3 server with the buckets `models` and `probe`."""
    server = Seaweed(tmp_path_factory.mktemp("seaweed"))
    server.start()
    server.client().create_bucket(Bucket="models")
    yield server
    server.stop()


@pytest.fixture
def s3(seaweed, monkeypatch):
    """The server, with its endpoint and credentials in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment(seaweed.url).items():
        monkeypatch.setenv(name, value)
    return seaweed


@pytest.fixture
def proxy(s3, monkeypatch):
    """A proxy before the server that can cut connections."""
    between = CuttingProxy(s3.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
    yield between
    between.close()
