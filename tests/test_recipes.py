import pytest

from trimgate.config import RecipeSection
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models.directory import ONNX_FILE, FileInfo, ModelInfo, TensorSpec
from trimgate.recipes import make_recipe, plan_recipes, suggested_steps, trie
from trimgate.targets import PROFILES
from trimgate.techniques import parse_step

CLOUD = PROFILES["cloud-cpu"]
VNNI = frozenset({"avx512_vnni"})


def info(family="trees", framework="sklearn"):
    return ModelInfo(
        name="m",
        task="binary",
        family=family,
        framework=framework,
        inputs=(
            TensorSpec(name="input", dtype="float32", shape=(-1, 3), features=("a", "b", "c")),
        ),
        labels=(0, 1),
        features=("a", "b", "c"),
    )


def steps(*names):
    extra = {"runtime": {"engine": "openvino"}}
    return [{"technique": name, **extra.get(name, {})} for name in names]


def names(recipe):
    return [step.technique for step in recipe.steps]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["prune"], ["prune", "optimize_graph"]),
        (["optimize_graph"], ["optimize_graph"]),
        (["quantize"], ["optimize_graph", "quantize"]),
        (["prune", "quantize"], ["prune", "optimize_graph", "quantize"]),
        (["select_features", "prune"], ["select_features", "prune", "optimize_graph"]),
        (["optimize_graph", "quantize"], ["optimize_graph", "quantize"]),
    ],
)
def test_export_is_added_where_needed(given, made):
    family = "mlp" if "quantize" in given else "trees"
    if family == "mlp" and "prune" in given:
        recipe = make_recipe(steps(*given), info("cnn", "torch"), CLOUD)
    else:
        recipe = make_recipe(steps(*given), info(family), CLOUD)
    assert names(recipe) == made


def test_order_that_makes_no_sense():
    with pytest.raises(NotApplicable, match="but quantize before it leaves ONNX"):
        make_recipe(steps("quantize", "prune"), info("mlp"), CLOUD)
    with pytest.raises(NotApplicable, match="and an ONNX file is not one"):
        make_recipe(steps("prune"), info("mlp", "onnx"), CLOUD)


def test_refusals_are_reported_not_hidden():
    sections = [RecipeSection(steps=tuple(steps(n))) for n in ("optimize_graph", "quantize")]
    recipes, refused = plan_recipes(sections, info("trees"), CLOUD, VNNI)
    assert [r.name for r in recipes] == ["ONNX"]
    assert "no matrix products" in next(iter(refused.values()))


def test_no_recipe_left():
    sections = [RecipeSection(steps=tuple(steps("quantize")))]
    with pytest.raises(InvalidInput, match="no recipe is left that cloud-cpu can run"):
        plan_recipes(sections, info("trees"), CLOUD, VNNI)


def test_without_an_onnx_form_only_recipes_that_need_none_are_left():
    sections = [
        RecipeSection(steps=tuple(steps("optimize_graph"))),
        RecipeSection(steps=({"technique": "runtime", "engine": "daal4py"},)),
    ]
    why = "no ONNX form for ThisStep"
    recipes, refused = plan_recipes(sections, info("trees"), CLOUD, VNNI, no_onnx=why)
    assert [recipe.name for recipe in recipes] == ["daal4py"]
    assert refused == {"ONNX": why}
    both = [sections[0], RecipeSection(steps=tuple(steps("select_features")))]
    with pytest.raises(InvalidInput) as caught:
        plan_recipes(both, info("linear"), CLOUD, VNNI, no_onnx=why)
    assert str(caught.value).count(why) == 1, "a reason is said once"
    assert "ONNX, select features" in str(caught.value)


def test_equal_recipes_are_carried_out_once_and_names_are_distinct():
    twice = [RecipeSection(steps=tuple(steps("optimize_graph")))] * 2
    assert len(plan_recipes(twice, info(), CLOUD, VNNI)[0]) == 1
    clash = [
        RecipeSection(name="same", steps=tuple(steps("optimize_graph"))),
        RecipeSection(name="same", steps=tuple(steps("prune"))),
    ]
    with pytest.raises(InvalidInput, match="two different recipes have this name"):
        plan_recipes(clash, info(), CLOUD, VNNI)


def test_shared_beginnings_stand_once():
    recipes = [
        make_recipe(steps(*given), info("cnn", "torch"), CLOUD)
        for given in (["prune"], ["prune", "quantize"], ["quantize"])
    ]
    root = trie(recipes)
    walked = [node.step.technique for node in root.walk() if node.step]
    assert sorted(walked) == ["optimize_graph"] * 2 + ["prune"] + ["quantize"] * 2
    ends = sorted(name for node in root.walk() for name in node.recipes)
    assert ends == sorted(r.name for r in recipes)


@pytest.mark.parametrize("family", ["trees", "linear", "mlp", "cnn", "transformer", "other"])
@pytest.mark.parametrize("framework", ["sklearn", "torch", "onnx"])
@pytest.mark.parametrize("target", PROFILES.values(), ids=lambda t: t.name)
def test_suggested_steps_are_valid_and_distinct(family, framework, target):
    chosen = suggested_steps(info(family, framework), target, VNNI)
    parsed = [tuple(parse_step(step) for step in recipe) for recipe in chosen]
    texts = [tuple(step.model_dump_json() for step in recipe) for recipe in parsed]
    assert len(set(texts)) == len(texts) >= 1
    for recipe in parsed:
        for step in recipe:
            assert getattr(step, "engine", "onnxruntime") in (*target.runtimes, "auto")


def test_a_search_tries_the_best_of_each_stage_first():
    given = info("cnn", "torch")
    chosen = suggested_steps(given, CLOUD, VNNI, search=True)
    recipes, refused = plan_recipes("search", given, CLOUD, VNNI, most=40)
    assert len(chosen) > len(recipes) == 40
    assert refused == {}, "combinations that nobody asked for are not reported"
    techniques = [{step.technique for step in recipe.steps} for recipe in recipes]
    assert {"prune", "quantize", "runtime"} <= set.union(*techniques)
    assert any({"prune", "quantize", "runtime"} <= steps for steps in techniques)


def test_recipes_may_be_kept_few():
    recipes, _ = plan_recipes("search", info("trees"), CLOUD, VNNI, most=3)
    assert len(recipes) == 3


def test_bf16_only_where_the_cpu_has_it():
    def precisions(flags):
        chosen = suggested_steps(info("mlp"), CLOUD, frozenset(flags))
        return {step.get("precision") for recipe in chosen for step in recipe}

    assert "bf16" not in precisions({"avx512_vnni"})
    assert "bf16" in precisions({"amx_bf16"})


@pytest.mark.parametrize("family", ["trees", "linear", "other"])
def test_a_foreign_onnx_model_has_its_graph_optimized(family):
    files = {ONNX_FILE: FileInfo(sha256="", size=0)}
    model = info(family, "onnx").model_copy(update={"files": files, "score_output": "scores"})
    recipes, _ = plan_recipes("default", model, CLOUD, VNNI)
    assert "ONNX" in [recipe.name for recipe in recipes]


def test_a_step_finds_the_engine_that_a_step_before_set(monkeypatch):
    from trimgate import environment

    monkeypatch.setattr(environment, "has_bfloat16", lambda: True)
    openvino = {"technique": "runtime", "engine": "openvino", "precision": "bf16"}
    bf16 = {"technique": "quantize", "scheme": "bf16"}
    recipe = make_recipe([openvino, bf16], info("cnn", "torch"), CLOUD)
    assert [s.technique for s in recipe.steps] == ["optimize_graph", "runtime", "quantize"]
    with pytest.raises(NotApplicable, match="no bfloat16 arithmetic"):
        make_recipe([bf16], info("cnn", "torch"), CLOUD)
