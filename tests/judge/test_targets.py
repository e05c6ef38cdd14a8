"""Targets that are not here: what is checked of them, on real models."""

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.judge._rules import benchmark_rules
from trimgate.judge.formats import check_format, read_operators
from trimgate.judge.policy import GatePolicy
from trimgate.judge.records import Candidate, FormatCheck
from trimgate.judge.selection import select
from trimgate.models import ModelSource, export_onnx, import_model, load_trainable
from trimgate.models.directory import ONNX_FILE, RuntimeChoice, read, seal, writing
from trimgate.recipes import make_recipe, plan_recipes
from trimgate.targets import PROFILES, standing

MOBILE, CHIP, GPU = PROFILES["mobile"], PROFILES["inferentia"], PROFILES["gpu"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A logistic regression and boosted trees, as trained and as ONNX, and a few inputs."""
    import skops.io
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.neural_network import MLPClassifier

    folder = tmp_path_factory.mktemp("targets")
    matrix, labels = load_breast_cancer(return_X_y=True)
    matrix = matrix / matrix.max(axis=0)
    data = Dataset({f"f{c}": matrix[:, c] for c in range(matrix.shape[1])}, labels)
    made = {}
    for name, estimator in (
        ("net", MLPClassifier((8,), max_iter=20, random_state=0)),
        ("trees", GradientBoostingClassifier(n_estimators=5, random_state=0)),
    ):
        skops.io.dump(estimator.fit(matrix, labels), folder / f"{name}.skops")
        source = ModelSource(path=folder / f"{name}.skops", name=name)
        info = import_model(source, data, folder / f"{name}-trained")
        with writing(folder / name) as partial:
            changes = export_onnx(
                load_trainable(folder / f"{name}-trained"), info, data, partial / ONNX_FILE
            )
            runtime = RuntimeChoice(name="onnxruntime")
            seal(partial, info.model_copy(update={**changes, "runtime": runtime}))
        made[name] = folder / name
    made["rows"] = data.take(slice(0, 8))
    return made


def checked(models, name, target):
    from trimgate.models import build_inputs

    info = read(models[name])
    return check_format(models[name], info, target, build_inputs(info, models["rows"].features))


def test_a_model_is_converted_to_the_ort_format_and_answers_alike(models):
    for name in ("net", "trees"):
        found = checked(models, name, MOBILE)
        assert found.format == "ort"
        assert found.size > 500
        assert found.unsupported == ()
        assert "answers 8 rows as the ONNX form does" in " ".join(found.notes)
        assert "not measured" in found.notes[0]
    operators = read_operators(checked(models, "trees", MOBILE).operators)
    assert any("TreeEnsemble" in name for names in operators.values() for name in names)


def test_operators_that_a_reduced_build_lacks_are_named(models):
    needed = checked(models, "net", MOBILE).operators
    fits = MOBILE.model_copy(update={"operators": needed})
    assert checked(models, "net", fits).unsupported == ()
    lacking = tuple(line for line in needed if "ai.onnx;" in line)[:1]
    without = lacking[0].split(";")
    first = next(iter(read_operators(lacking).popitem()[1]))
    build = MOBILE.model_copy(update={"operators": (f"{without[0]};{without[1]};Nothing",)})
    assert any(first in line for line in checked(models, "net", build).unsupported)


def test_types_that_a_reduced_build_lacks_are_named(models):
    needed = checked(models, "net", MOBILE).operators
    other = tuple(line.replace('"float"', '"int8_t"') for line in needed)
    assert other != needed
    build = MOBILE.model_copy(update={"operators": other})
    assert any("other types" in line for line in checked(models, "net", build).unsupported)


def test_operators_with_types_are_read():
    lines = ['ai.onnx;12;Add{"inputs": {"0": ["float"]}},Cast,Relu{"inputs": {"0": ["a", "b"]}}']
    found = read_operators(["# a comment", *lines])
    assert list(found["ai.onnx", 12]) == ["Add", "Cast", "Relu"]
    assert found["ai.onnx", 12]["Relu"] == {"inputs": {"0": ["a", "b"]}}
    with pytest.raises(ValueError, match="not an operator"):
        read_operators(["ai.onnx;12;+"])


def test_rules_of_inferentia(models):
    net = checked(models, "net", CHIP)
    assert net.format == "neuron"
    assert "batch size (1, 64)" in net.notes[1]
    assert "nothing of it is measured" in net.notes[0]
    trees = checked(models, "trees", CHIP)
    assert any("ai.onnx.ml" in line for line in trees.unsupported)
    assert checked(models, "net", PROFILES["cloud-cpu"]) is None


@pytest.mark.parametrize(
    ("name", "steps", "target", "why"),
    [
        ("trees", [{"technique": "optimize_graph"}], CHIP, "no kernels for tree ensembles"),
        ("trees", [{"technique": "optimize_graph"}], GPU, "no kernels for tree ensembles"),
        (
            "net",
            [{"technique": "quantize", "scheme": "dynamic-int8"}],
            CHIP,
            "takes no dynamic-int8",
        ),
        ("net", [{"technique": "runtime", "engine": "openvino"}], CHIP, "not measurable here"),
        ("net", [{"technique": "optimize_graph", "level": "extended"}], CHIP, "only ONNX"),
        ("net", [{"technique": "optimize_graph", "offline": True}], MOBILE, "another"),
        ("net", [{"technique": "runtime", "engine": "openvino"}], MOBILE, "does not allow"),
    ],
)
def test_what_a_target_cannot_run_is_refused_before_it_is_tried(models, name, steps, target, why):
    trained = read(models[name].with_name(f"{name}-trained"))
    with pytest.raises(NotApplicable, match=why):
        make_recipe(steps, trained, target)


def test_what_is_left_for_a_target(models):
    net = read(models["net"].with_name("net-trained"))
    recipes, _ = plan_recipes("default", net, CHIP, frozenset())
    assert recipes
    assert not any("int8" in str(r.dump()) for r in recipes)
    trees = read(models["trees"].with_name("trees-trained"))
    with pytest.raises(InvalidInput, match="no recipe is left that inferentia can run"):
        plan_recipes("default", trees, CHIP, frozenset())
    mobile, _ = plan_recipes("default", trees, MOBILE, frozenset())
    assert mobile


def test_a_profile_says_what_is_measured_and_what_is_only_checked():
    for target in PROFILES.values():
        told = standing(target)
        assert told
        assert all(how.startswith(("measured: ", "checked: ")) for how in told.values())
    assert standing(PROFILES["cloud-cpu"])["latency"].startswith("measured")
    assert "512 MiB" in standing(PROFILES["edge-cpu"])["limits"]
    assert standing(MOBILE)["latency"].startswith("checked")
    assert standing(MOBILE)["size"].startswith("measured")
    assert "nothing of it is measurable here" in standing(CHIP)["operators"]
    assert np.all([not t.is_here for t in (MOBILE, CHIP)])


def test_a_speed_that_was_not_measured_on_the_target_proves_nothing(make_benchmark):
    policy = GatePolicy(min_speedup=1.1)
    measured = make_benchmark()
    assert benchmark_rules(policy, measured)[0].outcome == "pass"
    elsewhere = measured.model_copy(update={"target": "mobile", "standing": standing(MOBILE)})
    (told,) = benchmark_rules(policy, elsewhere)
    assert told.outcome == "inconclusive"
    assert "not measured on mobile" in told.reason


def test_a_candidate_that_the_target_s_format_does_not_take_cannot_win(make_benchmark, make_pair):
    baseline, evaluation = make_pair(2000, split="validation")
    lacking = FormatCheck(format="ort", unsupported=("the operator Foo is not in the build",))
    entry = Candidate(
        name="quick", uri="/m", model="cand", steps=({"technique": "quantize"},),
        evaluation=evaluation, benchmark=make_benchmark().model_copy(update={"format": lacking}),
    )  # fmt: skip
    found = select(baseline, [entry], objective="size")
    assert found.winner == "baseline"
    assert "cannot run it: the operator Foo" in found.reason
