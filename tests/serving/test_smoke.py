"""The smoke test and the curl example against real servers."""

import json
import shlex
import subprocess

import numpy as np
import pytest

from trimgate import models, runtimes
from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.models.directory import seal
from trimgate.serving import curl_example, smoke, smoke_test
from trimgate.serving.smoke import CHECKS


def test_good_winner_beside_its_baseline(cancer):
    served = smoke_test(
        cancer.directory, cancer.directory, cancer.rows, requests=40, rates=(40,), load_seconds=3
    )
    assert served.errors == ()
    assert served.checks == dict.fromkeys((*CHECKS, "baseline_served"), True)
    assert served.model == cancer.info.digest
    assert served.requests == 40
    assert 0 < served.p50 <= served.p95 <= served.p99
    assert served.latency.low <= served.latency.value <= served.latency.high
    (loaded,) = served.load
    assert (loaded.where, loaded.rate, loaded.batch_size) == ("server", 40, 1)
    assert loaded.candidate.requests == loaded.baseline.requests > 20
    assert loaded.candidate.errors == loaded.baseline.errors == 0
    assert len(loaded.candidate.quantiles) == 23


@pytest.mark.parametrize("name", ["people", "digits", "diabetes"])
def test_every_kind_of_model_without_a_baseline(name, request):
    example = request.getfixturevalue(name)
    served = smoke_test(example.directory, None, example.rows, requests=10)
    assert served.errors == ()
    assert all(served.checks.values())
    assert served.latency is None
    assert served.baseline_p50 is None
    assert served.p50 > 0


def test_wrong_answers_do_not_pass(cancer, monkeypatch):
    """The server gives one model; the session here, what is expected, is another's."""
    load = runtimes.load

    class Other:
        def __init__(self, session):
            self.session = session

        def predict(self, inputs):
            scores = self.session.predict(inputs)
            return scores + np.float32(1e-4)

        def close(self):
            self.session.close()

    monkeypatch.setattr(runtimes, "load", lambda *a, **k: Other(load(*a, **k)))
    served = smoke_test(cancer.directory, None, cancer.rows, requests=5)
    wrong = {"v1_json", "v2_json", "v2_binary", "grpc"}
    assert {name for name, held in served.checks.items() if not held} == wrong
    assert len(served.errors) == 4


def test_server_that_does_not_start(cancer, tmp_path):
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"not an ONNX file")
    seal(broken, cancer.info)
    served = smoke_test(broken, cancer.directory, cancer.rows)
    assert served.checks == dict.fromkeys((*CHECKS, "baseline_served"), False)
    assert served.errors
    assert served.requests == 0
    assert served.latency is None


def test_baseline_that_does_not_start(cancer, tmp_path):
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"not an ONNX file")
    seal(broken, cancer.info)
    served = smoke_test(cancer.directory, broken, cancer.rows, requests=5)
    assert not served.checks.pop("baseline_served")
    assert all(served.checks.values())
    assert served.latency is None
    assert any(error.startswith("the baseline") for error in served.errors)


def test_no_rows(cancer):
    with pytest.raises(InvalidInput, match="no rows"):
        smoke_test(cancer.directory, None, cancer.rows.take(slice(0)))


def test_curl_example_works_in_a_shell(server, cancer):
    command = curl_example(cancer.info, cancer.rows, server.url)
    assert "\n" not in command
    assert len(command) < 1200
    ended = subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=30)
    (prediction,) = json.loads(ended.stdout)["predictions"]
    inputs = models.build_inputs(cancer.info, cancer.rows.take([0]).features)
    expected = runtimes.load(cancer.directory).predict(inputs)[0]
    assert list(prediction["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_curl_example_quotes_text_and_missing_values(app, people):
    position = next(i for i, c in enumerate(people.rows.features["city"]) if c == "Køln's")
    rows = people.rows.take([position])
    rows = Dataset({**rows.features, "age": np.array([np.nan])}, rows.labels)
    words = shlex.split(curl_example(people.info, rows, "http://host", name="people"))
    body = words[words.index("-d") + 1]
    assert json.loads(body) == {"instances": [{"age": None, "city": "Køln's"}]}
    answer = app(people).post(words[2].removeprefix("http://host"), content=body)
    assert answer.json()["predictions"][0]["label"] in people.info.labels


def test_curl_example_of_a_large_image(server, digits):
    image = np.zeros((1, 3, 200, 200), dtype=np.float32)
    command = curl_example(digits.info, Dataset({"image": image}, np.zeros(1)), server.url)
    assert len(command) < 1000
    script, _, _ = command.partition(" | ")
    printed = subprocess.run(["bash", "-c", script], capture_output=True, check=True, timeout=30)
    assert np.shape(json.loads(printed.stdout)["instances"]) == (1, 3, 200, 200)


def test_ratio_is_of_pairs():
    rng = np.random.default_rng(0)
    drift = np.exp(rng.normal(0, 2, 400))  # a machine whose speed wanders
    interval = smoke._paired_ratio(3 * drift, drift * np.exp(rng.normal(0, 0.05, 400)), 0)
    assert interval.low < 3 < interval.high
    assert interval.high - interval.low < 0.1
