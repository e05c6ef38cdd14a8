"""What a trial does: train a model, or apply a step; and what becomes of the best trial."""

import copy
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from trimgate.data.dataset import Array
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import load_trainable, save_trainable
from trimgate.models.directory import MODEL_JSON, ModelInfo, RuntimeChoice, read, seal
from trimgate.techniques._base import Context, StepConfig, child
from trimgate.techniques.tune import _defaults
from trimgate.techniques.tune._config import TuneConfig
from trimgate.techniques.tune._modules import ModuleTrainer
from trimgate.techniques.tune._served import Served, served_scores
from trimgate.techniques.tune._space import Space, check_names
from trimgate.techniques.tune._trainers import (
    WHOLE,
    BoosterTrainer,
    EstimatorTrainer,
    Trainer,
)
from trimgate.training import Measure, folds

Report = Callable[[int, float], None]
"""Gets how many ninths of a trial are done and the metric so far; may raise to end it."""


@dataclass(frozen=True)
class Outcome:
    """What a trial is worth.

    Attributes:
        values: By objective.
        scores: On the validation rows, where the metric was taken on these; else None.
    """

    values: tuple[float, ...]
    scores: Array | None


class Task(ABC):
    """One model and what is tuned of it.

    Args:
        source: The given model directory.
        config: The step.
        context: Rows, metric and target.

    Raises:
        InvalidInput: The space names what is no parameter, or a value that is not allowed.
        NotApplicable: There is no default space for this model or step.
    """

    def __init__(self, source: Path, config: TuneConfig, context: Context) -> None:
        self.source = source
        self.info = read(source)
        self.config = config
        self.context = context
        self.measure = Measure.of(context.metric, self.info, context.validation)
        self._served = Served(source, context, config.goals)

    space: Space
    present: Mapping[str, Any]

    @abstractmethod
    def given_scores(self) -> Array:
        """The given model's on the validation rows."""

    @abstractmethod
    def evaluate(self, parameters: Mapping[str, Any], report: Report | None) -> Outcome:
        """Carries out a trial.

        Args:
            parameters: By the names of the space.
            report: Hears of the metric while the trial runs; None is cheaper.

        Raises:
            Exception: Whatever goes wrong with such parameters.
        """

    @abstractmethod
    def finish(
        self, parameters: Mapping[str, Any], partial: Path, notes: Mapping[str, Any]
    ) -> ModelInfo:
        """Writes the model with the best parameters into a directory.

        Args:
            parameters: By the names of the space.
            partial: An empty directory.
            notes: For the card; what the model itself is worth is added.
        """

    def close(self) -> None:
        """Lets go of what was loaded."""
        self._served.close()


def make_task(source: Path, config: TuneConfig, context: Context) -> Task:
    """The task for a model and a step (see `Task`)."""
    return (TrainTask if config.step is None else StepTask)(source, config, context)


class TrainTask(Task):
    """Hyper-parameters of the training; the rows are the training rows."""

    def __init__(self, source: Path, config: TuneConfig, context: Context) -> None:
        super().__init__(source, config, context)
        model = load_trainable(source, self.info)
        of_model = (model, self.info, config, context.seed, context.target.threads)
        self.trainer: Trainer
        if self.info.framework == "sklearn":
            self.trainer = EstimatorTrainer(*of_model)
        elif self.info.framework == "torch":
            self.trainer = ModuleTrainer(*of_model)
        else:
            self.trainer = BoosterTrainer(*of_model)
        space = config.space or self.trainer.default_space(config.goals)
        if not space:
            raise NotApplicable(
                f"nothing is usually tuned of {type(model).__name__}",
                key="tune.space",
                mend="say what to vary",
            )
        self.trainer.check(list(space))
        self.present = self.trainer.present()
        self.space = Space.of(space, self.present)
        self._parts = [(context.train, context.validation)]
        if config.folds:
            self._parts = folds(context.train, config.folds, context.seed)
            if len(self._parts) < config.folds:
                raise InvalidInput(
                    "the rarest class has too few training rows for so many folds",
                    key="tune.folds",
                    value=config.folds,
                    mend="take fewer, or none",
                )

    def given_scores(self) -> Array:
        return self.trainer.scores(self.trainer.model, self.context.validation)

    def evaluate(self, parameters: Mapping[str, Any], report: Report | None) -> Outcome:
        values: list[float] = []
        for part, (learnt, held) in enumerate(self._parts):
            measure = Measure.of(self.context.metric, self.info, held)

            def watch(
                ninths: int, model: Any, part: int = part, measure: Measure = measure
            ) -> None:
                # folds are looked at when they are done
                if report is not None and len(self._parts) == 1:
                    report(ninths, measure(self.trainer.scores(model, self._parts[part][1])))

            whole = len(self._parts) == 1
            model = self.trainer.train(parameters, learnt, watch if report and whole else None)
            scores = self.trainer.scores(model, held)
            values.append(measure(scores))
            done = WHOLE * (part + 1) // len(self._parts)
            if report is not None and done < WHOLE:
                report(done, float(np.mean(values)))
        costs: tuple[float, ...] = ()
        if len(self.config.goals) > 1:
            if self.config.folds:
                model = self.trainer.train(parameters, self.context.train)
            costs = self._costs(model, parameters)
        return Outcome((float(np.mean(values)), *costs), None if self.config.folds else scores)

    def finish(
        self, parameters: Mapping[str, Any], partial: Path, notes: Mapping[str, Any]
    ) -> ModelInfo:
        # as the user's own machine would fit it, not as one of several workers
        trainer = replace(self.trainer, config=self.config.model_copy(update={"workers": 1}))
        model = trainer.train(parameters, self.context.train)
        after = self.measure(trainer.scores(model, self.context.validation))
        made = self._record(parameters, {**notes, "metric_after": after})
        save_trainable(model, partial, made)
        return seal(partial, made)

    def _record(self, parameters: Mapping[str, Any], notes: Mapping[str, Any]) -> ModelInfo:
        changes = self.trainer.changes(parameters)
        more = changes.pop("notes", {})
        return child(
            self.info,
            self.config,
            outputs=(),
            score_output=None,
            runtime=RuntimeChoice(),
            notes={**more, "tune": dict(notes)},
            **changes,
        )

    def _costs(self, model: Any, parameters: Mapping[str, Any]) -> tuple[float, ...]:
        with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
            made = self._record(parameters, {})
            save_trainable(model, Path(folder), made)
            seal(Path(folder), made)
            return self._served.costs(Path(folder))


class StepTask(Task):
    """Parameters of another technique's step."""

    def __init__(self, source: Path, config: TuneConfig, context: Context) -> None:
        super().__init__(source, config, context)
        from trimgate.techniques import get

        self.step = config.inner()
        self.technique = get(self.step.technique)
        self.base = self.step.model_dump(mode="json")
        space = config.space or _defaults.of_step(self.base, source, self.info)
        if not space:
            raise NotApplicable(
                f"there is no default space for {self.step.title()}",
                key="tune.space",
                mend="say what to vary",
            )
        check_names(
            space, _known(self.step), self.step.technique,
            lambda name: path_of(self.step, name) is not None,
        )  # fmt: skip
        self.present = {name: self._present(name) for name in space}
        self.space = Space.of(space, self.present)
        for name, value in self.space.examples():
            try:
                self._with({name: value})
            except InvalidInput as error:
                # what does not fit other parameters may fit them in a trial
                if error.key != f"{self.step.technique}.step":
                    raise

    def given_scores(self) -> Array:
        return served_scores(self.source, self.context)[1]

    def evaluate(self, parameters: Mapping[str, Any], report: Report | None) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
            out = Path(folder) / "model"
            self._apply(parameters, out)
            scores = served_scores(out, self.context)[1]
            return Outcome((self.measure(scores), *self._served.costs(out)), scores)

    def finish(
        self, parameters: Mapping[str, Any], partial: Path, notes: Mapping[str, Any]
    ) -> ModelInfo:
        with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
            out = Path(folder) / "model"
            made = self._apply(parameters, out)
            after = self.measure(served_scores(out, self.context)[1])
            shutil.copytree(
                out, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MODEL_JSON)
            )
        step = self.config.model_dump(mode="json")
        said = {
            **notes,
            "metric_after": after,
            "step": self._with(parameters).model_dump(mode="json"),
        }
        record = made.model_copy(
            update={"recipe": (*self.info.recipe, step), "notes": {**made.notes, "tune": said}}
        )
        return seal(partial, record)

    def _apply(self, parameters: Mapping[str, Any], out: Path) -> ModelInfo:
        config = self._with(parameters)
        if self.technique.form_given(config) != self.technique.form_given(self.step):
            raise InvalidInput("leaves another form of the model than the step without tuning")
        refused = self.technique.refusal(self.info, config, self.context.target)
        if refused:
            raise NotApplicable(refused)
        # a trial that was killed begins again: what it left would be of other parameters
        return self.technique.apply(self.source, out, config, replace(self.context, work=None))

    def _with(self, parameters: Mapping[str, Any]) -> StepConfig:
        """The step with these values; all else is spelled out as it is without tuning."""
        from trimgate.techniques import parse_step

        step = copy.deepcopy(self.base)
        for name, value in parameters.items():
            *above, last = path_of(self.step, name) or (name,)
            place = step
            for key in above:
                place = place[key]
            place[last] = value
        return parse_step(step)

    def _present(self, name: str) -> Any:
        place: Any = self.base
        for key in path_of(self.step, name) or (name,):
            place = place.get(key) if isinstance(place, dict) else None
        return place


def path_of(step: BaseModel, name: str) -> tuple[str, ...] | None:
    """The keys that a dotted name stands for, or None where there is no such parameter.

    What follows a mapping is one key, as names of layers have dots themselves.
    """
    head, _, rest = name.partition(".")
    if head not in type(step).model_fields or head == "technique":
        return None
    value = getattr(step, head)
    if not rest:
        return (head,)
    if isinstance(value, dict):
        return (head, rest)
    inner = path_of(value, rest) if isinstance(value, BaseModel) else None
    return None if inner is None else (head, *inner)


def _known(step: StepConfig) -> list[str]:
    """Names of the parameters of a step, deeper ones with dots."""
    names = []
    for name, value in step.model_dump(mode="json").items():
        if name != "technique":
            names += [name, *(f"{name}.{n}" for n in value)] if isinstance(value, dict) else [name]
    return names
