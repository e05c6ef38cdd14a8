"""A text model behind the server: texts come in, tokens are made there."""

import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from trimgate import models, runtimes
from trimgate.models import ModelSource, import_model
from trimgate.models.directory import ModelInfo, read
from trimgate.serving import curl_example, smoke_test, start
from trimgate.serving._client import infer_request
from trimgate.targets import Target
from trimgate.techniques import Context, get, parse_step

pytest.importorskip("transformers")
from text_models import BERT, sentences, write_folder


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelInfo, object]:
    """Directory, record and rows of a text model in ONNX; its text column is called `review`."""
    folder = tmp_path_factory.mktemp("moods")
    names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    rows = sentences(60, feature="review")
    source = ModelSource(path=write_folder(folder / "user", {**BERT, **names}), name="moods")
    import_model(source, rows, folder / "native")
    context = Context(rows, rows, "accuracy", Target(name="test"))
    step = parse_step({"technique": "optimize_graph"})
    get(step.technique).apply(folder / "native", folder / "onnx", step, context)
    return folder / "onnx", read(folder / "onnx"), rows


@pytest.fixture(scope="module")
def served(moods, app):
    """A client of the application, and what the model says to the first eight rows."""
    from types import SimpleNamespace

    directory, info, rows = moods
    some = rows.take(slice(8))
    scores = runtimes.load(directory).predict(models.build_inputs(info, some.features))
    return app(SimpleNamespace(directory=directory, info=info)), some, scores


def test_rows_of_text(served):
    client, rows, scores = served
    texts = rows.features["review"].tolist()
    for form in ([{"review": t} for t in texts], [[t] for t in texts], texts):
        answer = client.post("/v1/models/moods:predict", json={"instances": form})
        assert answer.status_code == 200, answer.text
        given = [list(p["probabilities"].values()) for p in answer.json()["predictions"]]
        np.testing.assert_allclose(given, scores, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("binary", [True, False])
def test_one_tensor_of_strings(binary, served):
    client, rows, scores = served
    column = {"review": rows.features["review"].reshape(-1, 1)}
    body, headers = infer_request(column, binary=binary)
    answer = client.post("/v2/models/moods/infer", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    if not binary:
        given = np.array(answer.json()["outputs"][0]["data"]).reshape(8, 2)
        np.testing.assert_allclose(given, scores, rtol=1e-5, atol=1e-7)


def test_metadata_names_the_text(served):
    told = served[0].get("/v2/models/moods").json()
    (given,) = told["inputs"]
    assert (given["name"], given["datatype"], given["shape"]) == ("review", "BYTES", [-1, 1])
    assert given["parameters"] == {"features": ["review"]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"review": None}, "missing"),
        ({"review": 3}, "must be a string"),
        ({"text": "a"}, "no such feature"),
        ({}, "missing"),
    ],
)
def test_rows_that_are_no_text(row, words, served):
    answer = served[0].post("/v1/models/moods:predict", json={"instances": [row]})
    assert answer.status_code == 400
    assert words in answer.text


def test_tokens_are_not_taken(served):
    body, headers = infer_request({"input_ids": np.ones((1, 3), dtype=np.int64)}, binary=False)
    answer = served[0].post("/v2/models/moods/infer", content=body, headers=headers)
    assert answer.status_code == 400
    assert "no such input; it has review" in answer.text


def test_smoke_and_curl(moods):
    directory, info, rows = moods
    record = smoke_test(directory, directory, rows, requests=10)
    assert record.errors == ()
    assert all(record.checks.values())
    with start(directory) as server:
        command = curl_example(info, rows, server.url)
        done = subprocess.run(shlex.split(command), capture_output=True, check=True)
    (given,) = json.loads(done.stdout)["predictions"]
    assert given["label"] in (0, 1)
