"""Students of models of tables: an estimator of scikit-learn behind the teacher's preprocessing."""

import copy
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import build_inputs, predict_native, sample_rows, to_scores
from trimgate.models._import import probe
from trimgate.models.directory import Family, ModelInfo, TensorSpec
from trimgate.techniques._base import Context
from trimgate.techniques.distill._compare import compare
from trimgate.techniques.distill._config import DistillConfig
from trimgate.techniques.distill._rows import join, mixed, read_unlabeled, synthetic, truth_of
from trimgate.training import check_classes, estimator_table, seeded_clone

_log = logging.getLogger("trimgate.techniques.distill")

_LEAST = 1e-3  # a class that the teacher gives less than that is left out of a row
# Those that a table with gaps must be filled for, and those that need like scales.
_SCALED = ("logistic_regression", "ridge", "mlp")
_GAPS = ("hist_gradient_boosting", "same")


@dataclass(frozen=True)
class Kind:
    """An estimator of scikit-learn that can be a student.

    Attributes:
        classifier, regressor: Its class; None where there is none.
        defaults: Parameters other than the class's own.
        family: What a model of it is.
    """

    classifier: str | None
    regressor: str | None
    defaults: Mapping[str, Any]
    family: Family = "trees"


def _pair(stem: str, defaults: Mapping[str, Any], family: Family = "trees") -> Kind:
    return Kind(f"sklearn.{stem}Classifier", f"sklearn.{stem}Regressor", defaults, family)


KINDS: dict[str, Kind] = {
    # early stopping would divide the copies of a row
    "hist_gradient_boosting": _pair("ensemble.HistGradientBoosting", {"early_stopping": False}),
    "random_forest": _pair("ensemble.RandomForest", {"n_estimators": 30, "min_samples_leaf": 5}),
    "gradient_boosting": _pair("ensemble.GradientBoosting", {}),
    "decision_tree": _pair("tree.DecisionTree", {"max_depth": 8}),
    "logistic_regression": Kind(
        "sklearn.linear_model.LogisticRegression", None, {"max_iter": 1000}, "linear"
    ),
    "ridge": Kind(None, "sklearn.linear_model.Ridge", {}, "linear"),
    "mlp": _pair("neural_network.MLP", {"hidden_layer_sizes": (64,)}, "mlp"),
}


def distill_estimator(
    teacher: Any, info: ModelInfo, config: DistillConfig, context: Context
) -> tuple[Any, ModelInfo, dict[str, Any]]:
    """Fits a student on what the teacher says, and the control on labels alone.

    A classifier learns each row once for each class, weighted by the class's probability: for a
    log loss that is the gradient of the teacher's probabilities.

    Args:
        teacher: The fitted model.
        info: Its record.
        config: The step's parameters.
        context: Rows, metric, seed.

    Returns:
        The student or the control, the record with what it changes, and the notes.

    Raises:
        NotApplicable: The student cannot stand behind the teacher's preprocessing.
    """
    check_classes(info, context.train)
    used = [feature for spec in info.inputs for feature in spec.features]
    parts = [context.train]
    if config.unlabeled is not None:
        parts.append(read_unlabeled(config.unlabeled, info, context.train))
    if config.augment:
        seen = [name for name in used if name not in info.unused_features]
        made = context.share_of(config.augment)
        parts.append(synthetic(context.train, seen, made, context.seed))
    rows = join(parts, used)
    answers = scores_of(teacher, info, rows)
    table = _table(teacher, info, rows)
    before = _preprocessing(teacher, info, config, context.seed)
    for _, step in before:
        table = step.transform(table)
    matrix = _dense(table, config)
    labelled = len(context.train)
    own = _own_steps(config, matrix)
    for _, step in own:
        matrix = step.fit(matrix[:labelled]).transform(matrix)
    truth = truth_of(info, context.train)
    soft = mixed(answers[:labelled], truth, config.loss)
    if config.loss.logits:
        soft = np.concatenate([soft, answers[labelled:]])

    def assembled(targets: Array, rounds: float) -> Any:
        estimator = _unfitted(teacher, info, config, context.seed)
        if rounds > 1 and config.student.estimator == "mlp":
            # as many steps of the optimizer as the student, which has more rows
            estimator.set_params(max_iter=round(estimator.max_iter * rounds))
        _fit(estimator, matrix[: len(targets)], targets, info, context)
        steps = [*before, *own, ("student", estimator)]
        if len(steps) == 1:
            return estimator
        from sklearn.pipeline import Pipeline

        return Pipeline(steps)

    _log.info("student on %d rows, control on %d", len(soft), labelled)
    student = assembled(soft, 1.0)
    control = assembled(truth, _copies(soft) / _copies(truth))
    changed = _record(info, config)
    judged = compare(
        scores_of(teacher, info, context.validation),
        scores_of(student, changed, context.validation),
        scores_of(control, changed, context.validation),
        info, config, context,
    )  # fmt: skip
    kept = student if judged.keeps_student else control
    notes = {
        "estimator": config.student.estimator,
        "unlabeled_rows": len(parts[1]) if config.unlabeled else 0,
        "synthetic_rows": len(parts[-1]) if config.augment else 0,
        **judged.notes,
    }
    return kept, _probed(kept, changed, context.train), notes


def scores_of(model: Any, info: ModelInfo, rows: Dataset) -> Array:
    """Scores of any model on rows, `(rows, classes)` or `(rows,)`."""
    return to_scores(predict_native(model, info, build_inputs(info, rows.features)), info)


def _record(info: ModelInfo, config: DistillConfig) -> ModelInfo:
    name = str(config.student.estimator)
    return info.model_copy(
        update={
            "framework": "sklearn",
            "family": KINDS[name].family if name in KINDS else info.family,
            "score_kind": "value" if info.task == "regression" else "probability",
            "builder": None,
            "builder_arguments": {},
        }
    )


def _probed(model: Any, info: ModelInfo, rows: Dataset) -> ModelInfo:
    """The record with the features in which the student, or its teacher, takes no gaps."""

    def predict(inputs: Mapping[str, Array]) -> Array:
        return predict_native(model, info, inputs)

    found = probe(info, sample_rows(rows, 1), predict)
    inputs = tuple(_stricter(a, b) for a, b in zip(info.inputs, found, strict=True))
    return info.model_copy(update={"inputs": inputs})


def _stricter(first: TensorSpec, second: TensorSpec) -> TensorSpec:
    update = {
        name: tuple(
            f for f in first.features if f in getattr(first, name) or f in getattr(second, name)
        )
        for name in ("no_nan", "no_inf")
    }
    return first.model_copy(update=update)


def _table(teacher: Any, info: ModelInfo, rows: Dataset) -> Any:
    if info.framework != "torch":
        return estimator_table(teacher, info, rows)
    matrix = next(iter(build_inputs(info, rows.features).values()))
    return matrix.reshape(len(matrix), -1)


def _preprocessing(
    teacher: Any, info: ModelInfo, config: DistillConfig, seed: int
) -> list[tuple[str, Any]]:
    """The fitted steps of the teacher before its own estimator."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    if isinstance(teacher, Pipeline):
        steps = [(n, s) for n, s in teacher.steps[:-1] if s is not None and s != "passthrough"]
        if config.student.estimator == "hist_gradient_boosting":
            return [(name, _without_sparse(copy.deepcopy(step))) for name, step in steps]
        return steps
    if any(spec.dtype == "string" for spec in info.inputs):
        raise NotApplicable(
            f"the teacher takes text columns, and {type(teacher).__name__} prepares them in a way "
            "that a student cannot take over",
            key="distill.student",
            mend="let a pipeline prepare them, with the model as its last step",
        )
    columns = [feature for spec in info.inputs for feature in spec.features]
    if info.framework == "sklearn" or not info.unused_features:
        return []
    kept = [i for i, name in enumerate(columns) if name not in info.unused_features]
    pick = ColumnTransformer(
        [("kept", "passthrough", kept)], remainder="drop", verbose_feature_names_out=False
    )
    return [("kept", pick.fit(np.zeros((1, len(columns)))))]


def _without_sparse(step: Any) -> Any:
    """A fitted step, changed so that it gives dense matrices where it can."""
    if "sparse_output" in getattr(step, "get_params", dict)():
        step.sparse_output = False
    if hasattr(step, "sparse_output_"):
        step.sparse_output_ = False
    inner = [part[1] for part in getattr(step, "transformers_", ())]
    inner += [part[1] for part in getattr(step, "steps", ())]
    inner += [part[1] for part in getattr(step, "transformer_list", ())]
    for part in inner:
        _without_sparse(part)
    return step


def _dense(table: Any, config: DistillConfig) -> Any:
    if _is_sparse(table):
        if config.student.estimator == "hist_gradient_boosting":
            raise NotApplicable(
                "the teacher's preprocessing gives a sparse matrix, which hist_gradient_boosting "
                "cannot take",
                key="distill.student.estimator",
                mend="use random_forest or logistic_regression",
            )
        return table.tocsr()
    return table.to_numpy() if hasattr(table, "to_numpy") else np.asarray(table)


def _is_sparse(table: Any) -> bool:
    return hasattr(table, "tocsr")


def _own_steps(config: DistillConfig, matrix: Any) -> list[tuple[str, Any]]:
    """What the student needs before it that the teacher did not."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import StandardScaler

    steps: list[tuple[str, Any]] = []
    if config.student.estimator not in _GAPS:
        steps.append(("student_impute", SimpleImputer(keep_empty_features=True)))
    if config.student.estimator in _SCALED:
        steps.append(("student_scale", StandardScaler(with_mean=not _is_sparse(matrix))))
    return steps


def _unfitted(teacher: Any, info: ModelInfo, config: DistillConfig, seed: int) -> Any:
    import importlib

    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import has_fit_parameter

    name = str(config.student.estimator)
    # JSON has no tuples
    given = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in config.student.parameters.items()
    }
    if name == "same":
        last = teacher.steps[-1][1] if isinstance(teacher, Pipeline) else teacher
        estimator = seeded_clone(last, seed)
        if not has_fit_parameter(estimator, "sample_weight"):
            raise NotApplicable(
                f"{type(estimator).__name__} takes no weights of rows, and so no probabilities",
                key="distill.student.estimator",
                mend="use hist_gradient_boosting",
            )
    else:
        kind = KINDS[name]
        place = kind.regressor if info.task == "regression" else kind.classifier
        if place is None:
            raise NotApplicable(f"{name} is not for {info.task}", key="distill.student.estimator")
        module, _, class_name = place.rpartition(".")
        estimator = getattr(importlib.import_module(module), class_name)()
        estimator.set_params(**kind.defaults)
        if "random_state" in estimator.get_params():
            estimator.set_params(random_state=seed)
    try:
        return estimator.set_params(**given)
    except ValueError as error:
        raise _wrong(config, error) from error


def _fit(estimator: Any, matrix: Any, targets: Array, info: ModelInfo, context: Context) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # the number of steps is the user's to choose
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            if info.task == "regression":
                estimator.fit(matrix, targets)
                return
            rows, classes = np.nonzero(_shares(targets))
            labels = np.array(info.labels, dtype=context.train.labels.dtype)
            weights = _shares(targets)[rows, classes]
            estimator.fit(matrix[rows], labels[classes], sample_weight=weights)
        except ValueError as error:
            raise InvalidInput(
                f"the student cannot be fitted ({str(error).splitlines()[0]})",
                key="distill.student.parameters",
            ) from error
    if list(estimator.classes_) != list(info.labels):
        raise NotApplicable("the student would order the classes in another way than the teacher")


def _shares(targets: Array) -> Array:
    """Probabilities without the very small ones, as they are to weigh the copies of a row."""
    shares = np.where(targets >= _LEAST, targets, 0.0)
    result: Array = shares / shares.sum(axis=1, keepdims=True)
    return result


def _copies(targets: Array) -> float:
    return float(np.count_nonzero(_shares(targets))) if targets.ndim == 2 else float(len(targets))


def _wrong(config: DistillConfig, error: Exception) -> InvalidInput:
    return InvalidInput(
        f"{config.student.estimator} does not take them ({str(error).splitlines()[0][:200]})",
        key="distill.student.parameters",
        value=config.student.parameters,
    )
