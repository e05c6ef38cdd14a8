import subprocess

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trimgate.errors import InvalidInput
from trimgate.ops.release import (
    Release,
    ReleasedModel,
    drop_canary,
    promote_canary,
    read,
    release_path,
    release_stable,
    set_share,
    start_canary,
    write,
)

BASE = {
    "minReplicas": 2,
    "maxReplicas": 9,
    "scaleMetric": "cpu",
    "model": {"modelFormat": {"name": "onnx"}, "runtime": "trimgate", "protocolVersion": "v2"},
}


def model(digit="a", **changes):
    digest = digit * 64
    return ReleasedModel(
        **{
            "storage_uri": f"s3://models/fraud/{digest}/",
            "digest": f"sha256:{digest}",
            "version": "3",
            "run": f"fraud-{digit}",
            "verdict": "pass",
            "promoted": "2026-11-25T12:00:00+00:00",
            **changes,
        }
    )


EMPTY = Release(name="fraud", environment="production")
texts = st.text("ab1 :#'é×{}[]%&*!|>-,\\\"", max_size=12)
models = st.builds(
    model,
    digit=st.sampled_from("abcdef"),
    version=st.sampled_from(["", "1", "007"]),
    run=texts,
    verdict=st.just("pass"),
    promoted=texts,
)


@st.composite
def releases(draw, mode=None):
    mode = mode or draw(st.sampled_from(["Standard", "Knative"]))
    release = Release(name="fraud", environment="production", mode=mode)
    if draw(st.integers(0, 5)):
        release = release_stable(release, draw(models))
        other = draw(models)
        if draw(st.booleans()) and other.digest != release.stable.digest:
            release = start_canary(release, other, draw(st.integers(1, 99)))
            if draw(st.booleans()):
                release = promote_canary(release, "2026-11-25T13:00:00+00:00")
    return release


@settings(max_examples=50)
@given(releases())
def test_what_is_written_is_read(release):
    assert read(write(release)) == release
    assert read(write(release, predictor=BASE)) == release


@settings(max_examples=60)
@given(releases(), st.data())
def test_comments_stay_and_only_what_changed_does(first, data):
    second = data.draw(releases(first.mode))
    lines = write(first, predictor=BASE).splitlines()
    for number in range(data.draw(st.integers(0, 6))):
        place = data.draw(st.integers(0, len(lines)))
        if data.draw(st.booleans()):
            lines.insert(place, " " * data.draw(st.integers(0, 8)) + f"# comment {number}")
        elif place < len(lines) and "#" not in lines[place]:
            lines[place] += f"  # comment {number}"
    text = "\n".join(lines) + "\n"
    assert write(first, text) == text
    result = write(second, text, predictor=BASE)
    assert read(result) == second
    assert yaml.safe_load(result).get("spec") == yaml.safe_load(
        write(second, write(first, predictor=BASE), predictor=BASE)
    ).get("spec")
    # A line may go only when what it says is no longer so.
    kept = set(result.splitlines())
    for line in lines:
        if line.lstrip().startswith("#") and line not in kept:
            assert first.stable is not None
            assert second.stable is None or (first.canary and first.canary != second.canary)


def test_a_promotion_changes_few_lines():
    first = write(release_stable(EMPTY, model("a")))
    second = write(release_stable(read(first), model("b", version="4")), first)
    changed = set(second.splitlines()) - set(first.splitlines())
    assert sorted(line.split(":")[0].strip() for line in changed) == [
        "storageUri", "trimgate.dev/digest", "trimgate.dev/run", "trimgate.dev/version",
    ]  # fmt: skip
    assert len(first.splitlines()) == len(second.splitlines())


def test_a_canary_in_standard_mode():
    first = release_stable(EMPTY, model("a"))
    text = write(first)
    trying = start_canary(first, model("b"), 10)
    out = yaml.safe_load(write(trying, text, predictor=BASE))
    assert out["spec"]["predictor"] == {"model": {"storageUri": model("a").storage_uri}}
    (entry,) = out["spec"]["canary"]
    assert entry["trafficPercent"] == 10
    assert entry["predictor"] == {
        "name": "mbbbbbb",
        "minReplicas": 2,
        "model": {"name": "", **BASE["model"], "storageUri": model("b").storage_uri},
    }
    done = promote_canary(set_share(trying, 50), "later")
    out = yaml.safe_load(write(done, write(trying, text, predictor=BASE)))
    assert out["spec"] == {
        "predictor": {"name": "mbbbbbb", "model": {"storageUri": model("b").storage_uri}}
    }
    assert done.stable.promoted == "later"
    # A later model rolls that Deployment over, and the next canary gets a name of its own.
    rolled = release_stable(done, model("c"))
    assert rolled.stable.predictor == "mbbbbbb"
    assert start_canary(rolled, model("b"), 1).canary.predictor == "mbbbbbbb"
    assert drop_canary(trying) == first


def test_a_canary_in_knative_mode():
    first = release_stable(EMPTY.model_copy(update={"mode": "Knative"}), model("a"))
    trying = start_canary(first, model("b"), 10)
    text = write(trying, write(first), predictor=BASE)
    out = yaml.safe_load(text)
    assert out["spec"] == {
        "predictor": {
            "model": {"storageUri": model("b").storage_uri}, "canaryTrafficPercent": 10,
        }
    }  # fmt: skip
    assert read(text) == trying
    assert yaml.safe_load(write(promote_canary(trying), text))["spec"] == {
        "predictor": {"model": {"storageUri": model("b").storage_uri}}
    }
    assert write(drop_canary(trying), text) == write(first)


def test_the_same_again_changes_nothing():
    first = release_stable(EMPTY, model("a"))
    assert release_stable(first, model("a", promoted="later", run="another")) is not None
    assert release_stable(first, model("a", promoted="later", run="another")) == first
    assert release_stable(start_canary(first, model("b"), 5), model("a")) == first
    assert start_canary(start_canary(first, model("b"), 5), model("b", run="x"), 5).canary.run == (
        "fraud-b"
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: start_canary(EMPTY, model(), 10), "nothing of fraud is released in production"),
        (lambda: start_canary(release_stable(EMPTY, model()), model(), 10), "is the stable model"),
        (lambda: start_canary(release_stable(EMPTY, model()), model("b"), 0), "from 1 to 99"),
        (lambda: set_share(release_stable(EMPTY, model()), 10), "has no canary in production"),
        (lambda: promote_canary(EMPTY), "has no canary"),
        (lambda: read("a: ["), "is not YAML at line 1"),
        (lambda: read("kind: Deployment"), "is not a patch of an InferenceService"),
        (lambda: read(write(release_stable(EMPTY, model())).replace("sha256:", "md5:")), "digest"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(InvalidInput, match=words):
        call()


def test_kustomize_applies_it(tmp_path):
    """With a stable model, with a canary, and with nothing at all."""
    base, overlay = tmp_path / "base/fraud", tmp_path / "overlays/production/fraud"
    base.mkdir(parents=True)
    overlay.mkdir(parents=True)
    (base / "kustomization.yaml").write_text("resources: [inferenceservice.yaml]\n")
    service = {
        "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
        "metadata": {"name": "fraud"}, "spec": {"predictor": BASE},
    }  # fmt: skip
    (base / "inferenceservice.yaml").write_text(yaml.safe_dump(service))
    (overlay / "kustomization.yaml").write_text(
        "resources: [../../../base/fraud]\npatches: [{path: release.yaml}]\n"
    )
    file = tmp_path / release_path("fraud", "production")

    def built(text):
        file.write_text(text)
        done = subprocess.run(
            ["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=True
        )
        return yaml.safe_load(done.stdout)

    assert built(write(EMPTY)) is None
    first = release_stable(EMPTY, model("a"))
    out = built(write(first, file.read_text()))
    assert out["spec"]["predictor"]["model"]["storageUri"] == model("a").storage_uri
    assert out["spec"]["predictor"]["model"]["runtime"] == "trimgate"
    out = built(write(start_canary(first, model("b"), 10), file.read_text(), predictor=BASE))
    assert out["spec"]["canary"][0]["predictor"]["model"]["runtime"] == "trimgate"
    assert built(write(EMPTY, file.read_text())) is None
