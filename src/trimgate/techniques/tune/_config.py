"""The parameters of a tune step."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from trimgate.techniques._base import StepConfig
from trimgate.training import FinetuneConfig

Goal = Literal["metric", "latency", "size"]
Scalar = bool | int | float | str | None
_MOST_FOLDS = 20


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Range(_Parameter):
    """Numbers from `low` to `high`, both of which may be chosen.

    Attributes:
        low: The smallest.
        high: The largest.
        log: Whether magnitudes are equally likely rather than differences; needs `low` > 0.
        step: Only `low`, `low + step`, and so on.
        integer: Whether the values are whole numbers. None: when the ends and the step are whole
            and the parameter is not known to be a fraction.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None
    integer: bool | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range begins above 0, not at {self.low}")
        if self.log and self.step is not None:
            raise ValueError("a log range has no step")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step {self.step} is not above 0")
        if self.integer and not self.is_whole:
            raise ValueError("whole numbers need a whole low, high and step")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether the ends and the step are whole numbers."""
        return all(float(n).is_integer() for n in (self.low, self.high, self.step or 1))


class Choices(_Parameter):
    """One of these values; a value may be a list, such as the sizes of hidden layers."""

    choices: tuple[Scalar | list[Scalar], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _differ(self) -> "Choices":
        seen = [(type(choice), choice) for choice in self.choices]
        if any(pair in seen[:place] for place, pair in enumerate(seen)):
            raise ValueError("a choice is given twice")
        return self


class Subset(_Parameter):
    """A list of any of these names: each is in or out by itself, as nodes that stay in float."""

    subset: tuple[str, ...] = Field(min_length=1)


def _kind(value: Any) -> str:
    if isinstance(value, _Parameter):
        return type(value).__name__
    given = value if isinstance(value, dict) else {}
    return "Choices" if "choices" in given else "Subset" if "subset" in given else "Range"


Parameter = Annotated[
    Annotated[Range, Tag("Range")]
    | Annotated[Choices, Tag("Choices")]
    | Annotated[Subset, Tag("Subset")],
    Discriminator(_kind),
]


class TuneConfig(StepConfig):
    """What to tune, how, and for how long.

    With one worker, no `seconds` and no `latency` among the objectives, equal seeds give equal
    models, and a study that was killed ends as if it had not been. Several workers hear of each
    other's trials at random moments, time differs from run to run, and so the models may, too.

    Attributes:
        step: A technique step whose parameters are tuned, as `{technique: quantize, ...}`, in
            place of training hyperparameters; what it says is kept where `space` does not vary
            it.
        space: What is varied, by name: `{low, high, log, step}`, `{choices: [...]}` or
            `{subset: [...]}`. None takes the default of the model's family or of the step. Names
            are those of the final estimator (or of any part, as `scaler__with_mean`), of the
            booster, of `finetune` for torch modules, which also have
            `builder_arguments.<name>` with `start: new`, and of the step, with dots for what
            lies deeper (`finetune.learning_rate`, `ratios.layer1.0.conv1`).
        sampler: `tpe` and `gp` learn from earlier trials (tree-structured Parzen estimators,
            Gaussian processes; the latter takes about half a second a trial), `cmaes` evolves
            numbers, `nsga2` populations, `random` and `grid` learn nothing. A range without a
            step is cut into 5 values by `grid`.
        pruner: Ends trials that are bad early on: `median` those below the median so far, `asha`
            all but the best third at a ninth and a third of the training, `hyperband` the same at
            several rates. Seen are the first trees of an ensemble, the first epochs, or a model
            trained on as large a share of the rows.
        objectives: `metric` alone, or also the measured `latency` (at the target's first batch
            size, as a ratio to the given model's) and the `size` of the served form. None:
            `metric`, and with a `step` also `latency`.
        tolerance: With several objectives, of the trials whose metric is at most so much worse
            than the best one's, the fastest is taken (the smallest where latency is none of them).
            Absolute, but a share of the metric for the errors of a regression.
        trials: At most so many.
        seconds: No trial begins after so many; time before a kill counts too.
        workers: Processes that share the study, each with one thread.
        folds: Value the trials by cross-validation on the training rows, in so many folds. The
            validation rows then only tell whether the result is better. None: value them on the
            validation rows.
        guard: Refuse a result that is not expected to be better than the given model on other
            rows: the choice is repeated on resamples of the validation rows and valued on the
            rest of them, which takes away what choosing the best of many gives by chance. After
            `folds` the validation rows themselves tell. Not with several objectives.
        start: For torch modules: `given` goes on from the weights that are there, which may know
            more than the training rows can tell (pretraining); `new` begins from those that the
            builder makes, for modules trained on nothing but these rows.
        finetune: For torch modules: what is not tuned.
        parameters: Hyper-parameters that stay fixed, for estimators and boosters.
    """

    technique: Literal["tune"] = "tune"
    step: dict[str, Any] | None = None
    space: dict[str, Parameter] | None = Field(default=None, min_length=1)
    sampler: Literal["tpe", "gp", "random", "grid", "cmaes", "nsga2"] = "tpe"
    pruner: Literal["none", "median", "asha", "hyperband"] = "none"
    objectives: tuple[Goal, ...] | None = None
    tolerance: float = Field(default=0.005, ge=0)
    trials: int = Field(default=30, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    workers: int = Field(default=1, ge=1)
    folds: int | None = Field(default=None, ge=2, le=_MOST_FOLDS)
    guard: bool = True
    start: Literal["given", "new"] = "given"
    finetune: FinetuneConfig = FinetuneConfig(distill=0)
    parameters: dict[str, Any] = Field(default_factory=dict)

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The objectives, spelled out."""
        return self.objectives or (("metric", "latency") if self.step else ("metric",))

    @model_validator(mode="after")
    def _fits_together(self) -> "TuneConfig":
        goals = self.goals
        if goals[0] != "metric" or len(set(goals)) < len(goals):
            raise ValueError("objectives begin with metric, and none is named twice")
        if len(goals) > 1 and self.pruner != "none":
            raise ValueError("a trial with several objectives cannot be judged early: pruner none")
        if len(goals) > 1 and self.sampler == "cmaes":
            raise ValueError("cmaes knows one objective; use nsga2, tpe or gp")
        if self.step is None:
            return self
        if self.step.get("technique") == "tune":
            raise ValueError("a tune step does not tune a tune step")
        unused = ("folds", "start", "finetune", "parameters", "pruner")
        for name in unused:
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if getattr(self, name) != default:
                raise ValueError(f"{name} has no meaning when the parameters of a step are tuned")
        # its own message says what is wrong with it
        self.inner()
        return self

    @property
    def does(self) -> StepConfig:
        """The step whose parameters are tuned, if it tunes one."""
        return self.inner() if self.step else self

    def inner(self) -> StepConfig:
        """The step whose parameters are tuned, as it is without tuning.

        Raises:
            InvalidInput: There is no such technique, or a parameter is wrong.
        """
        from trimgate.techniques import parse_step

        return parse_step(self.step or {})

    @property
    def needs_torch_image(self) -> bool:
        """Optuna's Gaussian processes compute with torch."""
        return self.sampler == "gp"

    def title(self) -> str:
        """The step in a few words."""
        if self.step is not None:
            return f"tuned {self.inner().title()}"
        return "tune" if self.sampler == "tpe" else f"tune ({self.sampler})"
