import copy
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops.kserve.samples import DIGESTS, objects, release, released_model, service

from trimgate.errors import InvalidInput
from trimgate.ops.kserve import (
    Serving,
    base_service,
    inference_graph,
    problems,
    released_service,
    serving_runtime,
    validate,
)
from trimgate.ops.kserve._rules import check_change
from trimgate.ops.release import LONGEST_NAME, start_canary

OBJECTS = objects()


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_that_is_built_is_sound(name):
    assert [str(problem) for problem in problems(OBJECTS[name])] == []


FREE = ("annotations", "labels", "matchLabels", "requests", "limits", "nodes")


def fields(value: object, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all keys that the schema names; those of maps with free keys are not among."""
    if isinstance(value, dict):
        for key, one in value.items():
            if not path or path[-1] not in FREE:
                yield (*path, key)
            yield from fields(one, (*path, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from fields(one, (*path, number))


PLACES = [
    (name, path) for name, obj in OBJECTS.items() for path in fields(obj) if path != ("kind",)
]


def parent(obj: dict, path: tuple) -> dict:
    for part in path[:-1]:
        obj = obj[part]
    return obj


def misspelt(word: str, how: int, where: int) -> str:
    at = where % len(word)
    return [
        word[:at] + word[at + 1 :],  # a letter is missing
        word[:at] + word[at] + word[at:],  # one stands twice
        word[:at] + word[at].swapcase() + word[at + 1 :],
        word[:at] + "_" + word[at:],
    ][how]


@given(st.sampled_from(PLACES), st.integers(0, 3), st.integers(0, 40))
def test_every_misspelt_field_is_refused(place, how, where):
    name, path = place
    wrong = misspelt(path[-1], how, where)
    obj = copy.deepcopy(OBJECTS[name])
    inside = parent(obj, path)
    if wrong in inside or not wrong:
        return
    inside[wrong] = inside.pop(path[-1])
    found = problems(obj)
    assert found[0].problem == "unknown key"
    assert any(problem.key.endswith(wrong) for problem in found)


@given(st.sampled_from(PLACES), st.sampled_from([None, [], [[]], 1.5, {"x": {"y": 1}}]))
def test_every_wrong_type_is_refused(place, wrong):
    name, path = place
    obj = copy.deepcopy(OBJECTS[name])
    before = parent(obj, path)[path[-1]]
    if type(before) is type(wrong) or (isinstance(before, list) and wrong == []):
        return
    parent(obj, path)[path[-1]] = wrong
    assert problems(obj)


MODE = "serving.kserve.io~1deploymentMode"
NOTE = "metadata/annotations/"
P, C = "spec/predictor/", "spec/canary/0/"
HEX = "a" * 64
RULES = [
    # name of the object, path, value, key of the problem, words of it
    ("plain", "metadata/name", "9fraud", "metadata.name", "begin with a letter"),
    ("plain", NOTE + MODE, ..., f"metadata.annotations.{MODE}", "Standard or Knative"),
    ("plain", NOTE + MODE, "RawDeployment", f"metadata.annotations.{MODE}", "Standard or"),
    ("plain", P + "model/name", "x", "spec.predictor.model.name", "webhook refuses"),
    ("plain", P + "model/runtime", ..., "spec.predictor.model.runtime", "must be named"),
    ("plain", P + "model/protocolVersion", "v1", "spec.predictor.model.protocolVersion", "v2"),
    ("plain", P + "model/storageUri", f"s3://m/fraud/{HEX}", "storageUri", "must end with `/`"),
    ("plain", P + "model/storageUri", "s3://m/fraud/latest/", "storageUri", "no SHA-256"),
    ("plain", P + "model/storageUri", f"S4://m/{HEX}/", "storageUri", "no kind that KServe reads"),
    ("plain", P + "model/storageUri", ..., "storageUri", "is missing"),
    ("plain", P + "model/env", [{"name": "PYTHONPATH", "value": "/x"}], "env", "PYTHONPATH"),
    ("plain", P + "minReplicas", 0, "minReplicas", "only KEDA"),
    ("hpa", P + "minReplicas", 9, "minReplicas", "more than maxReplicas"),
    ("hpa", P + "minReplicas", -1, "minReplicas", "negative"),
    ("hpa", P + "scaleMetric", "rps", "scaleMetric", "no metric of the HPA"),
    ("hpa", P + "scaleTarget", 101, "scaleTarget", "1 to 100"),
    ("keda", P + "scaleMetric", "cpu", "scaleMetric", "KEDA takes none"),
    ("kpa", P + "scaleMetric", "cpu", "scaleMetric", "Knative's autoscaler"),
    ("plain", NOTE + "serving.kserve.io~1autoscalerClass", "kpa", "autoscalerClass", "webhook"),
    ("plain", P + "canaryTrafficPercent", 10, "canaryTrafficPercent", "is ignored"),
    ("plain", P + "model/resources/limits/cpu", "1.5", "limits.cpu", "differs from Git"),
    ("plain", P + "model/resources/limits/cpu", "lots", "limits.cpu", "does not match"),
    ("plain", P + "onnx", {"storageUri": "s3://m/"}, "spec.predictor.onnx", "rewritten"),
    ("all", P + "logger/mode", ..., "logger.mode", "missing"),
    ("kpa", P + "terminationGracePeriodSeconds", 30, "terminationGrace", "Knative refuses"),
    ("kpa", P + "model/lifecycle", {"preStop": {}}, "lifecycle", "Knative refuses"),
    ("kpa", "spec/canary", [], None, None),
    ("kpa-canary", P + "canaryTrafficPercent", 101, "canaryTrafficPercent", "0 to 100"),
    ("plain-canary", C + "predictor/model/name", ..., "canary[0].predictor.model.name", "missing"),
    ("plain-canary", C + "predictor/name", ..., "canary[0].predictor.name", "missing"),
    ("plain-canary", C + "trafficPercent", 101, "spec.canary[0].trafficPercent", "maximum"),
    ("plain-canary", C + "trafficPercent", -1, "spec.canary[0].trafficPercent", "minimum"),
    ("plain-canary", C + "predictor/minReplicas", 2, "minReplicas", "more than the stable"),
    ("plain-canary", C + "predictor/maxReplicas", 2, "predictor.maxReplicas", "fixed number"),
    ("plain-canary", C + "predictor/scaleTarget", 2, "predictor.scaleTarget", "fixed number"),
    ("plain-canary", C + "predictor/scaleMetric", "cpu", "scaleMetric", "fixed number"),
    ("plain-canary", C + "predictor/autoScaling", {}, "autoScaling", "fixed number"),
    ("plain-canary", C + "predictor/workerSpec", {}, "workerSpec", "fixed number"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "path", "value", "key", "words"), RULES)
def test_rules(name, path, value, key, words):
    obj = OBJECTS[name]
    made = copy.deepcopy(obj)
    inside, parts = made, [part.replace("~1", "/") for part in path.split("/")]
    for part in parts[:-1]:
        inside = inside[int(part)] if isinstance(inside, list) else inside[part]
    if value is ...:
        del inside[parts[-1]]
    else:
        inside[parts[-1]] = value
    found = problems(made)
    if key is None:
        assert found == []
        return
    assert any(
        key.replace("~1", "/") in problem.key and words in problem.problem for problem in found
    ), [str(problem) for problem in found]


def with_canaries(*entries: tuple[str, int]) -> dict:
    obj = service(canary=10)
    first = obj["spec"]["canary"][0]
    obj["spec"]["canary"] = [
        {**first, "predictor": {**first["predictor"], "name": name}, "trafficPercent": share}
        for name, share in entries
    ]
    return obj


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_the_longest_name_leaves_room_for_a_canary(mode):
    name = "m" * LONGEST_NAME
    now = release(mode).model_copy(update={"name": name})
    taken = f"m{DIGESTS['new'][7:13]}"  # so that the canary is named by one character more
    stable = now.stable.model_copy(update={"predictor": taken if mode == "Standard" else ""})
    now = start_canary(now.model_copy(update={"stable": stable}), released_model("new"), 10)
    base = base_service(name, Serving(mode=mode))
    assert problems(released_service(base, now)) == []
    if mode == "Standard":
        longer = released_service(base, now)
        longer["metadata"]["name"] += "m"
        (problem,) = problems(longer)
        assert (problem.key, problem.mend) == (
            "spec.canary[0].predictor.name", "make it 1 shorter",
        )  # fmt: skip
        assert "64 characters of at most 63" in problem.problem


def test_canaries_have_names_of_their_own_and_share_100_percent():
    assert problems(with_canaries(("a", 50), ("b", 50))) == []
    (problem,) = problems(with_canaries(("a", 60), ("b", 50)))
    assert (problem.key, problem.value) == ("spec.canary", 110)
    (problem,) = problems(with_canaries(("a", 10), ("a", 10)))
    assert problem.key == "spec.canary[1].predictor.name"


def test_a_canary_at_0_percent_needs_a_replica_to_become_ready():
    obj = with_canaries(("a", 0))
    assert problems(obj) == []
    del obj["spec"]["canary"][0]["predictor"]["minReplicas"]
    assert "never ready" in problems(obj)[0].problem


def test_a_canary_list_in_knative_mode_is_refused():
    obj = copy.deepcopy(OBJECTS["kpa"])
    obj["spec"]["canary"] = OBJECTS["plain-canary"]["spec"]["canary"]
    assert problems(obj)[0].key == "spec.canary"


def test_what_was_meant_is_told_in_one_line():
    obj = copy.deepcopy(OBJECTS["plain"])
    obj["spec"]["predictor"]["minReplica"] = obj["spec"]["predictor"].pop("minReplicas")
    with pytest.raises(InvalidInput) as raised:
        validate(obj, file="base/fraud/inferenceservice.yaml")
    assert str(raised.value) == (
        "base/fraud/inferenceservice.yaml: spec.predictor.minReplica: unknown key; did you mean "
        "'minReplicas'?"
    )
    obj = copy.deepcopy(OBJECTS["plain"])
    obj["spec"]["predictor"]["model"]["storageURI"] = "s3://x/"
    assert "did you mean 'storageUri'?" in str(problems(obj)[0])
    obj["kind"] = "InferenceServise"
    with pytest.raises(InvalidInput, match="did you mean 'InferenceService'"):
        problems(obj)


def test_a_list_that_is_a_map_holds_each_key_once():
    obj = copy.deepcopy(OBJECTS["plain"])
    obj["spec"]["predictor"]["model"]["env"] = [{"name": "A", "value": "1"}] * 2
    assert "two entries with the same name" in problems(obj)[0].problem


def test_changes_that_kserve_refuses():
    before = {**OBJECTS["plain"], "status": {"deploymentMode": "RawDeployment"}}
    assert list(check_change(before, OBJECTS["plain-canary"])) == []
    (problem,) = check_change(before, OBJECTS["kpa"])
    assert "runs in the mode Standard" in problem.problem
    renamed = copy.deepcopy(OBJECTS["plain"])
    renamed["spec"]["predictor"]["name"] = "m1"
    (problem,) = check_change(before, renamed)
    assert problem.key == "spec.predictor.name"
    renamed["spec"]["predictor"]["model"]["storageUri"] = f"s3://m/fraud/{'c' * 64}/"
    assert list(check_change(before, renamed)) == []


def test_graphs():
    graph = inference_graph("g", ["a", "b"])
    graph["spec"]["nodes"]["root"]["steps"][1]["nodeName"] = "other"
    assert "needs one target" in problems(graph)[0].problem
    graph = inference_graph("g", ["a", "b"])
    graph["spec"]["nodes"]["start"] = graph["spec"]["nodes"].pop("root")
    assert problems(graph)[0].key == "spec.nodes.root"
    assert problems(inference_graph("g", ["a", "a"]))[0].value == "a"
    with pytest.raises(InvalidInput, match="two services"):
        inference_graph("g", ["a"])


def test_a_runtime_that_serves_what_is_signed_alone():
    made = serving_runtime("trimgate", verify_keys="model-keys")
    assert problems(made) == []
    (container,) = made["spec"]["containers"]
    assert "--verify-key=/etc/trimgate/keys/verify.pem" in container["args"]
    assert {"name": "keys", "configMap": {"name": "model-keys"}} in made["spec"]["volumes"]
    with pytest.raises(InvalidInput, match="triton verifies no signature"):
        serving_runtime("triton", verify_keys="model-keys")


def test_a_runtime_needs_the_container_that_kserve_fills_in():
    runtime = serving_runtime("trimgate")
    runtime["spec"]["containers"][0]["name"] = "server"
    assert "kserve-container" in problems(runtime)[0].problem
