import shutil
import subprocess

import pytest
import yaml
from ops.kserve.samples import DIGESTS, SERVINGS, release, released_model, service
from pydantic import ValidationError

from trimgate.judge.records import BatchBenchmark, Benchmark, Footprint, Interval, Timing
from trimgate.ops.git._scaffold import add_model
from trimgate.ops.kserve import (
    Autoscaling,
    Serving,
    base_service,
    disruption_budget,
    released_service,
    resources_for,
)
from trimgate.ops.release import promote_canary, set_share, write

OLD, NEW = (released_model(name).storage_uri for name in ("old", "new"))


def test_standard_mode_has_a_canary_beside_the_stable_predictor():
    made = service(SERVINGS["hpa"], canary=10)
    predictor, (canary,) = made["spec"]["predictor"], made["spec"]["canary"]
    assert predictor["model"]["storageUri"] == OLD
    assert "canaryTrafficPercent" not in predictor
    assert canary["trafficPercent"] == 10
    assert canary["predictor"]["name"] == f"m{DIGESTS['new'][7:13]}"
    assert canary["predictor"]["model"]["name"] == ""
    assert canary["predictor"]["model"]["storageUri"] == NEW
    # Everything else that a pod needs is the stable one's; the number of replicas is fixed.
    assert canary["predictor"]["model"]["resources"] == predictor["model"]["resources"]
    assert canary["predictor"]["securityContext"] == predictor["securityContext"]
    assert not {"maxReplicas", "scaleMetric", "scaleTarget"} & set(canary["predictor"])


def test_knative_mode_has_a_share_for_the_newest_revision():
    made = service(SERVINGS["kpa"], canary=25)
    assert "canary" not in made["spec"]
    assert made["spec"]["predictor"]["canaryTrafficPercent"] == 25
    assert made["spec"]["predictor"]["model"]["storageUri"] == NEW
    assert made["metadata"]["annotations"]["autoscaling.knative.dev/class"].startswith("kpa.")
    assert "serving.kserve.io/autoscalerClass" not in made["metadata"]["annotations"]


def test_promotion_gives_the_canary_the_stable_place():
    base = base_service("fraud", SERVINGS["plain"])
    before = set_share(release(canary=10), 50)
    canary = released_service(base, before)["spec"]["canary"][0]["predictor"]
    after = released_service(base, promote_canary(before))
    assert "canary" not in after["spec"]
    assert after["spec"]["predictor"]["name"] == canary["name"]
    assert after["spec"]["predictor"]["model"]["storageUri"] == NEW


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("name", ["hpa", "kpa"])
@pytest.mark.parametrize("canary", [None, 10])
def test_kustomize_makes_the_same_of_base_and_release(tmp_path, name, canary):
    serving = SERVINGS[name]
    base, now = base_service("fraud", serving), release(serving.mode, canary)
    files = add_model("fraud", ["production"], serving=serving)
    files["overlays/production/fraud/release.yaml"] = write(
        now, predictor=base["spec"]["predictor"]
    )
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    built = subprocess.run(
        ["kubectl", "kustomize", tmp_path / "overlays/production/fraud"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    assert list(yaml.safe_load_all(built)) == [
        disruption_budget("fraud"), released_service(base, now),
    ]  # fmt: skip


def benchmark(peak_rss: int, cpu: float) -> Benchmark:
    one = Interval(value=1.0, low=1.0, high=1.0)
    timing = Timing(p50=cpu, p95=cpu, p99=cpu, cpu=cpu, throughput=1 / cpu)
    foot = Footprint(size=1, peak_rss=peak_rss, base_rss=1, cold_start=1.0, load=1.0)
    batch = BatchBenchmark(
        batch_size=1, wall=one, cpu=one, control=one, control_cpu=one, baseline=timing,
        candidate=timing, rounds=1, processes=1, state="clean", stopped="budget",
    )  # fmt: skip
    return Benchmark(
        baseline_model="a", model="b", name="n", target="t", batches=(batch,), baseline=foot,
        candidate=foot,
    )  # fmt: skip


def test_resources_come_from_what_was_measured():
    measured = benchmark(peak_rss=200 * 2**20, cpu=0.002)
    assert resources_for(measured, threads=2).manifest() == {
        # 200 MiB and half as much again, and 320 MiB for the server: 620 MiB, in steps of 16
        "requests": {"cpu": "2500m", "memory": "624Mi"},
        "limits": {"cpu": "2500m", "memory": "624Mi"},
    }
    rated = resources_for(measured, threads=2, requests_per_second=70)
    # 70 requests of 2 ms a second, at 70 % of what is requested
    assert rated.manifest()["requests"]["cpu"] == "200m"
    assert rated.manifest()["limits"]["cpu"] == "2500m"
    assert resources_for(measured, requests_per_second=10**6).cpu == 1.5


def test_a_pod_that_ends_answers_on_and_drains():
    predictor = service(SERVINGS["all"])["spec"]["predictor"]
    assert predictor["model"]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert predictor["terminationGracePeriodSeconds"] == 5 + 25
    probe = predictor["model"]["startupProbe"]
    assert probe["httpGet"]["path"] == "/v2/models/fraud/ready"
    assert probe["periodSeconds"] * probe["failureThreshold"] == 35
    assert predictor["model"]["args"] == ["--threads=2"]


def test_disruption_budget():
    made = disruption_budget("fraud", namespace="models")
    assert made["metadata"] == {"name": "fraud-predictor", "namespace": "models"}
    assert made["spec"]["selector"]["matchLabels"] == {
        "serving.kserve.io/inferenceservice": "fraud",
        "component": "predictor",
    }


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"autoscaling": Autoscaling(kind="kpa", metric="rps", target=1)}, "Standard mode"),
        ({"mode": "Knative", "autoscaling": Autoscaling(kind="external")}, "Knative mode"),
        ({"min_replicas": 0}, "only keda and kpa"),
        ({"min_replicas": 2, "max_replicas": 1}, "less than"),
        ({"min_replicas": 1, "max_replicas": 2}, "one number of replicas"),
        ({"runtime": "triton", "threads": 2}, "own runtime"),
        ({"minreplicas": 1}, "Extra inputs"),
    ],
)
def test_settings_that_do_not_fit(fields, words):
    with pytest.raises(ValidationError, match=words):
        Serving(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "hpa", "metric": "rps", "target": 1},
        {"kind": "hpa", "metric": "cpu"},
        {"kind": "hpa", "metric": "cpu", "target": 200},
        {"kind": "none", "target": 3},
        {"kind": "keda", "target": 3, "query": "x"},
        {"kind": "hpa", "target": 3, "query": "x", "prometheus": "http://p"},
    ],
)
def test_autoscaling_that_does_not_fit(fields):
    with pytest.raises(ValidationError):
        Autoscaling(**fields)
