"""The REST application, in this process, with one model of every kind."""

import json
import re
import struct

import numpy as np
import pytest

from trimgate import models, runtimes
from trimgate.serving._client import infer_request
from trimgate.serving.curl import instance

NAMES = ["cancer", "diabetes", "people", "digits"]


def _expected(example, rows):
    session = runtimes.load(example.directory)
    inputs = models.build_inputs(example.info, rows.features)
    return inputs, session.predict(inputs)


@pytest.mark.parametrize("name", NAMES)
def test_v1_rows_by_name_and_in_order(name, app, request):
    example = request.getfixturevalue(name)
    rows = example.rows.take(slice(8))
    _, scores = _expected(example, rows)
    client = app(example)
    instances = [instance(example.info, rows, i) for i in range(8)]
    forms = [instances]
    if isinstance(instances[0], dict):
        forms.append([list(row.values()) for row in instances])
        forms.append([dict(reversed(row.items())) for row in instances])
    else:
        forms.append([{"image": row} for row in instances])
    for form in forms:
        answer = client.post(f"/v1/models/{name}:predict", json={"instances": form})
        assert answer.status_code == 200, answer.text
        given = answer.json()["predictions"]
        if example.info.task == "regression":
            np.testing.assert_allclose(given, scores, rtol=1e-6)
            continue
        labels = list(example.info.labels)
        assert [p["label"] for p in given] == [labels[i] for i in scores.argmax(axis=1)]
        assert list(given[0]["probabilities"]) == [str(label) for label in labels]
        probabilities = [list(p["probabilities"].values()) for p in given]
        np.testing.assert_allclose(probabilities, scores, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_v2_tensors(name, binary, app, request):
    example = request.getfixturevalue(name)
    inputs, scores = _expected(example, example.rows.take(slice(16)))
    body, headers = infer_request(inputs, binary=binary)
    answer = app(example).post(f"/v2/models/{name}/infer", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    assert (length < len(answer.content)) == binary
    head = json.loads(answer.content[:length])
    assert head["model_name"] == name
    assert head["model_version"] == example.info.digest[7:19]
    assert head["id"]
    first = head["outputs"][0]
    assert first["shape"] == list(scores.shape)
    assert first["datatype"] == {"float32": "FP32", "float64": "FP64"}[scores.dtype.name]
    if binary:
        size = first["parameters"]["binary_data_size"]
        given = np.frombuffer(answer.content[length : length + size], scores.dtype)
    else:
        given = np.array(first["data"])
    np.testing.assert_allclose(given.reshape(scores.shape), scores, rtol=1e-6)
    if example.info.task != "regression":
        label = head["outputs"][1]
        assert label["name"] == "label"
        assert label["datatype"] == ("BYTES" if name == "people" else "INT64")


def test_float32_is_written_with_the_digits_it_needs(app, cancer):
    inputs, scores = _expected(cancer, cancer.rows.take(slice(1)))
    body, headers = infer_request(inputs, binary=False)
    text = app(cancer).post("/v2/models/cancer/infer", content=body, headers=headers).text
    assert str(scores[0, 0]) in text


def test_id_and_requested_outputs(app, cancer):
    inputs, _ = _expected(cancer, cancer.rows.take(slice(3)))
    request = json.loads(infer_request(inputs, binary=False)[0])
    request |= {"id": "mine", "outputs": [{"name": "label"}]}
    answer = app(cancer).post("/v2/models/cancer/infer", json=request).json()
    assert answer["id"] == "mine"
    assert [output["name"] for output in answer["outputs"]] == ["label"]
    assert answer["outputs"][0]["data"] == [0, 0, 0]


def test_one_output_in_binary_form(app, people):
    inputs, scores = _expected(people, people.rows.take(slice(2)))
    request = json.loads(infer_request(inputs, binary=False)[0])
    request["outputs"] = [
        {"name": "label", "parameters": {"binary_data": True}},
        {"name": "probabilities"},
    ]
    answer = app(people).post("/v2/models/people/infer", json=request)
    length = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:length])["outputs"]
    assert np.array(outputs[1]["data"]).reshape(2, 3) == pytest.approx(scores)
    text = people.info.labels[int(scores[0].argmax())].encode()
    assert answer.content[length:].startswith(struct.pack("<I", len(text)) + text)


def test_null_is_a_missing_value(app, people, cancer):
    client = app(people)
    answer = client.post(
        "/v1/models/people:predict", json={"instances": [[None, None], {"age": 60, "city": "Oslo"}]}
    )
    assert answer.status_code == 400  # rows of two kinds
    answer = client.post("/v1/models/people:predict", json={"instances": [[None, None]]})
    assert answer.status_code == 200, answer.text
    row = instance(cancer.info, cancer.rows, 0)
    row["mean radius"] = None
    answer = app(cancer).post("/v1/models/cancer:predict", json={"instances": [row]})
    assert answer.status_code == 200 or "mean radius" in answer.json()["error"]


def _row(count=30, value=1.0):
    return [value] * count


BAD_V1 = {
    "not JSON": (b'{"instances": [[', "not JSON|Unrecognized"),
    "NaN literal": (b'{"instances": [[NaN]]}', "JSON|Unrecognized"),
    "empty body": (b"", "JSON|Unrecognized"),
    "not an object": (b"[1, 2]", "instances"),
    "no instances": (b'{"rows": []}', "instances"),
    "instances is no list": (b'{"instances": 3}', "list of rows"),
    "no rows": (b'{"instances": []}', "no rows"),
    "row too short": (json.dumps({"instances": [_row(29)]}).encode(), "has 29 values"),
    "row too long": (json.dumps({"instances": [_row(), _row(31)]}).encode(), r"instances\[1\]"),
    "a row is a number": (b'{"instances": [5]}', r"instances\[0\]"),
    "text for a number": (json.dumps({"instances": [_row(value="1")]}).encode(), "numbers"),
    "a list for a number": (json.dumps({"instances": [_row(value=[1])]}).encode(), "number"),
    "huge integer": (b'{"instances": [[' + b"9" * 400 + b"]]}", "."),
    "unknown feature": (b'{"instances": [{"nose": 1}]}', "nose"),
    "feature left out": (b'{"instances": [{"mean radius": 1}]}', "missing"),
    "too many rows": (json.dumps({"instances": [_row()] * 1001}).encode(), "at most 1000"),
    "not UTF-8": (b'{"instances": "\xff"}', "JSON|Unrecognized"),
}


@pytest.mark.parametrize("case", BAD_V1)
def test_bad_v1_request_gives_400(case, app, cancer):
    body, words = BAD_V1[case]
    answer = app(cancer).post("/v1/models/cancer:predict", content=body)
    assert answer.status_code == 400, answer.text
    assert re.search(words, answer.json()["error"])


def _v2(**changes):
    tensor = {"name": "X", "shape": [1, 30], "datatype": "FP32", "data": _row()} | changes
    return {"inputs": [{k: v for k, v in tensor.items() if v is not ...}]}


BAD_V2 = {
    "wrong name": (_v2(name="Y"), "no such input"),
    "wrong datatype": (_v2(datatype="FP64"), "must be FP32"),
    "unknown datatype": (_v2(datatype="COMPLEX"), "must be FP32"),
    "wrong width": (_v2(shape=[1, 29], data=_row(29)), r"\[-1, 30\]"),
    "wrong rank": (_v2(shape=[30]), r"\[-1, 30\]"),
    "negative size": (_v2(shape=[-1, 30]), "whole numbers"),
    "shape left out": (_v2(shape=...), "shape"),
    "name left out": (_v2(name=...), "name"),
    "data left out": (_v2(data=...), "data"),
    "too few values": (_v2(data=_row(29)), "29 values"),
    "ragged": (_v2(data=[[1, 2], [3]]), "regular"),
    "text": (_v2(data=_row(value="a")), "numbers"),
    "truth values": (_v2(data=_row(value=True)), "FP32"),
    "no rows": (_v2(shape=[0, 30], data=[]), "no rows"),
    "twice": ({"inputs": _v2()["inputs"] * 2}, "same name"),
    "extra": ({"inputs": [*_v2()["inputs"], _v2(name="Y")["inputs"][0]]}, "no such input"),
    "no inputs": ({"inputs": []}, "inputs"),
    "inputs is text": ({"inputs": "X"}, "inputs"),
    "unknown output": (_v2() | {"outputs": [{"name": "logits"}]}, "no such output"),
    "too many rows": (_v2(shape=[1001, 30], data=_row() * 1001), "at most 1000"),
}


@pytest.mark.parametrize("case", BAD_V2)
def test_bad_v2_request_gives_400(case, app, cancer):
    request, words = BAD_V2[case]
    answer = app(cancer).post("/v2/models/cancer/infer", json=request)
    assert answer.status_code == 400, answer.text
    assert re.search(words, answer.json()["error"]), answer.text


BAD_BINARY = {
    "header is no number": ("x", 120, 0, "header|Header"),
    "header beyond the body": ("99999", 120, 0, "Header"),
    "tensor too short": (None, 116, 0, "116 bytes"),
    "tensor beyond the body": (None, 121, 0, "more than the body"),
    "bytes left over": (None, 120, 4, "belong to no input"),
    "negative": (None, -1, 0, "more than"),
}


@pytest.mark.parametrize("case", BAD_BINARY)
def test_bad_binary_request_gives_400(case, app, cancer):
    header, size, extra, words = BAD_BINARY[case]
    request = _v2(data=..., parameters={"binary_data_size": size})
    head = json.dumps(request).encode()
    body = head + bytes(min(max(size, 0), 120) + extra)
    headers = {"Inference-Header-Content-Length": header or str(len(head))}
    answer = app(cancer).post("/v2/models/cancer/infer", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert re.search(words, answer.json()["error"]), answer.text


def test_body_over_the_limit_gives_413(app, cancer):
    client = app(cancer)
    size = 64 * 2**20 + 1
    answer = client.post("/v1/models/cancer:predict", content=bytes(size))
    assert answer.status_code == 413

    async def chunks():  # no Content-Length
        for _ in range(65):
            yield bytes(2**20)

    assert client.post("/v2/models/cancer/infer", content=chunks()).status_code == 413


def test_unknown_model_version_and_verb(app, cancer):
    client = app(cancer)
    assert client.get("/nowhere").json() == {"error": "Not Found"}
    assert client.post("/v1/models/nobody:predict", json={}).status_code == 404
    assert client.post("/v2/models/nobody/infer", json={}).status_code == 404
    assert client.get("/v2/models/nobody").status_code == 404
    assert client.post("/v2/models/cancer/versions/7/infer", json=_v2()).status_code == 404
    version = cancer.info.digest[7:19]
    path = f"/v2/models/cancer/versions/{version}"
    assert client.post(f"{path}/infer", json=_v2()).status_code == 200
    assert client.get(path).status_code == 200
    assert client.post("/v1/models/cancer:explain", json={"instances": []}).status_code == 501


def test_metadata(app, people):
    client = app(people)
    told = client.get("/v2/models/people").json()
    assert told["parameters"]["digest"] == people.info.digest
    assert told["parameters"]["labels"] == ["abroad", "junior", "senior"]
    assert told["platform"] == "trimgate_native"
    assert {t["name"]: t["datatype"] for t in told["inputs"]} == {
        spec.name: "BYTES" if spec.dtype == "string" else "FP64" for spec in people.info.inputs
    }
    assert told["outputs"][0] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 3]}
    assert client.get("/v2").json()["name"] == "trimgate"
    assert client.get("/v2/models").json() == {"models": ["people"]}


def test_unloaded_model_is_not_ready_and_can_come_back(app, cancer):
    client = app(cancer)
    ready = "/v2/models/cancer/ready"
    assert client.get(ready).status_code == 200
    assert client.post("/v2/repository/models/cancer/unload").status_code == 200
    assert client.get(ready).status_code == 503
    assert client.get("/v2/health/ready").status_code == 503
    assert client.get("/v2/health/live").status_code == 200
    assert client.post("/v2/models/cancer/infer", json=_v2()).status_code == 503
    assert client.post("/v2/repository/models/cancer/load").status_code == 200
    assert client.get(ready).status_code == 200
    assert client.post("/v2/models/cancer/infer", json=_v2()).status_code == 200


def test_cloud_event(app, cancer):
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "test",
        "type": "rows",
        "time": "2026-01-01T00:00:00Z",
        "data": {"instances": [_row()]},
    }
    answer = app(cancer).post(
        "/v1/models/cancer:predict",
        content=json.dumps(event),
        headers={"Content-Type": "application/cloudevents+json"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]["predictions"][0]["label"] in (0, 1)


def test_metrics_count_requests_by_code(app, cancer):
    client = app(cancer)

    def count(code):
        prefix = f'trimgate_requests_total{{code="{code}",digest="{cancer.info.digest}"'
        lines = [li for li in client.get("/metrics").text.splitlines() if li.startswith(prefix)]
        return sum(float(line.split()[-1]) for line in lines)

    good, bad = count(200), count(400)
    client.post("/v2/models/cancer/infer", json=_v2())
    client.post("/v2/models/cancer/infer", json=_v2(name="Y"))
    assert (count(200), count(400)) == (good + 1, bad + 1)
