"""Checks everything that a user gave before any work starts, and decides what will be done."""

import contextlib
import difflib
import hashlib
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trimgate import __version__
from trimgate.config import DATA_PATHS, Config, ModelSection, SearchSection, is_remote
from trimgate.data import Dataset, Division, divide, missing
from trimgate.data.dataset import BATCH, Array
from trimgate.data.splits import NAMES, comparable
from trimgate.data.stream import spread_rows
from trimgate.environment import cpu_flags, waiting_threads
from trimgate.errors import InvalidInput, MissingExtra, NotApplicable
from trimgate.judge.cost import price_of
from trimgate.judge.formats import read_operators
from trimgate.judge.halving import LEAST
from trimgate.judge.metrics import compute, default_metric, higher_is_better, names, spec
from trimgate.judge.objective import Constrained, weights_of
from trimgate.judge.policy import GatePolicy, Guard, default_policy
from trimgate.judge.settings import EvaluationSettings
from trimgate.judge.slices import slice_rows
from trimgate.models import ModelSource, folder_files, import_model, is_published
from trimgate.models.directory import ModelInfo, Task, file_sha256, read
from trimgate.recipes import Recipe, plan_recipes
from trimgate.targets import ARRAY_BATCH_SIZES, Target

if TYPE_CHECKING:
    from trimgate.runtimes import Session


@dataclass(frozen=True)
class Plan:
    """What a run will do; everything in it is settled.

    Attributes:
        config: The config, with absolute paths.
        model: Record of the baseline as it will be imported.
        metric: The primary metric.
        policy: The gate's rules.
        recipes: The recipes to carry out.
        refused: Why the other recipes are not, by name.
        data_digest: SHA-256 over the data files.
        model_digest: SHA-256 of the model file, and of its builder's source.
        model_uri: Where a pipeline on a cluster finds the model; empty for `config.model.path`.
    """

    config: Config
    model: ModelInfo
    metric: str
    policy: GatePolicy
    recipes: tuple[Recipe, ...]
    refused: dict[str, str]
    data_digest: str
    model_digest: str
    model_uri: str = ""

    @property
    def image(self) -> str:
        """The image that the run's tasks need; a larger one only where something needs it."""
        kind = "core"
        if self.model.framework == "torch" or any(
            step.needs_torch_image for recipe in self.recipes for step in recipe.steps
        ):
            kind = "torch"
        if self.config.target.device == "gpu":
            kind = "gpu"
        return f"trimgate/python-{kind}:{__version__}"

    @property
    def search(self) -> SearchSection:
        """How the recipes are screened: as the config says, and not where there are two or one."""
        searched = self.config.recipes == "search"
        chosen = self.config.search or SearchSection(rungs=1 if searched else 0)
        if len(self.recipes) <= LEAST:
            return chosen.model_copy(update={"rungs": 0})
        return chosen

    @property
    def evaluation(self) -> EvaluationSettings:
        """The config's, with the operating point of an imbalanced model where it names none."""
        chosen = self.config.evaluation
        if chosen.operating_point is not None or self.model.task != "binary":
            return chosen
        wanted = {self.metric, *self.policy.metrics}
        if "average_precision" in wanted or any(spec(name).needs == "point" for name in wanted):
            return chosen.model_copy(update={"operating_point": "f1"})
        return chosen


def make_plan(config: Config, file: str | Path | None = None) -> Plan:
    """Reads the rows and the model, tries them together, and settles metric, rules and recipes.

    Args:
        config: The config, with absolute paths.
        file: The config's file, for messages.

    Raises:
        InvalidInput: Anything that the user gave is wrong; nothing was written.
    """
    for key, uri in local_inputs(config).items():
        if is_remote(uri):
            raise InvalidInput(
                "lies in remote storage, and the checks and default recipes need it here",
                file=file,
                key=key,
                value=uri,
                mend="give a local copy (a sample of the rows will do) and name the remote one "
                "when you submit",
            )
    with _named(config, file), waiting_threads():
        for key, path in local_inputs(config).items():
            if key != "model.path" and Path(path).is_dir():
                raise InvalidInput("is a folder", file=path, mend="name a file in it")
        rows = load_data(config)
        _check_hidden(config, rows)
        few = rows.take(
            {
                "train": sample_rows(rows.labels("train")),
                "validation": spread_rows(rows.rows("validation"), BATCH),
            }
        )
        with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
            directory = Path(folder, "model")
            model = import_model(model_source(config), few["train"], directory)
            check_rows(model, rows, directory)
            no_onnx = onnx_refusal(model, few["train"].take(slice(0, 64)), directory)
            _check_server(config, model, no_onnx)
            metric = config.metric or default_metric(model.task, rows.labels("train"))
            _check_metrics([("metric", metric)], model.task)
            policy = config.gate or _suited(
                _default_policy(metric, model, few["validation"], directory), config, metric
            )
        _check_metrics(_policy_metrics(policy), model.task)
        _check_evaluation(config.evaluation, {metric, *policy.metrics}, model, few["validation"])
        if policy.slices is not None and not config.evaluation.slices:
            raise InvalidInput(
                "there are no slices to hold to it",
                key="gate.slices",
                mend="add evaluation.slices, such as [{score_bands: 5}]",
            )
        _check_load(policy, config)
        if not policy.has_rules:
            raise InvalidInput(
                "has no rules, and without rules nothing passes",
                key="gate",
                mend=f"add max_drop: {{{metric}: 0.01}}, or leave `gate` out for the default",
            )
        target = _self_contained(_settled(config.target, model))
        config = config.model_copy(update={"target": target})
        policy = _guarded(_within_memory(policy, config.target), config)
        recipes, refused = plan_recipes(
            config.recipes,
            model,
            config.target,
            cpu_flags(),
            no_onnx=no_onnx,
            most=(config.search or SearchSection()).recipes,
        )
        for recipe in recipes:
            for step in recipe.steps:
                lacking = next((str(f) for f in step.files if not f.is_file()), None)
                if lacking:
                    raise InvalidInput(
                        "the file is missing", key=f"recipes.{step.technique}", value=lacking
                    )
    return Plan(
        config=config,
        model=model,
        metric=metric,
        policy=policy,
        recipes=tuple(recipes),
        refused=refused,
        data_digest=files_digest(data_files(config)),
        model_digest=model_digest(model_source(config)),
    )


def _check_hidden(config: Config, rows: Division) -> None:
    """Refuses a misspelt column among those to hide: its values would be shown.

    Raises:
        InvalidInput: There is no such column.
    """
    known = [*rows.features, *config.data.drop]
    for name in config.report.hide:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise InvalidInput(
                "there is no such column", key="report.hide", value=name,
                mend=f"did you mean {close[0]!r}?" if close else None,
            )  # fmt: skip


@contextlib.contextmanager
def _named(config: Config, file: str | Path | None) -> Iterator[None]:
    """Messages name the config file and the key in it, and then the file that the key names."""
    try:
        yield
    except InvalidInput as error:
        if file is None:
            raise
        if isinstance(error, MissingExtra):
            raise
        keys = {str(path): key for key, path in local_inputs(config).items()}
        key, problem = error.key, error.problem
        if error.file is None and key in ModelSection.model_fields:
            key = f"model.{key}"
        elif key is None or key.partition(".")[0] not in Config.model_fields:
            # a column or a tensor, or nothing: what is wrong is the file's content
            if key is not None:
                problem = (
                    f"the column {key!r} {problem}" if error.file is None else f"{key}: {problem}"
                )
            key = keys.get(error.file or "", "model.path" if key is None else "data")
        if error.file is not None:
            problem = f"{error.file}: {problem}"
        error.file, error.key, error.problem = str(file), key, problem
        raise


def _settled(target: Target, model: ModelInfo) -> Target:
    """The target with batch sizes that suit the model, where the user says none.

    A thousand images or texts a call are no use that anyone has, and take minutes to time.
    """
    arrays = model.tokenizer is not None or any(len(spec.shape) > 2 for spec in model.inputs)
    if not arrays or "batch_sizes" in target.model_fields_set:
        return target
    return target.model_copy(update={"batch_sizes": ARRAY_BATCH_SIZES})


def _self_contained(target: Target) -> Target:
    """The target with what its files say in their place, as a task on a cluster has no files.

    Raises:
        InvalidInput: A file is missing or is not what it should be.
    """
    changes: dict[str, object] = {"price_table": None}
    if isinstance(target.price, str):
        changes["price"] = price_of(target)
    if isinstance(target.operators, str):
        path = Path(target.operators)
        if not path.is_file():
            raise InvalidInput("the file is missing", key="target.operators", value=path)
        lines = tuple(path.read_text().splitlines())
        try:
            found = read_operators(lines)
        except ValueError as error:
            raise InvalidInput(
                f"is not a required-operators config: {error}",
                key="target.operators",
                value=path,
                mend="give the .config file that ONNX Runtime's converter writes",
            ) from error
        if not found:
            raise InvalidInput("names no operator", key="target.operators", value=path)
        changes["operators"] = lines
    return target.model_copy(update=changes)


def _check_server(config: Config, model: ModelInfo, no_onnx: str | None) -> None:
    """Refuses another model server than trimgate's for a model that it could not serve."""
    if config.layout is None:
        return
    problem = no_onnx and f"reads ONNX, and the model has no such form: {no_onnx}"
    if model.tokenizer is not None:
        problem = "tokenizes nothing, and the model takes text"
    if problem:
        raise InvalidInput(
            problem, key="serving.runtime", value=config.layout, mend="leave it out"
        )


def _check_load(policy: GatePolicy, config: Config) -> None:
    """Refuses a rule on the latency under load that no measurement would answer."""
    asked = policy.load
    if asked is None:
        return
    rates = config.target.rates
    if not any(rate >= asked.rate for rate in rates):
        known = f"the target's rates are {list(rates)}" if rates else "the target has no rates"
        raise InvalidInput(
            f"nothing would be measured there: {known}",
            key="gate.load.rate",
            value=asked.rate,
            mend=f"set rates: [{asked.rate:g}] in `target`",
        )
    key = "load_seconds" if asked.where == "session" else "served_load_seconds"
    if not getattr(config.benchmark, key):
        raise InvalidInput(
            "is 0, and gate.load asks for the latency under load",
            key=f"benchmark.{key}",
            mend="leave it out, or drop gate.load",
        )


def _within_memory(policy: GatePolicy, target: Target) -> GatePolicy:
    """The target's memory is a rule of the gate, beside what the user asks."""
    limits = [x for x in (policy.max_peak_rss_mb, target.memory_limit_mb) if x is not None]
    return policy.model_copy(update={"max_peak_rss_mb": min(limits)}) if limits else policy


def _guarded(policy: GatePolicy, config: Config) -> GatePolicy:
    """The guard knows the objective; it is on unless the config sets it to null.

    Least within limits asks for no gain over a baseline that breaks them, and on a target that is
    not here no gain in time can be shown.
    """
    off = policy.guard is None and "guard" in policy.model_fields_set
    open_ended = isinstance(config.goal, Constrained) or not config.target.is_here
    if off or (policy.guard is None and open_ended):
        return policy
    guard = policy.guard or Guard()
    if not guard.objective:
        guard = guard.model_copy(update={"objective": weights_of(config.goal)})
    return policy.model_copy(update={"guard": guard})


def _check_evaluation(
    settings: EvaluationSettings, metrics: set[str], model: ModelInfo, rows: Dataset
) -> None:
    """Refuses an operating point, costs or slices that do not fit the model or the rows."""
    if settings.operating_point is not None and model.task != "binary":
        raise InvalidInput(
            f"a {model.task} model has no threshold",
            key="evaluation.operating_point",
            mend="remove it",
        )
    costs = settings.matrix()
    if costs is not None and len(costs) != len(model.labels):
        has = f"{len(model.labels)} classes" if model.labels else "no classes"
        raise InvalidInput(
            f"are for {len(costs)} classes, and the model has {has}", key="evaluation.costs"
        )
    if "cost" in metrics and costs is None:
        raise InvalidInput(
            "the metric cost needs to know what each mistake costs",
            key="evaluation.costs",
            mend="add {false_positive: 1, false_negative: 20}",
        )
    shape = (len(rows), len(model.labels)) if model.labels else (len(rows),)
    import numpy as np

    slice_rows(settings.slices, {**rows.features, **rows.beside}, np.zeros(shape))


def model_digest(source: ModelSource) -> str:
    """SHA-256 of the model file (or files), and of its builder's source where it has one."""
    import importlib.util

    if is_published(source.path):
        return read(source.path).digest.removeprefix("sha256:")
    if source.path.is_dir():
        return files_digest(folder_files(source.path))
    digest = file_sha256(source.path)
    if source.builder:
        spec = importlib.util.find_spec(source.builder.partition(":")[0])
        if spec is not None and spec.origin is not None:
            digest = hashlib.sha256((digest + file_sha256(Path(spec.origin))).encode()).hexdigest()
    return digest


def _default_policy(
    metric: str, model: ModelInfo, validation: Dataset, directory: Path
) -> GatePolicy:
    if spec(metric).bounded or higher_is_better(metric):
        return default_policy(metric)
    from trimgate import runtimes

    session = runtimes.load(directory)
    try:
        scores = runtimes.predict(session, validation)
    finally:
        session.close()
    value = compute(metric, validation.labels, scores, model.labels)
    return default_policy(metric, baseline_value=value)


def _suited(policy: GatePolicy, config: Config, metric: str) -> GatePolicy:
    """The default rules ask for speed only where speed is wanted and measured for the target."""
    goal = config.goal
    changes: dict[str, object] = {}
    if isinstance(goal, Constrained):
        changes["min_speedup"] = None
        if "drop" in goal.subject_to:
            changes["max_drop"] = {**policy.max_drop, metric: goal.subject_to["drop"]}
    if not config.target.is_here:
        changes |= {"min_speedup": None, "max_size_ratio": 1.0}
    return policy.model_copy(update=changes)


def _policy_metrics(policy: GatePolicy) -> list[tuple[str, str]]:
    return [
        *((f"gate.max_drop.{name}", name) for name in policy.max_drop),
        *((f"gate.min.{name}", name) for name in policy.min),
        *(("gate.calibration", name) for name in policy.metrics - {*policy.max_drop, *policy.min}),
    ]


def _check_metrics(wanted: Sequence[tuple[str, str]], task: Task) -> None:
    for key, name in wanted:
        if name not in names(task):
            raise InvalidInput(
                f"this metric is not for a {task} task",
                key=key,
                value=name,
                mend=f"use one of {', '.join(names(task))}",
            )


def local_inputs(config: Config) -> dict[str, str]:
    """The files that the config names, by key."""
    paths = {f"data.{key}": getattr(config.data, key) for key in DATA_PATHS}
    return {"model.path": config.model.path, **{k: v for k, v in paths.items() if v is not None}}


def data_files(config: Config) -> list[Path]:
    """The data files: one to divide, or train, validation and test."""
    return [Path(path) for key in DATA_PATHS if (path := getattr(config.data, key)) is not None]


def files_digest(files: Sequence[Path]) -> str:
    """SHA-256 over the SHA-256 of each file, in order."""
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def load_data(config: Config) -> Division:
    """Reads, divides and checks the rows as the config says.

    Where the config does not say the task, the model is asked.
    """
    files = data_files(config)
    split = config.data.split

    def is_regression(rows: Division) -> bool:
        if config.model.task:
            return config.model.task == "regression"
        few = rows.take({"train": sample_rows(rows.labels("train"))})["train"]
        with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
            info = import_model(model_source(config), few, Path(folder, "model"))
        return info.task == "regression"

    return divide(
        files[0] if len(files) == 1 else (files[0], files[1], files[2]),
        label=config.data.label,
        drop=config.data.drop,
        keep=config.evaluation.columns,
        method=split.method if split else "stratified",
        by=split.by if split else None,
        validation=split.validation if split else 0.2,
        test=split.test if split else 0.2,
        overlap=config.data.overlap,
        regression=is_regression,
        seed=config.seed,
    )


def sample(rows: Dataset) -> Dataset:
    """The rows of `sample_rows`."""
    return rows.take(sample_rows(rows.labels))


def sample_rows(labels: Array) -> Array:
    """Two thousand rows that a model is tried on, and among them every class (up to a hundred).

    Args:
        labels: `(rows,)`.

    Returns:
        Their positions, ascending.
    """
    import numpy as np

    _, first = np.unique(comparable(labels), return_index=True)
    return np.union1d(spread_rows(len(labels), 2000), first[:100])


def model_source(config: Config) -> ModelSource:
    """The model section as the models package takes it."""
    section = config.model
    return ModelSource(
        path=Path(section.path),
        name=config.name,
        builder=section.builder,
        builder_arguments=section.builder_arguments,
        allow_pickle=section.allow_pickle,
        task=section.task,
        scores=section.scores,
    )


def onnx_refusal(model: ModelInfo, rows: Dataset, directory: Path) -> str | None:
    """Why a scikit-learn model has no ONNX form, or None.

    Whether a step can be converted does not depend on the number of trees, so that an ensemble
    is tried with a single one. Whether both say the same is for the run to find out.
    """
    if model.framework != "sklearn":
        return None
    from trimgate.models import export_onnx, load_trainable
    from trimgate.models.export import Tolerance
    from trimgate.techniques.prune import find_ensemble

    estimator = load_trainable(directory, model)
    with contextlib.suppress(NotApplicable):
        estimator = find_ensemble(estimator, model).cut(1)
    anything = Tolerance(score=float("inf"), rows=0.0, labels=0.0)
    try:
        with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
            export_onnx(estimator, model, rows, Path(folder, "model.onnx"), tolerance=anything)
    except NotApplicable as error:
        return error.problem
    return None


def check_rows(model: ModelInfo, rows: Division, directory: Path) -> None:
    """Tries the model on rows with missing or infinite values, if there are any.

    Raises:
        InvalidInput: The model cannot take them; the message names a column.
    """
    if model.tokenizer is not None:
        _check_texts(model.tokenizer.feature, rows)
        return
    import numpy as np

    from trimgate import runtimes

    counts: Counter[tuple[str, str]] = Counter()
    problems: dict[tuple[str, str], str] = {}
    session = runtimes.load(directory)
    try:
        for name, part in rows.parts():
            for column, values in part.features.items():
                if values.dtype.kind != "f":
                    continue
                odd, where = np.flatnonzero(missing(values)), (name, column)
                untried = max(0, 16 - counts[where])
                counts[where] += len(odd)
                if len(odd) and untried and where not in problems:
                    problem = _problem(session, model, part.take(odd[:untried]))
                    if problem is not None:
                        problems[where] = problem
    finally:
        session.close()
    for name, column in itertools.product(NAMES, rows.features):
        if (name, column) in problems:
            raise InvalidInput(
                f"{counts[name, column]} of {rows.rows(name)} {name} rows have missing or infinite "
                f"values in the column {column!r}, and the model {problems[name, column]}",
                key="data",
                mend="remove those rows, or bring a pipeline that imputes",
            )


def _problem(session: "Session", model: ModelInfo, rows: Dataset) -> str | None:
    import numpy as np

    from trimgate.models import build_inputs

    try:
        scores = session.predict(build_inputs(model, rows.features))
    except (ValueError, TypeError, NotApplicable) as error:
        return f"cannot take them ({str(error).splitlines()[0]})"
    return None if np.isfinite(scores).all() else "gives no finite score for them"


def _check_texts(column: str, rows: Division) -> None:
    counts: Counter[str] = Counter()
    for name, part in rows.parts():
        counts[name] += int(missing(part.features[column]).sum())
    for name in NAMES:
        if counts[name]:
            raise InvalidInput(
                f"{counts[name]} of {rows.rows(name)} {name} rows have no text in the column "
                f"{column!r}",
                key="data",
                mend="remove those rows",
            )
