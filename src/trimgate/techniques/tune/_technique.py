"""The technique."""

import importlib.util
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from trimgate.errors import NotApplicable
from trimgate.models import directory
from trimgate.models.directory import ModelInfo
from trimgate.targets import Target
from trimgate.techniques._base import (
    Context,
    Form,
    Stage,
    StepConfig,
    Suggestion,
    Technique,
    trains_anew,
)
from trimgate.techniques.tune import _choose
from trimgate.techniques.tune._config import TuneConfig
from trimgate.techniques.tune._study import Progress, Trials, mend_log, numbers, quiet
from trimgate.techniques.tune._tasks import Task, make_task
from trimgate.techniques.tune._workers import work_together

_log = logging.getLogger("trimgate.techniques.tune")

_NEEDED = {"gp": ("torch", "torch"), "cmaes": ("cmaes", "tune")}


class Tune(Technique[TuneConfig]):
    """Searches better hyperparameters of the training, or better parameters of another step."""

    name: ClassVar[str] = "tune"
    config: ClassVar[type[TuneConfig]] = TuneConfig
    needs: ClassVar[Form] = "trainable"
    gives: ClassVar[Form] = "trainable"
    stage: ClassVar[Stage] = "training"

    def form_needed(self, config: TuneConfig) -> Form:
        """That of the step that is tuned, if there is one."""
        if config.step is None:
            return self.needs
        inner = config.inner()
        return _technique(inner).form_needed(inner)

    def form_given(self, config: TuneConfig) -> Form:
        """That of the step that is tuned, if there is one."""
        if config.step is None:
            return self.gives
        inner = config.inner()
        return _technique(inner).form_given(inner)

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """A few trials; never usual, as it takes as many trainings as the others take together."""
        if info.framework in ("sklearn", "xgboost", "lightgbm"):
            return [Suggestion({"technique": "tune", "trials": 20, "pruner": "asha"}, usual=False)]
        if info.framework == "torch" and info.family != "transformer":
            step = {"technique": "tune", "trials": 8, "pruner": "median"}
            return [Suggestion(step, usual=False)]
        return ()

    def order_problem(self, config: TuneConfig, before: Sequence[StepConfig]) -> str | None:
        """A training undoes what made the model smaller; a step has its own reasons."""
        if config.step is None:
            return trains_anew(self.name, before)
        inner = config.inner()
        return _technique(inner).order_problem(inner, before)

    def refusal(self, info: ModelInfo, config: TuneConfig, target: Target) -> str | None:
        """Why nothing can be tuned here, or None."""
        package, extra = _NEEDED.get(config.sampler, ("optuna", "tune"))
        for needed, brings in (("optuna", "tune"), (package, extra)):
            if importlib.util.find_spec(needed) is None:
                return f"the Python package {needed} is not installed (extra: {brings})"
        if config.step is not None:
            inner = config.inner()
            return _technique(inner).refusal(info, inner, target)
        if info.framework == "onnx":
            return "tune trains the model again, and this one is only there as ONNX"
        if info.framework == "torch" and info.score_kind == "label":
            return "a module that puts out labels cannot be trained"
        return None

    def apply(self, source: Path, out: Path, config: TuneConfig, context: Context) -> ModelInfo:
        """Tunes; see `TuneConfig`."""
        info = directory.read(source)
        refused = self.refusal(info, config, context.target)
        if refused:
            raise NotApplicable(refused)
        began = time.monotonic()
        with directory.writing(out) as partial, quiet(), _folder(context.work) as folder:
            task = make_task(source, config, context)
            try:
                trials = Trials(task, config, context, folder)
                trials.prepare()
                if config.workers > 1:
                    work_together(trials, source)
                else:
                    claim = numbers(len(trials.settled()), trials.most())
                    trials.work(claim, Progress(trials))
                parameters, notes = _chosen(trials, task, config, context)
                # not before: nothing of a model that is refused shall be trained
                made = task.finish(parameters, partial, notes)
                _check_folds(made, task, config)
                notes = {**made.notes["tune"], "wall_seconds": round(time.monotonic() - began, 3)}
                made = made.model_copy(update={"notes": {**made.notes, "tune": notes}})
                return directory.seal(partial, made)
            finally:
                task.close()


def _chosen(
    trials: Trials, task: Task, config: TuneConfig, context: Context
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters to take, and the notes.

    Raises:
        NotApplicable: No trial worked, or what the best one gains is no more than chance.
    """
    complete, reasons = trials.complete(), trials.reasons()
    if not complete:
        said = Counter(reasons.values()).most_common(1)
        why = said[0][0] if said else "none came to its end in time"
        raise NotApplicable(f"none of {len(trials.settled())} trials worked: {why}")
    best = _choose.best(complete, config.goals, task.measure, config.tolerance)
    given = task.given_scores()
    before = task.measure(given)
    notes: dict[str, Any] = {
        "sampler": config.sampler,
        "pruner": config.pruner,
        "objectives": list(config.goals),
        "trials": len(trials.settled()),
        "complete": len(complete),
        "pruned": len(trials.settled()) - len(complete) - len(reasons),
        "failed": len(reasons),
        "failures": dict(Counter(reasons.values()).most_common(5)),
        "valued_on": f"{config.folds} folds of the training rows" if config.folds else (
            "validation rows"
        ),
        "metric": context.metric,
        "metric_before": before,
        "best": dict(zip(config.goals, best.values, strict=True)),
        "best_trial": best.number,
        "importances": _choose.importances(trials.study, task.measure.higher_is_better),
        "trial_seconds": round(trials.spent * config.workers, 3),
    }  # fmt: skip
    if len(config.goals) > 1:
        notes["front"] = _choose.front(trials.study, config.goals)
        notes["tolerance"] = config.tolerance
    elif not config.folds:
        notes |= _guarded(trials, task, config, context, best.values[0], before, given)
    parameters = task.space.decoded(best.params)
    return parameters, {**notes, "best_parameters": parameters}


def _guarded(
    trials: Trials,
    task: Task,
    config: TuneConfig,
    context: Context,
    value: float,
    before: float,
    given: Any,
) -> dict[str, Any]:
    """What the choice is worth without its optimism.

    Raises:
        NotApplicable: No more than the given model is.
    """
    if config.guard and task.measure.gain(value, before) <= 0:
        raise NotApplicable(
            f"none of {len(trials.settled())} trials is better than the model as it is "
            f"({context.metric} {before:.4f} on the validation rows, the best trial {value:.4f})",
            key="tune.space",
            mend="widen it, or give more trials",
        )
    found = _choose.expected(given, trials.scores(), task.measure, context.seed)
    if found is None:
        return {}
    if config.guard and task.measure.gain(found.chosen, found.given) <= 0:
        raise NotApplicable(
            f"the best of {len(trials.settled())} trials has {context.metric} {value:.4f} on the "
            f"validation rows, and {before:.4f} is what the model has, but choosing among so many "
            f"gives as much by chance (expected on other rows: {found.chosen:.4f}, "
            f"and {found.given:.4f} as it is)",
            key="tune.guard",
            mend="give more validation rows, or folds",
        )
    return {"expected_before": found.given, "expected_after": found.chosen}


def _check_folds(made: ModelInfo, task: Task, config: TuneConfig) -> None:
    """After cross-validation the validation rows have chosen nothing, and have the last word."""
    notes = made.notes["tune"]
    if not (config.folds and config.guard and len(config.goals) == 1):
        return
    if task.measure.gain(notes["metric_after"], notes["metric_before"]) <= 0:
        raise NotApplicable(
            f"the best trial of the cross-validation has {notes['metric']} "
            f"{notes['metric_after']:.4f} on the validation rows, which is no better than "
            f"{notes['metric_before']:.4f} without tuning",
            key="tune.space",
            mend="widen it, or give more trials",
        )


@contextmanager
def _folder(work: Path | None) -> Iterator[Path]:
    """Where the study lies: what is kept for the step, or a folder for this once."""
    if work is not None:
        mend_log(work)
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
        yield Path(folder)


def _technique(inner: StepConfig) -> Technique[Any]:
    from trimgate.techniques import get

    return get(inner.technique)
