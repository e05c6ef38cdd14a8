"""Carrying out the trials of a study, in this process or in several, and after a kill."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.data.dataset import Array
from trimgate.errors import MissingExtra
from trimgate.techniques._base import Context
from trimgate.techniques.tune._config import TuneConfig
from trimgate.techniques.tune._tasks import Report, Task
from trimgate.techniques.tune._trainers import WHOLE

_log = logging.getLogger("trimgate.techniques.tune")

LOG = "study.log"
_PREPARED = "prepared"
_INTERRUPTED = "interrupted"
_REASON = "reason"
_RETRIES = 2
_SAME_FAILURES = 8
_POPULATION = (6, 50)

Claim = Callable[[], int | None]
"""Gives the number of the next trial to begin, each only once; None when there is none."""


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna's own log lines and warnings are left out meanwhile.

    Raises:
        MissingExtra: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "tune") from error
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", module="optuna")
            warnings.filterwarnings("ignore", module="cmaes")
            yield
    finally:
        optuna.logging.set_verbosity(before)


class Trials:
    """A study of Optuna in a folder, which survives the process.

    Args:
        task: What a trial does.
        config: The step.
        context: Seed, and the share of the trials to spend.
        folder: Where the study is kept, and the scores of its trials.
    """

    def __init__(self, task: Task, config: TuneConfig, context: Context, folder: Path) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.study import StudyDirection

        self.task, self.config, self.context, self.folder = task, config, context, folder
        self.limit = context.share_of(config.trials)
        directions = ["maximize" if task.measure.higher_is_better else "minimize"]
        directions += ["minimize"] * (len(config.goals) - 1)
        # another step's study in the same folder is not this one's
        said = json.dumps([config.model_dump(mode="json"), context.seed], sort_keys=True)
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / LOG))),
            study_name=sha256(said.encode()).hexdigest()[:16],
            directions=[StudyDirection[direction.upper()] for direction in directions],
            sampler=self._sampler(0),
            pruner=_pruner(config),
            load_if_exists=True,
        )
        (folder / "scores").mkdir(exist_ok=True)

    def prepare(self) -> None:
        """What must be done once before trials begin, also when a killed study goes on.

        The given model's own parameters are tried first. Trials that a killed process left are
        tried again, but not for ever: they may be what killed it.
        """
        self.retire("the process was killed while it ran")
        if _PREPARED in self.study.user_attrs:
            _log.info("going on with a study of %d finished trials", len(self.settled()))
            return
        if self.config.sampler == "grid":
            first = self.task.space.grid(self.limit, self.context.seed)
        else:
            first = [self.task.space.encoded(self.task.present)]
        for point in first[len(self.study.trials) :]:
            if point:
                self.study.enqueue_trial(point)
        self.study.set_user_attr(_PREPARED, True)

    def retire(self, reason: str) -> None:
        """Fails the trials whose process is gone, and has their parameters tried again."""
        from optuna.trial import TrialState

        stale = self.study.get_trials(states=(TrialState.RUNNING,))
        for trial in stale:
            tries = int(trial.user_attrs.get("tries", 0)) + 1
            if tries <= _RETRIES:
                interrupted = [*self.study.user_attrs.get(_INTERRUPTED, []), trial.number]
                self.study.set_user_attr(_INTERRUPTED, interrupted)
                self.study.enqueue_trial(trial.params, user_attrs={"tries": tries})
            else:
                said = {**self.study.user_attrs.get(_REASON, {}), str(trial.number): reason}
                self.study.set_user_attr(_REASON, said)
            self.study.tell(trial.number, state=TrialState.FAIL)

    def settled(self) -> list[Any]:
        """Trials that are complete, pruned or failed; those that were cut off are tried again."""
        cut_off = set(self.study.user_attrs.get(_INTERRUPTED, []))
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.is_finished() and trial.number not in cut_off
        ]

    def complete(self) -> list[Any]:
        """Trials that have values."""
        from optuna.trial import TrialState

        return [trial for trial in self.settled() if trial.state == TrialState.COMPLETE]

    def reasons(self) -> dict[int, str]:
        """Why trials failed, by number."""
        said = self.study.user_attrs.get(_REASON, {})
        found = {trial.number: trial.user_attrs.get(_REASON) for trial in self.settled()}
        return {
            number: words
            for number, own in found.items()
            if (words := own or said.get(str(number)))
        }

    @property
    def spent(self) -> float:
        """Seconds of all finished trials, shared by the workers."""
        taken = [t.duration.total_seconds() for t in self.settled() if t.duration is not None]
        return float(sum(taken)) / self.config.workers

    def late(self) -> bool:
        """Whether the time is up."""
        seconds = self.config.seconds
        return seconds is not None and self.spent >= seconds * self.context.effort

    def most(self) -> int:
        """How many trials there shall be at most."""
        if self.config.sampler != "grid":
            return self.limit
        return min(self.limit, len(self.task.space.grid(self.limit, self.context.seed)))

    def hopeless(self) -> bool:
        """Whether all of many trials failed."""
        return len(self.reasons()) >= _SAME_FAILURES and len(self.reasons()) == len(self.settled())

    def work(self, claim: Claim, progress: "Progress | None" = None) -> None:
        """Carries out trials as long as there are numbers to claim and time."""
        while not self.late() and not self.hopeless() and (number := claim()) is not None:
            # drawn anew for each trial, so that a study that was killed draws as if it were not
            self.study.sampler = self._sampler(self.context.seed * 100_003 + number)
            self._one(self.study.ask())
            if progress is not None:
                progress.tell(self)

    def _one(self, trial: Any) -> None:
        import optuna
        from optuna.trial import TrialState

        parameters = self.task.space.suggest(trial)
        same = next((t for t in self.complete() if t.params == trial.params), None)
        if same is not None:
            trial.set_user_attr("same_as", same.number)
            self.study.tell(trial, list(same.values))
            return

        def report(step: int, value: float) -> None:
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned

        looks: Report | None = None if self.config.pruner == "none" else report
        try:
            outcome = self.task.evaluate(parameters, looks)
            if not np.isfinite(outcome.values).all():
                raise ValueError("the metric is not a finite number")
        except optuna.TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        # a bad combination fails in as many ways as there are libraries
        except Exception as error:
            lines = str(getattr(error, "problem", error)).strip().splitlines()
            reason = lines[0][:300] if lines else type(error).__name__
            trial.set_user_attr(_REASON, reason)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            if outcome.scores is not None:
                file = self.folder / "scores" / f"{trial.number}.npy"
                np.save(file, outcome.scores, allow_pickle=False)
            self.study.tell(trial, list(outcome.values))

    def scores(self) -> list[Array]:
        """The scores of the complete trials that differ, on the validation rows."""
        files = (self.folder / "scores" / f"{trial.number}.npy" for trial in self.complete())
        return [np.load(file, allow_pickle=False) for file in files if file.is_file()]

    def _sampler(self, seed: int) -> Any:
        from optuna import samplers

        seed %= 2**32
        startup = max(4, min(10, self.limit // 4))
        low, high = _POPULATION
        kinds: dict[str, Callable[[], Any]] = {
            "tpe": lambda: samplers.TPESampler(seed=seed, n_startup_trials=startup),
            "gp": lambda: samplers.GPSampler(
                seed=seed, n_startup_trials=startup, warn_independent_sampling=False
            ),
            "cmaes": lambda: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
            "nsga2": lambda: samplers.NSGAIISampler(
                seed=seed, population_size=max(low, min(high, self.limit // 5))
            ),
        }
        # the points of a grid are waiting, so nothing is drawn
        return kinds.get(self.config.sampler, lambda: samplers.RandomSampler(seed=seed))()


class Progress:
    """Tells of each trial once, in the order in which they end."""

    def __init__(self, trials: Trials) -> None:
        self._told = {trial.number for trial in trials.settled()}

    def tell(self, trials: Trials) -> None:
        """Logs a line for each trial that ended since the last call."""
        reasons = trials.reasons()
        gain = trials.task.measure.gain
        for trial in trials.settled():
            if trial.number in self._told:
                continue
            self._told.add(trial.number)
            best: float | None = None
            for other in trials.complete():
                if other.number in self._told and (best is None or gain(other.values[0], best) > 0):
                    best = other.values[0]
            _log.info(
                "trial %d of %d: %s; best %s",
                len(self._told), trials.most(), _outcome(trial, reasons),
                "none yet" if best is None else f"{best:.4f}",
            )  # fmt: skip


def _outcome(trial: Any, reasons: dict[int, str]) -> str:
    if trial.number in reasons:
        return f"failed ({reasons[trial.number]})"
    values = ", ".join(f"{value:.4f}" for value in trial.values or ())
    return f"{values} (ended early)" if trial.state.name == "PRUNED" else values


def mend_log(folder: Path) -> None:
    """Drops what a killed process left: a lock, and a line that was not written to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG
    log.with_name(f"{LOG}.lock").unlink(missing_ok=True)
    if log.is_file():
        content = log.read_bytes()
        if content and not content.endswith(b"\n"):
            log.write_bytes(content[: content.rfind(b"\n") + 1])


def numbers(begin: int, end: int) -> Claim:
    """Claims for a single process."""
    following = iter(range(begin, end))
    return lambda: next(following, None)


def shared_numbers(folder: Path, begin: int, end: int) -> Claim:
    """Claims for several processes: whoever makes a number's file has it."""

    def claim() -> int | None:
        for number in range(begin, end):
            try:
                (folder / str(number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            return number
        return None

    return claim


def _pruner(config: TuneConfig) -> Any:
    from optuna import pruners

    kinds: dict[str, Callable[[], Any]] = {
        "none": pruners.NopPruner,
        "median": lambda: pruners.MedianPruner(n_startup_trials=4),
        "asha": lambda: pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        "hyperband": lambda: pruners.HyperbandPruner(
            min_resource=1, max_resource=WHOLE, reduction_factor=3
        ),
    }
    return kinds[config.pruner]()
