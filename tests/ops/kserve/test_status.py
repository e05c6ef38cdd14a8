import copy
from datetime import UTC, datetime

import pytest
from ops.kserve.samples import SERVINGS, service

from trimgate.ops.kserve import read_status

NOW = datetime(2026, 11, 25, 12, 10, tzinfo=UTC)


def condition(kind, status="True", **more):
    return {"type": kind, "status": status, "lastTransitionTime": "2026-11-25T12:00:00Z", **more}


def with_status(obj, **status):
    return {**copy.deepcopy(obj), "status": status}


READY = {
    "conditions": [condition("Ready"), condition("PredictorReady")],
    "modelStatus": {
        "transitionStatus": "UpToDate",
        "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"},
    },
    "url": "http://fraud.models.example.com",
}


def test_ready():
    status = read_status(with_status(service(), **READY), now=NOW)
    assert (status.ready, status.failed, status.waiting) == (True, "", ())
    assert str(status) == "fraud is ready at http://fraud.models.example.com"


def test_nobody_has_looked_at_it_yet():
    status = read_status(service(), now=NOW)
    assert not status.ready
    assert str(status) == "fraud is not ready: KServe's controller has not looked at it yet"


def test_progressing_names_the_reason_of_each_condition():
    waiting = with_status(
        service(),
        conditions=[
            condition("Ready", "False"),
            condition(
                "PredictorReady", "False", reason="MinimumReplicasUnavailable",
                message="Deployment does not have\n minimum availability.",
            ),
        ],
        modelStatus={
            "transitionStatus": "InProgress",
            "states": {"activeModelState": "", "targetModelState": "Pending"},
            "copies": {"failedCopies": 2},
        },
    )  # fmt: skip
    assert read_status(waiting, now=NOW).waiting == (
        "PredictorReady is False (MinimumReplicasUnavailable): Deployment does not have minimum "
        "availability., for 600 s",
        "the model is in progress (Pending), 2 of its pods failed",
    )


def test_a_model_that_cannot_be_loaded_fails():
    failed = with_status(
        service(),
        conditions=[condition("Ready", "False")],
        modelStatus={
            "transitionStatus": "BlockedByFailedLoad",
            "lastFailureInfo": {
                "reason": "ModelLoadFailed", "message": "model.json: altered", "exitCode": 2,
            },
        },
    )  # fmt: skip
    assert str(read_status(failed)) == (
        "fraud failed: the model: ModelLoadFailed: model.json: altered (exit code 2)"
    )


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ([], "is not there yet"),
        ([{"ready": False, "trafficPercent": 0}], "is not ready"),
        ([{"ready": True, "trafficPercent": 10}], "gets 10 % of the traffic, not 50 %"),
        ([{"ready": True, "trafficPercent": 50}], None),
    ],
)
def test_a_canary_is_ready_with_its_share(seen, words):
    obj = service(canary=50)
    name = obj["spec"]["canary"][0]["predictor"]["name"]
    status = read_status(
        with_status(obj, **READY, canaryStatuses=[{"name": name, **one} for one in seen])
    )
    assert status.ready == (words is None)
    assert words is None or (len(status.waiting) == 1 and words in status.waiting[0])


def test_a_canary_that_cannot_be_loaded_fails_though_the_stable_one_is_ready():
    obj = service(canary=50)
    canary = {
        "name": obj["spec"]["canary"][0]["predictor"]["name"], "ready": False, "trafficPercent": 0,
        "modelStatus": {
            "transitionStatus": "InvalidSpec", "lastFailureInfo": {"reason": "NoSupportingRuntime"},
        },
    }  # fmt: skip
    status = read_status(with_status(obj, **READY, canaryStatuses=[canary]))
    assert "NoSupportingRuntime" in status.failed


@pytest.mark.parametrize(("percent", "ready"), [(10, True), (5, False)])
def test_in_knative_mode_the_newest_revision_gets_its_share(percent, ready):
    obj = service(SERVINGS["kpa"], canary=10)
    traffic = [{"latestRevision": True, "percent": percent}, {"percent": 100 - percent}]
    status = with_status(obj, **READY, components={"predictor": {"traffic": traffic}})
    assert read_status(status).ready is ready
