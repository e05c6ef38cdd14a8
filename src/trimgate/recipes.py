"""Recipes: ordered technique steps, checked, and shared as a trie."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimgate.config import RecipeSection
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models.directory import ModelInfo
from trimgate.targets import Target
from trimgate.techniques import STAGES, Stage, StepConfig, get, names, parse_step


@dataclass(frozen=True)
class Recipe:
    """A named, ordered list of steps that ends in a form that can be served."""

    name: str
    steps: tuple[StepConfig, ...]

    def dump(self) -> tuple[dict[str, Any], ...]:
        """The steps as JSON values, every parameter spelled out."""
        return tuple(step.model_dump(mode="json") for step in self.steps)


@dataclass
class Node:
    """A step in the trie; its path from the root is what was done before it.

    Attributes:
        step: None for the root (the baseline).
        title: The steps so far, for people.
        recipes: Names of the recipes that end here.
    """

    step: StepConfig | None
    title: str = "baseline"
    children: list["Node"] = field(default_factory=list)
    recipes: list[str] = field(default_factory=list)

    def all_recipes(self) -> list[str]:
        """Names of the recipes that go through this node."""
        return [name for node in self.walk() for name in node.recipes]

    def walk(self) -> Iterator["Node"]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


def make_recipe(
    steps: Sequence[dict[str, Any]], info: ModelInfo, target: Target, name: str | None = None
) -> Recipe:
    """Checks the order of steps, and adds the export to ONNX where one is needed.

    Args:
        steps: Each with `technique` and its parameters.
        info: The baseline model.
        target: Where the winner will run.
        name: Made from the steps when left out.

    Raises:
        InvalidInput: An unknown technique or parameter, or an order that makes no sense.
        NotApplicable: A step refuses this model or target; the message says why.
    """
    export = parse_step({"technique": "optimize_graph"})
    form = "onnx" if info.framework == "onnx" else "trainable"
    made: list[StepConfig] = []
    for raw in steps:
        step = parse_step(raw)
        technique = get(step.technique)
        needs = technique.form_needed(step)
        # a graph that is there can be optimized without an export
        if needs == "trainable" and form == "onnx" and step.technique != export.technique:
            if not made:
                raise NotApplicable(
                    f"{step.technique} works on the trained model, and an ONNX file is not one",
                    key="recipes.steps",
                    mend="bring the model in the form that it was trained in",
                )
            raise NotApplicable(
                f"{step.technique} works on the trained model, but {made[-1].technique} before it "
                "leaves ONNX",
                key="recipes.steps",
                mend=f"put {step.technique} first",
            )
        if needs == "onnx" and form == "trainable" and step.technique != export.technique:
            made.append(export)
        before = [earlier.does for earlier in made]
        reason = (
            _target_problem(step, info, target)
            or technique.order_problem(step, before)
            or technique.refusal(info, step, target)
        )
        if reason:
            raise NotApplicable(reason, key=f"recipes.{step.technique}")
        made.append(step)
        info = technique.foresee(info, step, target)
        form = technique.form_given(step)
    if form == "trainable" and made[-1].technique != "runtime":
        if reason := _target_problem(export, info, target):
            raise NotApplicable(reason, key="recipes")
        made.append(export)
    return Recipe(name or title(made), tuple(made))


def _target_problem(step: StepConfig, info: ModelInfo, target: Target) -> str | None:
    """Why a target cannot run what a step makes, or None; techniques know CPUs and GPUs best."""
    chip = target.device
    if info.family == "trees" and chip in ("gpu", "inferentia"):
        return f"{target.name} has no kernels for tree ensembles: they would run on its CPU"
    if chip == "mobile":
        if getattr(step, "offline", False):
            return f"offline optimizes for this CPU, and {target.name} has another"
        return None
    if chip != "inferentia":
        return None
    scheme = getattr(step, "scheme", None)
    if step.technique == "quantize" and scheme not in ("fp16", "bf16"):
        return (
            f"{target.name} computes in FP32, BF16, FP16 and FP8: the Neuron compiler takes no "
            f"{scheme} graph"
        )
    if step.technique == "runtime":
        return f"the engine of {target.name} is Neuron's own, which is not measurable here"
    if step.technique == "optimize_graph" and not getattr(step, "portable", True):
        return f"the Neuron compiler of {target.name} takes no operators that only ONNX Runtime has"
    return None


def title(steps: Sequence[StepConfig]) -> str:
    """The steps as people read them; the plain export is named only when it is all there is."""
    plain = get("optimize_graph").config().title()
    words = [word for word in (step.title() for step in steps) if word != plain]
    return " → ".join(words) if words else plain


def plan_recipes(
    wanted: str | Sequence[RecipeSection],
    info: ModelInfo,
    target: Target,
    flags: frozenset[str],
    *,
    no_onnx: str | None = None,
    most: int = 40,
) -> tuple[list[Recipe], dict[str, str]]:
    """The recipes to carry out, and why the others are not.

    Args:
        wanted: `default`, `search` (everything that is suggested), or the config's list.
        info: The baseline model.
        target: Where the winner will run.
        flags: This CPU's flags (`trimgate.environment.cpu_flags`).
        no_onnx: Why the model has no ONNX form, if it has none.
        most: A search has at most so many recipes.

    Returns:
        The recipes with distinct names, and for each refused one its reason by name.

    Raises:
        InvalidInput: No recipe is left that the target can run, or two have the same name.
    """
    sections = (
        [
            RecipeSection(steps=tuple(steps))
            for steps in suggested_steps(info, target, flags, search=wanted == "search")
        ]
        if isinstance(wanted, str)
        else list(wanted)
    )
    recipes: dict[tuple[str, ...], Recipe] = {}
    refused: dict[str, str] = {}
    searched = wanted == "search"
    for section in sections:
        if searched and len(recipes) == most:
            break
        try:
            recipe = make_recipe(section.steps, info, target, section.name)
            if no_onnx and any(step.technique == "optimize_graph" for step in recipe.steps):
                raise NotApplicable(no_onnx)
        except NotApplicable as error:
            if searched:  # of hundreds of combinations many make no sense, and nobody asked
                continue
            refused[section.name or title([parse_step(s) for s in section.steps])] = error.problem
            continue
        recipes.setdefault(tuple(s.model_dump_json() for s in recipe.steps), recipe)
    if not recipes and wanted == "default":
        # where what usually pays cannot be done, something else that is suggested may be
        with contextlib.suppress(InvalidInput):
            return plan_recipes("search", info, target, flags, no_onnx=no_onnx, most=4)[0], refused
    if not recipes:
        by_reason: dict[str, list[str]] = {}
        for name, reason in refused.items():
            by_reason.setdefault(reason, []).append(name)
        reasons = "; ".join(f"{', '.join(who)}: {reason}" for reason, who in by_reason.items())
        raise InvalidInput(
            f"no recipe is left that {target.name} can run ({reasons})",
            key="recipes",
            mend="give other recipes or another target",
        )
    given = [recipe.name for recipe in recipes.values()]
    doubled = next((name for name in given if given.count(name) > 1), None)
    if doubled:
        raise InvalidInput(
            "two different recipes have this name",
            key="recipes.name",
            value=doubled,
            mend="give each a name of its own",
        )
    return list(recipes.values()), refused


def trie(recipes: Sequence[Recipe]) -> Node:
    """Recipes that begin with the same steps share them."""
    root = Node(None)
    for recipe in recipes:
        node = root
        for depth, step in enumerate(recipe.steps):
            found = next((c for c in node.children if c.step == step), None)
            if found is None:
                done = [s.title() for s in recipe.steps[: depth + 1]]
                found = Node(step, " → ".join(done))
                node.children.append(found)
            node = found
        node.recipes.append(recipe.name)
    return root


def suggested_steps(
    info: ModelInfo, target: Target, flags: frozenset[str], *, search: bool = False
) -> list[list[dict[str, Any]]]:
    """Recipes from what the techniques suggest for this model, target and CPU.

    A recipe takes at most one step of each stage, in the order of the stages.

    Args:
        info: The baseline model.
        target: Where the winner will run.
        flags: This CPU's flags (`trimgate.environment.cpu_flags`).
        search: Combine everything that is suggested: first each stage's best suggestion, with
            and without the others', then the second best. Otherwise only what usually pays,
            and at most one way to train or shrink the model; only the first choice of features
            is also combined with the first choice of structure.

    Returns:
        Lists of steps, the most promising and then the simplest first; some may turn out to be
        refused.
    """
    options: dict[Stage, list[dict[str, Any]]] = {stage: [] for stage in STAGES}
    for name in names():
        technique = get(name)
        if info.framework == "onnx" and technique.stage in _TRAINED:
            continue
        suggested = sorted(technique.suggest(info, target, flags), key=lambda s: not s.usual)
        options[technique.stage] += [s.step for s in suggested if search or s.usual]
    ranked: list[tuple[int, int, list[dict[str, Any]]]] = []
    for places in itertools.product(*(range(-1, len(options[stage])) for stage in STAGES)):
        steps = {
            stage: options[stage][place] if place >= 0 else None
            for stage, place in zip(STAGES, places, strict=True)
        }
        made = [step for step in steps.values() if step is not None]
        if made and (search or _usual(steps, options)):
            # how far down the lists a search has to go for it
            depth = sum(max(place, 0) for place in places) if search else 0
            ranked.append((depth, len(made), made))
    return [made for _, _, made in sorted(ranked, key=lambda entry: entry[:2])]


_TRAINED: tuple[Stage, ...] = ("features", "training", "structure")


def _usual(
    steps: Mapping[Stage, dict[str, Any] | None],
    options: Mapping[Stage, Sequence[dict[str, Any]]],
) -> bool:
    """Whether a combination is among the default recipes."""
    shrinking = [stage for stage in _TRAINED if steps[stage] is not None]
    first_of_each = shrinking == ["features", "structure"] and all(
        steps[stage] == options[stage][0] for stage in shrinking
    )
    if len(shrinking) > 1 and not first_of_each:
        return False
    if steps["features"] is not None and (steps["precision"] or steps["runtime"]):
        return False
    # the plain export is added where it is needed; it is a recipe when it is all there is
    return steps["graph"] is None or all(
        step is None or stage == "graph" for stage, step in steps.items()
    )
