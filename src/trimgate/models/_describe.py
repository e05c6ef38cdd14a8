"""What a user's model is: task, family, labels, kind of scores, inputs."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.models._inputs import table_inputs
from trimgate.models._match import (
    array_inputs,
    booster_names,
    labels_of,
    match_features,
    sample_labels,
    some,
    task_of,
)
from trimgate.models.directory import Family, ModelInfo, ScoreKind, Task
from trimgate.models.source import ModelSource

Array = NDArray[Any]

_TREES = (
    "DecisionTree",
    "ExtraTree",
    "RandomForest",
    "GradientBoosting",
    "XGB",
    "LGBM",
    "AdaBoost",
)


def describe(model: Any, source: ModelSource, sample: Dataset) -> tuple[Any, ModelInfo]:
    """Finds out all that `model.json` says of a trainable model.

    Args:
        model: What `load_user_model` gave.
        source: What the user says about it.
        sample: Rows that it shall work on.

    Returns:
        The model in the form that is kept (boosters without their scikit-learn wrapper, the best
        estimator of a search), and its record.

    Raises:
        InvalidInput: It is of no kind that trimgate knows, or does not fit the data.
    """
    kind = type(model).__module__.split(".")[0]
    if kind == "xgboost" and type(model).__name__ == "Booster":
        return _xgboost(model, source, sample, None)
    if kind == "lightgbm" and type(model).__name__ == "Booster":
        return _lightgbm(model, source, sample, None)
    if source.path.is_dir():
        from trimgate.models._text import describe_folder

        return model, describe_folder(model, source, sample)
    if _is_module(model):
        return model, _torch(source, sample)
    return _sklearn(model, source, sample)


def _sklearn(model: Any, source: ModelSource, sample: Dataset) -> tuple[Any, ModelInfo]:
    from sklearn.base import BaseEstimator, is_classifier, is_regressor
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(model, BaseEstimator):
        raise InvalidInput(
            f"holds a {type(model).__name__}, and not a model",
            file=source.path,
            mend="give a scikit-learn estimator or pipeline",
        )
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise InvalidInput("the model is not fitted", file=source.path) from error
    model = getattr(model, "best_estimator_", model)
    labels = _classes(model, source) if is_classifier(model) else ()
    if type(model).__name__ in (
        "XGBClassifier",
        "XGBRegressor",
        "XGBRFClassifier",
        "XGBRFRegressor",
    ):
        booster, info = _xgboost(model.get_booster(), source, sample, labels)
        notes = {**info.notes, "hyperparameters": _hyperparameters(model)}
        return booster, info.model_copy(update={"notes": notes})
    if type(model).__name__ in ("LGBMClassifier", "LGBMRegressor"):
        return _lightgbm(model.booster_, source, sample, labels)
    if is_classifier(model):
        task: Task = "binary" if len(labels) == 2 else "multiclass"
        kind: ScoreKind = "label"
        if _has(model, "predict_proba"):
            kind = "probability"
        elif _has(model, "decision_function"):
            kind = "logit"
    elif is_regressor(model):
        task, kind = "regression", "value"
    else:
        raise InvalidInput(
            f"{type(model).__name__} is neither a classifier nor a regressor", file=source.path
        )
    names = getattr(model, "feature_names_in_", None)
    count = getattr(model, "n_features_in_", None)
    ordered = match_features(sample, None if names is None else list(names), count, source)
    return model, _info(source, sample, "sklearn", task, kind, labels, _family(model), ordered)


def _xgboost(
    booster: Any, source: ModelSource, sample: Dataset, labels: tuple[Any, ...] | None
) -> tuple[Any, ModelInfo]:
    import json

    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    known: dict[str, tuple[Task, ScoreKind]] = {
        "binary:logistic": ("binary", "probability"),
        "binary:logitraw": ("binary", "logit"),
        "multi:softprob": ("multiclass", "probability"),
        "multi:softmax": ("multiclass", "logit"),
    }
    if objective in known:
        task, kind = known[objective]
    elif objective.split(":")[0] == "reg" or objective in ("count:poisson",):
        task, kind = "regression", "value"
    else:
        raise InvalidInput(
            "trimgate optimizes classifiers and regressors",
            file=source.path,
            key="objective",
            value=objective,
        )
    if learner["gradient_booster"]["name"] == "gblinear":
        raise InvalidInput(
            "the booster gblinear is not supported",
            file=source.path,
            key="booster",
            value="gblinear",
            mend="train the linear model with scikit-learn",
        )
    if "c" in (booster.feature_types or []):
        raise InvalidInput(
            "was trained on pandas categories, which rows of a request do not carry",
            file=source.path,
            key="feature_types",
            value="c",
            mend="encode them in a scikit-learn pipeline (OrdinalEncoder) before XGBoost",
        )
    best = booster.attr("best_iteration")
    if best is not None and int(best) + 1 < booster.num_boosted_rounds():
        booster = booster[: int(best) + 1]  # what the scikit-learn wrapper predicts with
    count = booster.num_features()
    ordered = match_features(sample, booster_names(booster), count, source)
    classes = int(learner["learner_model_param"]["num_class"]) or 2
    labels = labels_of(task, classes, labels, sample, source)
    info = _info(source, sample, "xgboost", task, kind, labels, "trees", ordered, "float32")
    return booster, info


def _hyperparameters(model: Any) -> dict[str, Any]:
    """What an XGBoost estimator was trained with; its booster's file does not say that.

    Left out is what does not shape the trees: the machine's threads and device, and objects.
    """
    apart = ("missing", "n_jobs", "nthread", "device", "verbosity")
    return {
        name: value
        for name, value in model.get_xgb_params().items()
        if name not in apart and isinstance(value, (bool, int, float, str))
    }


def _lightgbm(
    booster: Any, source: ModelSource, sample: Dataset, labels: tuple[Any, ...] | None
) -> tuple[Any, ModelInfo]:
    found = re.search(r"^objective=(\w+)", booster.model_to_string(num_iteration=1), re.MULTILINE)
    objective = found.group(1) if found else "unknown"
    if objective in ("binary", "cross_entropy"):
        task: Task = "binary"
        kind: ScoreKind = "probability"
    elif objective in ("multiclass", "multiclassova"):
        task, kind = "multiclass", "probability"
    elif objective in (
        "regression",
        "regression_l1",
        "huber",
        "fair",
        "poisson",
        "quantile",
        "mape",
        "gamma",
        "tweedie",
    ):
        task, kind = "regression", "value"
    else:
        raise InvalidInput(
            "trimgate optimizes classifiers and regressors",
            file=source.path,
            key="objective",
            value=objective,
        )
    if booster.pandas_categorical:
        raise InvalidInput(
            "was trained on pandas categories, which rows of a request do not carry",
            file=source.path,
            key="pandas_categorical",
            mend="encode them in a scikit-learn pipeline (OrdinalEncoder) before LightGBM",
        )
    names = booster_names(booster)
    if names is not None:
        # LightGBM writes spaces in names as underscores
        written = {re.sub(r"\s", "_", name): name for name in sample.features}
        names = [written.get(name, name) for name in names]
    ordered = match_features(sample, names, booster.num_feature(), source)
    classes = max(booster.num_model_per_iteration(), 2)
    labels = labels_of(task, classes, labels, sample, source)
    return booster, _info(source, sample, "lightgbm", task, kind, labels, "trees", ordered)


def _torch(source: ModelSource, sample: Dataset) -> ModelInfo:
    task = source.task or task_of(sample)
    kind: ScoreKind = "value" if task == "regression" else (source.scores or "logit")
    labels = () if task == "regression" else sample_labels(sample)
    names = tuple(sample.features)
    if sample.is_table:
        inputs = table_inputs(sample, names, "float32")
        if inputs[0].dtype == "string" or len(inputs) > 1:
            text = [n for n in names if sample.features[n].dtype == object]
            raise InvalidInput("a torch module cannot take text", key=", ".join(text[:10]))
    else:
        inputs = array_inputs(sample, "float32")
    return ModelInfo(
        name=source.name or source.path.stem,
        task=task,
        family="other",
        framework="torch",
        inputs=inputs,
        score_kind=kind,
        labels=labels,
        features=names,
        builder=source.builder,
        builder_arguments=source.builder_arguments,
    )


def _info(
    source: ModelSource,
    sample: Dataset,
    framework: Any,
    task: Task,
    kind: ScoreKind,
    labels: tuple[Any, ...],
    family: Family,
    ordered: list[str],
    dtype: str = "float64",
) -> ModelInfo:
    if source.task is not None and source.task != task:
        raise InvalidInput(
            f"the model is made for {task}", file=source.path, key="model.task", value=source.task
        )
    if task != "regression":
        strange = [label for label in sample_labels(sample) if label not in labels]
        if strange:
            raise InvalidInput(
                f"the data has labels that the model does not know ({some(strange)}); it knows "
                f"{some(labels)}",
                file=source.path,
                mend="give the label column that the model was trained on",
            )
    if sample.is_table:
        inputs = table_inputs(sample, ordered, dtype)
    else:
        inputs = array_inputs(sample, dtype)
    return ModelInfo(
        name=source.name or source.path.stem,
        task=task,
        family=family,
        framework=framework,
        inputs=inputs,
        score_kind=kind,
        labels=labels,
        features=tuple(sample.features),
    )


def _classes(model: Any, source: ModelSource) -> tuple[Any, ...]:
    classes = model.classes_
    if isinstance(classes, list):
        raise InvalidInput("predicts several targets at once", file=source.path)
    return tuple(np.asarray(classes).tolist())


def _family(model: Any) -> Family:
    steps = getattr(model, "steps", None)
    last = steps[-1][1] if steps else model
    name, module = type(last).__name__, type(last).__module__
    if name.startswith((*_TREES, "Hist")):
        return "trees"
    if module.startswith("sklearn.linear_model") or name in ("LinearSVC", "LinearSVR"):
        return "linear"
    return "mlp" if module.startswith("sklearn.neural_network") else "other"


def _is_module(model: Any) -> bool:
    return any(c.__module__.startswith("torch.nn.modules") for c in type(model).__mro__)


def _has(model: Any, method: str) -> bool:
    return callable(getattr(model, method, None))
