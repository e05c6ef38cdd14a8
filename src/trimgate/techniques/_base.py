"""What an optimization technique must do."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from trimgate.data.dataset import Dataset
from trimgate.models.directory import ModelInfo
from trimgate.targets import Target

Form = Literal["trainable", "onnx"]
Stage = Literal["features", "training", "structure", "graph", "precision", "runtime"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class StepConfig(BaseModel):
    """Parameters of one recipe step. Subclasses add `technique: Literal["<name>"]`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    technique: str

    @property
    def does(self) -> "StepConfig":
        """The step whose effect it has: itself, but for steps that carry out another one."""
        return self

    @property
    def needs_torch_image(self) -> bool:
        """Whether it needs torch, SHAP or NNCF on whatever model: the large image has them."""
        return False

    @property
    def files(self) -> list[Path]:
        """Files that the step reads besides the model and the rows: parameters that are paths."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return [value for value in values if isinstance(value, Path)]

    def title(self) -> str:
        """The step in a few words, as leaderboards and pipeline graphs show it."""
        return self.technique.replace("_", " ")


ConfigT = TypeVar("ConfigT", bound=StepConfig)


@dataclass(frozen=True)
class Context:
    """What a technique may look at besides the model. The test split is not in here.

    Attributes:
        train: The rows that the model may learn and calibrate from.
        validation: The rows that choices are made on; none of them ranks the candidates.
        metric: The primary metric's name (see `trimgate.judge.metrics`).
        target: Where the winner will run.
        seed: Makes the result reproducible.
        effort: Share of the usual epochs, trials or rounds to spend: below 1 while recipes are
            screened on a sample, where a rough answer is enough.
        work: A folder of this very step on this very model and data, where what is done (a
            study, a checkpoint) is kept for when the process is killed and the step begins
            again; None keeps nothing.
    """

    train: Dataset
    validation: Dataset
    metric: str
    target: Target
    seed: int = 0
    effort: float = 1.0
    work: Path | None = None

    def share_of(self, number: int) -> int:
        """At least one, and `effort` of so many epochs, trials or rounds."""
        return max(1, round(number * self.effort)) if number else 0


class Suggestion(NamedTuple):
    """A step that is worth trying on a model.

    Attributes:
        step: `technique` and its parameters, as in a recipe.
        usual: Whether it pays so often that the default recipes have it; a search also tries
            the others.
    """

    step: dict[str, Any]
    usual: bool = True


class Technique(ABC, Generic[ConfigT]):
    """A way to make a model lighter; one folder in `trimgate.techniques`, found by its name.

    Attributes:
        name: Its name in recipes.
        config: The type of its parameters.
        needs: The form of the model that it works on.
        gives: The form of the model that it leaves as the current one. After a step that
            gives `trainable` the ONNX form, if there was one, is gone (it would be stale).
        stage: Where it stands in the recipes that are made from suggestions, which take at most
            one step of each stage, in this order.
    """

    name: ClassVar[str]
    config: ClassVar[type[Any]]
    needs: ClassVar[Form]
    gives: ClassVar[Form]
    stage: ClassVar[Stage]

    def form_needed(self, config: ConfigT) -> Form:
        """The form that this step works on; override where it depends on the parameters."""
        return self.needs

    def form_given(self, config: ConfigT) -> Form:
        """The form that this step leaves; override where it depends on the parameters."""
        return self.gives

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """Steps worth trying on this model, target and CPU (by its flags), the best first.

        They may be refused after all; `refusal` and `order_problem` have the last word.
        """
        return ()

    def order_problem(self, config: ConfigT, before: Sequence[StepConfig]) -> str | None:
        """Why the step makes no sense after those steps of a recipe, in words; else None.

        What the forms say (ONNX cannot be trained) is checked elsewhere; this is for steps that
        would undo or repeat what was done.
        """
        return None

    def foresee(self, info: ModelInfo, config: ConfigT, target: Target) -> ModelInfo:
        """The record as later steps will find it, as far as their refusals depend on it."""
        return info

    @abstractmethod
    def refusal(self, info: ModelInfo, config: ConfigT, target: Target) -> str | None:
        """Why it cannot or should not be applied here, in words for the user; else None.

        Cheap: looks at the record and this machine only, so that it can be asked before any
        work starts.
        """

    @abstractmethod
    def apply(self, source: Path, out: Path, config: ConfigT, context: Context) -> ModelInfo:
        """Makes a new model directory `out` from the model directory `source`.

        Deterministic for equal inputs and seed. The new record has `parent` set to the
        source's digest and `recipe` extended by `config` (use `trimgate.techniques.child`).

        Raises:
            NotApplicable: It turns out not to work on this model; nothing is left at `out`.
        """


def did(info: ModelInfo, technique: str) -> bool:
    """Whether a model went through a technique, also where `tune` chose its parameters."""
    return any((step.get("step") or step)["technique"] == technique for step in info.recipe)


def trains_anew(name: str, before: Sequence[StepConfig]) -> str | None:
    """Why a step that trains the model from nothing cannot come after those, or None."""
    undone = next((step for step in before if step.technique in ("prune", "distill")), None)
    if undone is None:
        return None
    return f"{name} trains the model anew, which undoes {undone.technique} before it"


def child(source: ModelInfo, config: StepConfig, **changes: Any) -> ModelInfo:
    """The record of a model made from `source` by one more step.

    Args:
        source: The parent's record.
        config: The step's parameters.
        **changes: Fields that differ from the parent's; `notes` are merged.
    """
    step = config.model_dump(mode="json", exclude_defaults=False)
    notes = {**source.notes, **changes.pop("notes", {})}
    update = {
        "parent": source.digest,
        "recipe": (*source.recipe, step),
        "notes": notes,
        **changes,
    }
    return ModelInfo.model_validate({**source.model_dump(), **update})
