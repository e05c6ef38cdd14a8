"""Small real models, their rows, and clients, for the tests of rollouts."""

import http.client
import importlib.util
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from trimgate.models.directory import ModelInfo, RuntimeChoice, TensorSpec, read, seal, writing
from trimgate.ops.git import Access, ConfigRepository, ReleaseLog, add_to_repository, init_local
from trimgate.ops.release import ReleasedModel, release_stable
from trimgate.serving._client import infer_request

EXAMPLE = Path(__file__).parents[1] / "examples" / "rollout" / "plant.py"


def load_example(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def classifier(folder):
    """A linear classifier of four features that calls about a tenth of the rows positive."""
    weights = np.array([[-1.0, 1.0], [-0.5, 0.5], [0.3, -0.3], [0, 0]], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.array([1.4, -1.4], np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    names = ("a", "b", "c", "d")
    info = ModelInfo(
        name="small",
        task="binary",
        family="linear",
        framework="onnx",
        inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 4), features=names),),
        features=names,
        score_output="probabilities",
        labels=(0, 1),
        runtime=RuntimeChoice(name="onnxruntime"),
    )
    with writing(folder) as partial:
        (partial / "model.onnx").write_bytes(model.SerializeToString())
        seal(partial, info)
    return folder


def released(directory):
    return ReleasedModel(
        storage_uri=str(directory),
        digest=read(directory).digest,
        run="run-1",
        verdict="pass",
        promoted="2026-11-25T12:00:00+00:00",
    )


def config_repository(folder, stable):
    """Access to a config repository in which a model is released to production."""
    access = Access(str(init_local(folder / "config.git")), author="Ops <ops@example.com>")
    with ConfigRepository.open(access) as copy:
        add_to_repository(copy, "small", ["staging", "production"])
        log = ReleaseLog(copy, "small", "production")
        log.change(lambda release: release_stable(release, released(stable)), "First release")
    return access


class Clients:
    """Sends one row after the other to a proxy, from a few connections, until it is stopped."""

    def __init__(self, url, rows, *, threads=2, pause=0.002):
        self.url, self.rows, self.pause = url, rows, pause
        self.answers = {}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(threads)]

    def _send(self, number):
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        bodies = [
            infer_request({"x": np.array([[self.rows.features[n][i] for n in "abcd"]])})
            for i in range(len(self.rows))
        ]
        while not self._stop.is_set():
            body, headers = bodies[number % len(bodies)]
            number += 1
            try:
                connection.request("POST", "/v2/models/small/infer", body, headers)
                answer = connection.getresponse()
                answer.read()
                code = answer.status
            except OSError as error:
                code = type(error).__name__
                connection.close()
            self.answers[code] = self.answers.get(code, 0) + 1
            time.sleep(self.pause)
        connection.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()
