"""KServe as a platform: its status in words, PromQL against a local Prometheus, real servers."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import yaml
from rollouts import released

from trimgate.errors import InvalidInput
from trimgate.ops.git import Entry
from trimgate.ops.release import (
    Release,
    promote_canary,
    release_stable,
    set_share,
    start_canary,
    write,
)
from trimgate.ops.rollout.decide import decide
from trimgate.ops.rollout.kserve import KServePlatform, cluster_address, status
from trimgate.ops.rollout.platforms import GoldenCheck
from trimgate.ops.rollout.policy import RolloutPolicy
from trimgate.ops.rollout.position import position
from trimgate.ops.rollout.prometheus import Prometheus, PrometheusError
from trimgate.serving import start

BEGUN = datetime(2026, 11, 25, 12, tzinfo=UTC)
LATER = "2026-11-25T12:01:00Z"


class Api(BaseHTTPRequestHandler):
    """Answers instant queries as Prometheus does, from what the test put in."""

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        query = parse_qs(self.rfile.read(length).decode())["query"][0]
        self.server.queries.append((query, self.headers.get("Authorization")))
        told = next((v for part, v in self.server.answers.items() if part in query), [])
        if isinstance(told, int):
            self.send_response(told)
            self.end_headers()
            return
        result = [{"metric": m, "value": [0, str(v)]} for m, v in told]
        data = {"status": "success", "data": {"resultType": "vector", "result": result}}
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def api():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.queries, server.answers = [], {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def place(*releases):
    entries = [
        Entry(f"r{n}", BEGUN + timedelta(seconds=n), "", release)
        for n, release in enumerate(releases)
    ]
    return position(entries[::-1])


@pytest.fixture(scope="module")
def releases(models):
    """Before, at 10 and 50 %, and after the rollout, by deployment mode."""
    found = {}
    for mode in ("Standard", "Knative"):
        first = Release(name="small", environment="production", mode=mode)
        first = release_stable(first, released(models["stable"]))
        ten = start_canary(first, released(models["same"]), 10)
        fifty = set_share(ten, 50)
        found[mode] = [first, ten, fifty, promote_canary(fifty)]
    return found


def service(release, conditions=None, **told):
    """The InferenceService as the cluster has it when the release was carried out."""
    made = yaml.safe_load(write(release))
    made["metadata"] = {"name": release.name, "namespace": "models", "generation": 3}
    made["status"] = {
        "conditions": conditions
        or [{"type": "Ready", "status": "True", "lastTransitionTime": LATER}],
        "modelStatus": {"transitionStatus": "UpToDate"},
        **told,
    }
    return made


def canary_status(release, **changes):
    entry = {
        "name": release.canary.predictor,
        "ready": True,
        "trafficPercent": release.traffic_percent,
        **changes,
    }
    return {"canaryStatuses": [entry]}


def test_standard_mode(releases):
    first, ten, fifty, done = releases["Standard"]
    here = place(first, ten, fifty)
    good = status(service(fifty, **canary_status(fifty)), here)
    assert good["ready"] is True
    assert good["applied"] == datetime(2026, 11, 25, 12, 1, tzinfo=UTC)
    late = status(service(ten, **canary_status(ten)), here)
    assert "applied" not in late
    assert "not taken the newest commit over" in late["problems"]["in place"]
    wait = status(service(fifty, **canary_status(fifty, ready=False)), here)
    assert wait["ready"] is False
    assert "canary" in wait["problems"]["ready"]
    share = status(service(fifty, **canary_status(fifty, trafficPercent=10)), here)
    assert "10 % of the traffic, not 50 %" in share["problems"]["in place"]
    broken = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"message": "no opset"}}
    failed = status(service(fifty, **canary_status(fifty, modelStatus=broken)), here)
    assert "no opset" in failed["failed"]
    assert status(service(done), place(first, ten, fifty, done))["ready"] is True
    assert "applied" not in status(service(fifty), place(first, ten, fifty, done))


def test_knative_mode(releases):
    first, ten, _, done = releases["Knative"]
    here = place(first, ten)

    def told(percent):
        latest = {"latestRevision": True, "percent": percent}
        return {"components": {"predictor": {"traffic": [latest], "latestReadyRevision": "small-2",
                                             "previousRolledoutRevision": "small-1"}}}  # fmt: skip

    assert status(service(ten, **told(10)), here)["applied"]
    assert "not 10 %" in status(service(ten, **told(0)), here)["problems"]["in place"]
    assert status(service(done, **told(100)), place(first, ten, done))["applied"]
    address = cluster_address(ten, "canary", service(ten, **told(10)))
    assert address == "http://small-2.models.svc.cluster.local"
    address = cluster_address(ten, "stable", service(ten, **told(10)))
    assert address == "http://small-1.models.svc.cluster.local"


def test_a_stuck_progressing_times_out_with_the_condition(releases, api):
    first, ten, _, _ = releases["Standard"]
    stuck = service(
        ten,
        [{
            "type": "PredictorReady", "status": "Unknown", "reason": "Progressing",
            "message": "0 of 2 pods", "lastTransitionTime": LATER,
        }],
        **canary_status(ten, ready=False),
    )  # fmt: skip
    platform = KServePlatform(
        lambda: stuck, Prometheus(api.url), GoldenCheck(Path, None), namespace="models", rows=None
    )
    decision = decide(platform.observe(place(first, ten), RolloutPolicy()), RolloutPolicy(), 10)
    assert decision.action == "roll back"  # the commit is long ago
    assert "PredictorReady is Unknown (Progressing): 0 of 2 pods, for" in decision.reason


def buckets(count):
    edges = [0.001 * 1.5**n for n in range(10)]
    series = [({"le": f"{e:g}"}, count * min(1, n / 5)) for n, e in enumerate(edges)]
    return [*series, ({"le": "+Inf"}, count)]


@pytest.fixture(scope="module")
def servers(models):
    with (
        start(models["stable"], timeout=300) as stable,
        start(models["same"], timeout=300) as canary,
    ):
        yield {"stable": stable.url, "canary": canary.url}


def test_a_good_canary_advances_on_what_prometheus_and_the_servers_say(
    releases, api, servers, rows
):
    first, ten, _, _ = releases["Standard"]
    digests = {"stable": ten.stable.digest, "canary": ten.canary.digest}
    api.answers = {
        f'trimgate_requests_total{{namespace="models",model="small",digest="{digests["canary"]}"':
            [({"code": "200"}, 999.6), ({"code": "400"}, 3), ({"code": "503"}, 1)],
        f'trimgate_requests_total{{namespace="models",model="small",digest="{digests["stable"]}"':
            [({"code": "200"}, 9000)],
        "trimgate_request_seconds_bucket": buckets(5000),
    }  # fmt: skip
    platform = KServePlatform(
        lambda: service(ten, **canary_status(ten)),
        Prometheus(api.url),
        GoldenCheck(Path, rows),
        namespace="models",
        rows=rows,
        address=lambda release, variant, _: servers[variant],
        sampled=250,
    )
    policy = RolloutPolicy(
        max_disagreement=0.02,
        max_latency_ratio={"p50": 2},
        ready_timeout=10**9,
        step_timeout=10**9,
    )
    here = place(first, ten)
    seen = platform.observe(here, policy)
    assert seen.golden.problem is None
    assert (seen.canary.requests, seen.canary.errors) == (1004, 1)
    assert len(seen.pairs) == 250
    decision = decide(seen, policy, 10)
    assert decision.action == "advance", decision.reason
    assert len(platform.observe(here, policy).pairs) == 400  # and no row is counted twice
    window = round((seen.now - seen.applied).total_seconds())
    query = "sum by (code) (increase(trimgate_requests_total{"
    assert api.queries[0][0].startswith(query)
    assert api.queries[0][0].endswith(f"[{window}s]))")

    api.answers.clear()
    nothing = decide(platform.observe(here, policy), policy, 10)
    assert nothing.action == "hold"
    assert "Prometheus has no series" in nothing.reason


def test_a_server_that_still_holds_the_old_model_is_waited_for(releases, api, servers, rows):
    first, ten, fifty, done = releases["Standard"]
    platform = KServePlatform(
        lambda: service(done),
        Prometheus(api.url),
        GoldenCheck(Path, rows),
        namespace="models",
        rows=rows,
        address=lambda *_: servers["stable"],  # pods of the old model answer a little longer
    )
    policy = RolloutPolicy(ready_timeout=10**9, step_timeout=10**9)
    decision = decide(platform.observe(place(first, ten, fifty, done), policy), policy, 100)
    assert decision.action == "hold"
    assert "holds another model" in decision.reason


def test_prometheus_that_refuses_or_is_away(api, monkeypatch):
    labels = {"model": "small"}
    api.answers = {"trimgate": 503}
    with pytest.raises(PrometheusError, match="503"):
        Prometheus(api.url).traffic(labels, BEGUN, BEGUN + timedelta(minutes=1), {
            "requests": "sum by (code) (increase(trimgate_requests_total{{{labels}}}[{window}s]))",
            "seconds": "",
        })  # fmt: skip
    with pytest.raises(PrometheusError, match="does not answer"):
        Prometheus("http://127.0.0.1:9", timeout=2).query("up", BEGUN)
    monkeypatch.setenv("TRIMGATE_PROMETHEUS_TOKEN", "secret")
    api.answers = {"up": [({}, 1)]}
    assert Prometheus(api.url).query("up", BEGUN) == [({}, 1.0)]
    assert api.queries[-1][1] == "Bearer secret"
    with pytest.raises(InvalidInput, match="unencrypted") as error:
        Prometheus("http://prometheus.example.com")
    assert "secret" not in str(error.value)
