"""The client and the checks against what a real API server does."""

import copy
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ops.kserve.samples import SERVINGS, objects, release, released_model

from trimgate.errors import InvalidInput
from trimgate.ops.kserve import (
    RIGHTS,
    Cluster,
    ClusterError,
    NotReady,
    base_service,
    problems,
    released_service,
)
from trimgate.ops.kserve import _client as client_module
from trimgate.ops.kserve._schemas import kinds
from trimgate.ops.release import drop_canary, promote_canary, set_share, start_canary

GROUP = "/apis/serving.kserve.io/v1beta1"


def call(cluster, method, path, body=None, query=(), content="application/json"):
    return cluster._api.call_api(
        path, method, query_params=list(query), body=body, response_type="object",
        header_params={"Content-Type": content, "Accept": "application/json"},
        auth_settings=["BearerToken"], _return_http_data_only=True,
    )  # fmt: skip


class Controller:
    """Does what KServe's controller does to a status."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.path = f"{GROUP}/namespaces/{cluster.namespace}/inferenceservices/{name}"

    def patch(self, status: dict) -> None:
        call(
            self.cluster, "PATCH", f"{self.path}/status", {"status": status},
            content="application/merge-patch+json",
        )  # fmt: skip

    def settle(self, ready: bool = True, **more: object) -> None:
        """The status of a service whose pods run."""
        spec = self.cluster.get("InferenceService", self.name)["spec"]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        word = str(ready)
        self.patch(
            {
                "deploymentMode": "Standard",
                "url": f"http://{self.name}.example.com",
                "conditions": [
                    {"type": kind, "status": word, "lastTransitionTime": now}
                    for kind in ("PredictorReady", "Ready")
                ],
                "modelStatus": {
                    "transitionStatus": "UpToDate" if ready else "InProgress",
                    "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"},
                },
                "canaryStatuses": [
                    {
                        "name": one["predictor"]["name"], "ready": ready,
                        "trafficPercent": one["trafficPercent"],
                    }
                    for one in spec.get("canary", ())
                ],
                **more,
            }
        )  # fmt: skip


@pytest.fixture
def name() -> str:
    return f"m{uuid.uuid4().hex[:8]}"


def service(name, now=None, serving="plain"):
    base = base_service(name, SERVINGS[serving])
    return released_service(base, (now or release()).model_copy(update={"name": name}))


def renamed(obj: dict) -> dict:
    """The object under a name that is free."""
    made = copy.deepcopy(obj)
    made["metadata"]["name"] = f"m{uuid.uuid4().hex[:8]}"
    return made


@pytest.mark.parametrize("which", objects())
def test_the_server_takes_every_object_that_is_built(cluster, which):
    obj = renamed(objects()[which])
    made = cluster.apply(obj)
    # What was written is what is there: nothing was dropped.
    assert made["spec"] == obj["spec"]
    again = cluster.apply(obj)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_a_canary_is_promoted_in_steps(cluster, name):
    now, controller = release(), Controller(cluster, name)
    cluster.apply(service(name))
    controller.settle()
    assert cluster.wait_ready(name, settle=0, timeout=10).ready
    now = start_canary(now, released_model("new"), 10)
    for share in (10, 50, 90):
        now = set_share(now, share)
        cluster.apply(service(name, now))
        status = cluster.status(name)  # the controller has not seen it
        assert not status.ready
        controller.settle()
        assert cluster.wait_ready(name, settle=0, timeout=10).ready
        live = cluster.get("InferenceService", name)["spec"]["canary"]
        assert [one["trafficPercent"] for one in live] == [share]
    cluster.apply(service(name, promote_canary(now)))
    spec = cluster.get("InferenceService", name)["spec"]
    assert "canary" not in spec
    assert spec["predictor"]["name"] == now.canary.predictor
    assert spec["predictor"]["model"]["storageUri"] == now.canary.storage_uri


def test_a_rollback_takes_the_canary_away(cluster, name):
    cluster.apply(service(name))
    now = start_canary(release(), released_model("new"), 10)
    cluster.apply(service(name, now))
    cluster.apply(service(name, drop_canary(now)))
    spec = cluster.get("InferenceService", name)["spec"]
    assert "canary" not in spec
    assert spec["predictor"]["model"]["storageUri"] == released_model("old").storage_uri


def test_a_dry_run_writes_nothing(cluster, name):
    assert cluster.apply(service(name), dry_run=True)["metadata"]["uid"]
    assert cluster.get("InferenceService", name) is None
    with pytest.raises(ClusterError, match=f"no InferenceService {name}"):
        cluster.status(name)


def sent(cluster, obj):
    """What the server says of an object that was not checked before it left; None: taken."""
    query = [("fieldManager", "trimgate"), ("fieldValidation", "Strict"), ("dryRun", "All")]
    kind = kinds()[obj["kind"]]
    try:
        cluster._call("PATCH", kind.name, obj["metadata"]["name"], query, obj)
    except ClusterError as error:
        return str(error)
    return None


def test_a_typo_is_refused_here_and_by_the_server(cluster, name):
    obj = service(name)
    obj["spec"]["predictor"]["minReplica"] = 2
    with pytest.raises(InvalidInput, match="did you mean 'minReplicas'"):
        cluster.apply(obj)
    assert "minReplica" in sent(cluster, obj)


PLACES = ["model", "minReplicas", "maxReplicas", "securityContext", "serviceAccountName"]
INSIDE = ["storageUri", "runtime", "protocolVersion", "resources", "lifecycle", "startupProbe"]
WRONG = st.sampled_from([7, -1, 2**40, "x", [], {}, True, 1.5, {"a": 1}, [1]])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from([(p,) for p in PLACES] + [("model", p) for p in INSIDE]), WRONG)
def test_the_schema_refuses_what_the_server_refuses(cluster, path, value):
    obj = service("fraud")
    inside = obj["spec"]["predictor"]
    for part in path[:-1]:
        inside = inside[part]
    inside[path[-1]] = value
    answer = sent(cluster, obj)
    if answer is not None:
        assert problems(obj), answer
    else:
        # The server knows no webhook here: what is refused beyond it is a rule, not the schema.
        assert not any("must be" in p.problem and "and is" in p.problem for p in problems(obj))


def test_stuck_progressing_times_out_with_the_reason(cluster, name):
    cluster.apply(service(name))
    Controller(cluster, name).patch(
        {
            "conditions": [
                {
                    "type": "PredictorReady", "status": "False",
                    "reason": "MinimumReplicasUnavailable", "message": "0 of 1 pods are available",
                },
                {"type": "Ready", "status": "False"},
            ],
            "modelStatus": {"transitionStatus": "InProgress", "copies": {"failedCopies": 1}},
        }
    )  # fmt: skip
    told = []
    with pytest.raises(NotReady) as raised:
        cluster.wait_ready(name, timeout=1.5, interval=0.2, on_change=told.append)
    message = str(raised.value)
    assert message.startswith(f"after 2 s {name} is not ready: PredictorReady is False")
    assert "0 of 1 pods are available" in message
    assert "1 of its pods failed" in message
    assert "kubectl describe" in message
    assert len(told) == 1


def test_a_model_that_fails_ends_the_wait_at_once(cluster, name):
    cluster.apply(service(name))
    Controller(cluster, name).settle(
        False,
        modelStatus={
            "transitionStatus": "BlockedByFailedLoad",
            "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no model.json"},
        },
    )
    with pytest.raises(NotReady, match="ModelLoadFailed: no model"):
        cluster.wait_ready(name, timeout=60)


def test_a_wait_that_was_interrupted_goes_on(cluster, name):
    cluster.apply(service(name))
    began = datetime.now(UTC)

    def interrupted(status):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster.wait_ready(name, timeout=60, on_change=interrupted)
    timer = threading.Timer(0.5, Controller(cluster, name).settle)
    timer.start()
    assert cluster.wait_ready(name, timeout=60, settle=0, interval=0.2, since=began).ready
    timer.join()
    # The time that was waited before counts.
    Controller(cluster, name).settle(False)
    with pytest.raises(NotReady, match="after 60 s"):
        cluster.wait_ready(name, timeout=60, since=began - timedelta(minutes=2))


def test_ready_must_last(cluster, name):
    cluster.apply(service(name))
    controller = Controller(cluster, name)
    controller.settle()
    timer = threading.Timer(0.4, controller.settle, [False])
    timer.start()
    with pytest.raises(NotReady):
        cluster.wait_ready(name, timeout=2, settle=1.5, interval=0.1)
    timer.join()


def test_fields_of_somebody_else_are_not_overwritten(cluster, name):
    cluster.apply(service(name))
    path = f"{GROUP}/namespaces/{cluster.namespace}/inferenceservices/{name}"
    call(
        cluster, "PATCH", path, {"spec": {"predictor": {"minReplicas": 3, "maxReplicas": 3}}},
        [("fieldManager", "somebody")], "application/merge-patch+json",
    )  # fmt: skip
    with pytest.raises(ClusterError, match=r"conflict.*somebody.*minReplicas.*take them over"):
        cluster.apply(service(name))
    made = cluster.apply(service(name), take_over=True)
    assert made["spec"]["predictor"]["minReplicas"] == 1


def test_a_write_of_an_old_version_says_that_others_wrote(cluster, name, monkeypatch):
    monkeypatch.setattr(client_module, "_PAUSES", (0.01, 0.01))
    old = cluster.apply(service(name))["metadata"]["resourceVersion"]
    cluster.apply(service(name, start_canary(release(), released_model("new"), 10)))
    stale = service(name)
    stale["metadata"]["resourceVersion"] = old
    with pytest.raises(ClusterError, match="others kept writing"):
        cluster.apply(stale)


def test_many_writers_at_once_all_get_through(cluster, name):
    cluster.apply(service(name))
    failed = []

    def write(share):
        now = start_canary(release(), released_model("new"), share)
        try:
            cluster.apply(service(name, now))
        except ClusterError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=write, args=[share]) for share in range(10, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_changes_that_kserve_refuses_do_not_reach_the_server(cluster, name):
    cluster.apply(service(name))
    Controller(cluster, name).settle()
    knative = service(name, release("Knative"), "knative")
    with pytest.raises(InvalidInput, match="cannot be changed: the service runs in the mode"):
        cluster.apply(knative)


def test_an_expired_token_is_one_line(cluster):
    from kubernetes import client

    settings = client.Configuration()
    settings.host = cluster._api.configuration.host
    settings.ssl_ca_cert = cluster._api.configuration.ssl_ca_cert
    settings.api_key = {"authorization": "Bearer expired-token"}
    stranger = Cluster(client.ApiClient(settings), "default")
    with pytest.raises(ClusterError) as raised:
        stranger.get("InferenceService", "fraud")
    message = str(raised.value)
    assert "\n" not in message
    assert "expired" in message
    assert "expired-token" not in message


def test_no_more_rights_are_used_than_the_role_has(cluster, name, monkeypatch):
    used = set()
    real = cluster._call

    def recorded(method, kind, *more):
        verbs = {"GET": {"get"}, "PATCH": {"create", "patch"}}[method]
        used.update((kinds()[kind].plural, verb) for verb in verbs)
        return real(method, kind, *more)

    monkeypatch.setattr(cluster, "_call", recorded)
    cluster.apply(service(name))
    Controller(Cluster(cluster._api, cluster.namespace), name).settle()
    cluster.wait_ready(name, settle=0, timeout=10)
    (rule,) = RIGHTS["deployer"]
    assert used == {(r, v) for r in rule["resources"] for v in rule["verbs"]}
