"""What a model makes of its features: embedded methods."""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import MissingExtra, NotApplicable
from trimgate.models import sample_rows
from trimgate.models.directory import ModelInfo
from trimgate.techniques.select_features._learners import Learner
from trimgate.training import encoded, estimator_table, folds

_ROWS = 20_000
_CELLS = 2_000_000
_REPEATS = 2
_RARE = 500
_FOLDS = 3
_SHAP_ROWS = 500
_TRACED_ROWS = 200
_L1_ROWS = 5_000
_STRENGTHS = 8


def loss(info: ModelInfo, labels: Array, scores: Array, weights: Array | None = None) -> float:
    """Log loss, or squared error for regression: unlike accuracy they move with every row."""
    if info.task == "regression":
        return float(np.average((scores - labels.astype(np.float64)) ** 2, weights=weights))
    positions = {label: position for position, label in enumerate(info.labels)}
    index = np.array([positions[label] for label in labels.tolist()])
    chosen = scores[np.arange(len(index)), index].astype(np.float64)
    return float(np.average(-np.log(np.clip(chosen, 1e-7, 1.0)), weights=weights))


def permutation(
    learner: Learner, rows: Dataset, names: Sequence[str], seed: int
) -> dict[str, float]:
    """Rise of the loss when the values of one feature are shuffled among rows new to the model.

    Three models of the same kind each learn from two thirds of the training rows and are asked
    on the rest, so that the validation rows, on which the number of features is chosen, play no
    part. A torch module is not trained from nothing; it is asked as it is.

    Source: Breiman (2001), doi:10.1023/A:1010933404324.

    Args:
        learner: Of the model.
        rows: Training rows; at most 20,000 of them are shuffled, fewer for wide tables.
        names: The features to look at.
        seed: Of the folds and the shuffling.

    Returns:
        By feature; 0 or less means that the model does as well without it.
    """
    pairs = folds(rows, _FOLDS, seed) if learner.anew else [(rows, rows)]

    def rises(rest: Dataset, held: Dataset) -> Array:
        model = learner.fit(names, rest) if learner.anew else learner.model
        found = shuffled_rises(learner, model, held, names, seed, len(pairs))
        return np.array([found[name] for name in names])

    total = np.zeros(len(names))
    for number, (rest, held) in enumerate(pairs):
        found = learner.memory.recall(
            f"rises-{number}", names, functools.partial(rises, rest, held)
        )
        total += found / len(pairs)
    return dict(zip(names, total.tolist(), strict=True))


def shuffled_rises(
    learner: Learner, model: Any, rows: Dataset, names: Sequence[str], seed: int, parts: int = 1
) -> dict[str, float]:
    """Rise of the loss of one model when the values of one feature are shuffled.

    Args:
        learner: Knows how to ask the model.
        model: What is asked.
        rows: Where; a sample of them is used.
        names: The features to look at.
        seed: Of the shuffling.
        parts: How many calls share the work.
    """
    most = min(_ROWS, max(2_000, _CELLS // max(1, len(names)))) // parts
    rows, weights = _sampled(rows, max(most, 500))
    generator = np.random.default_rng(seed)
    info = learner.info
    base = loss(info, rows.labels, learner.scores(model, rows), weights)
    found = {}
    for name in names:
        rises = []
        for _ in range(_REPEATS if parts == 1 else 1):
            shuffled = rows.features[name][generator.permutation(len(rows))]
            changed = Dataset({**rows.features, name: shuffled}, rows.labels)
            after = loss(info, rows.labels, learner.scores(model, changed), weights)
            rises.append(after - base)
        found[name] = float(np.mean(rises))
    return found


def _sampled(rows: Dataset, most: int) -> tuple[Dataset, Array]:
    """About so many rows with what each stands for; up to 500 of a rare class stay."""
    if len(rows) <= most or rows.labels.dtype.kind == "f":
        few = sample_rows(rows, most)
        return few, np.ones(len(few))
    chosen, weights = [], []
    for label in np.unique(rows.labels.astype(str) if rows.labels.dtype == object else rows.labels):
        places = np.flatnonzero(rows.labels == label)
        number = min(len(places), max(_RARE, round(most * len(places) / len(rows))))
        chosen.append(places[np.linspace(0, len(places) - 1, number).astype(np.int64)])
        weights.append(np.full(number, len(places) / number))
    order = np.argsort(np.concatenate(chosen), kind="stable")
    return rows.take(np.concatenate(chosen)[order]), np.concatenate(weights)[order]


def model_importance(learner: Learner, rows: Dataset, names: Sequence[str]) -> dict[str, float]:
    """The model's own importances.

    Total gain of boosters, `feature_importances_`, or absolute coefficients times the standard
    deviation of what they weigh; the columns that a pipeline makes of one feature count together.

    Args:
        learner: Of the model.
        rows: Training rows.
        names: The features to look at.

    Raises:
        NotApplicable: The model has none, or they are not about the original features.
    """
    model, info = learner.model, learner.info
    if info.framework == "xgboost":
        columns = [feature for spec in info.inputs for feature in spec.features]
        known = model.feature_names or [f"f{i}" for i in range(len(columns))]
        gains = model.get_score(importance_type="total_gain")
        named = dict(zip(columns, known, strict=True))
        return {name: float(gains.get(named[name], 0.0)) for name in names}
    if info.framework == "lightgbm":
        gain = model.feature_importance("gain")
        columns = [feature for spec in info.inputs for feature in spec.features]
        named = dict(zip(columns, gain.tolist(), strict=True))
        return {name: float(named[name]) for name in names}
    last, matrix, owners = _last_step(learner, rows, names)
    if hasattr(last, "feature_importances_"):
        values = np.asarray(last.feature_importances_, dtype=np.float64)
    elif hasattr(last, "coef_"):
        values = np.abs(np.atleast_2d(last.coef_)).mean(axis=0) * matrix.std(axis=0)
    else:
        raise NotApplicable(
            f"{type(last).__name__} has no importances of its own",
            key="select_features.method",
            value="model",
            mend="use permutation",
        )
    return _by_owner(values, owners, names)


def shap_importance(learner: Learner, rows: Dataset, names: Sequence[str]) -> dict[str, float]:
    """Mean absolute SHAP value of each feature, over rows and classes.

    XGBoost and LightGBM compute theirs exactly by themselves; other tree ensembles take the
    package shap (TreeExplainer, Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9); for linear
    models they are the coefficients times the distance from the mean.

    Args:
        learner: Of the model.
        rows: Training rows; at most 500 of them are used.
        names: The features to look at.

    Raises:
        NotApplicable: The model is neither, or a step before it mixes features.
        MissingExtra: The package shap is needed and not there.
    """
    rows = sample_rows(rows, _SHAP_ROWS)
    model, info = learner.model, learner.info
    if info.framework in ("xgboost", "lightgbm"):
        matrix = np.asarray(estimator_table(model, info, rows))
        columns = [feature for spec in info.inputs for feature in spec.features]
        found = dict(zip(columns, _booster_contributions(model, matrix).tolist(), strict=True))
        return {name: float(found[name]) for name in names}
    last, matrix, owners = _last_step(learner, rows, names)
    if hasattr(last, "get_booster") or hasattr(last, "booster_"):
        booster = last.get_booster() if hasattr(last, "get_booster") else last.booster_
        values = _booster_contributions(booster, matrix)
    elif hasattr(last, "coef_"):
        away = np.abs(matrix - matrix.mean(axis=0)).mean(axis=0)
        values = np.abs(np.atleast_2d(last.coef_)).mean(axis=0) * away
    else:
        values = _tree_contributions(last, matrix)
    return _by_owner(values, owners, names)


def l1_importance(
    info: ModelInfo, rows: Dataset, names: Sequence[str], seed: int
) -> dict[str, float]:
    """How early and how strongly a feature enters a linear model as its L1 penalty falls.

    Logistic regressions (one class against the others) or a lasso on the encoded table, from the
    penalty that allows nothing down to a thousandth of it; the share of all coefficients that is
    the feature's, averaged over the path (Tibshirani, 1996).

    Args:
        info: The model's record, for the task.
        rows: Training rows; at most 5,000 of them are used.
        names: The features to look at.
        seed: Of the solver.
    """
    rows = sample_rows(rows, _L1_ROWS)
    matrix, owners = encoded(rows, names)
    if info.task == "regression":
        from sklearn.linear_model import lasso_path

        centred = rows.labels.astype(np.float64) - rows.labels.mean()
        paths = np.abs(lasso_path(matrix, centred, alphas=_STRENGTHS, eps=1e-3)[1]).T
    else:
        paths = sum(
            _logistic_path(matrix, rows.labels == label, seed)
            for label in (info.labels[1:] if len(info.labels) == 2 else info.labels)
        )
    sizes = np.column_stack([paths[:, owners == i].sum(axis=1) for i in range(len(names))])
    total = sizes.sum(axis=1, keepdims=True)
    shares = sizes / np.where(total > 0, total, 1.0)
    return {name: float(v) for name, v in zip(names, shares.mean(axis=0), strict=True)}


def _logistic_path(matrix: Array, hits: Array, seed: int) -> Array:
    """Absolute coefficients `(strengths, columns)`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import l1_min_c

    weakest = l1_min_c(matrix, hits, loss="log")
    paths = []
    for factor in np.logspace(0.1, 3, _STRENGTHS):
        model = LogisticRegression(
            penalty="l1", solver="liblinear", C=weakest * factor, random_state=seed, tol=1e-3
        )
        with warnings.catch_warnings():
            # scikit-learn is about to rename the parameter, and a rough fit ranks as well
            warnings.simplefilter("ignore")
            paths.append(np.abs(model.fit(matrix, hits).coef_[0]))
    return np.array(paths)


def _booster_contributions(booster: Any, matrix: Array) -> Array:
    """Mean absolute contributions `(columns,)`, which XGBoost and LightGBM compute exactly."""
    width = matrix.shape[1]
    if hasattr(booster, "num_boosted_rounds"):
        import xgboost

        data = xgboost.DMatrix(matrix.astype(np.float32), feature_names=booster.feature_names)
        values = np.asarray(booster.predict(data, pred_contribs=True))
    else:
        values = np.asarray(booster.predict(matrix, pred_contrib=True))
    # the last one of each class is the constant
    apart = np.abs(values.reshape(len(matrix), -1, width + 1)[..., :width])
    return np.asarray(apart.mean(axis=(0, 1)))


def _tree_contributions(estimator: Any, matrix: Array) -> Array:
    try:
        import shap
    except ImportError as error:
        raise MissingExtra("shap", "features") from error
    try:
        explainer = shap.TreeExplainer(estimator, feature_perturbation="tree_path_dependent")
        values = np.asarray(explainer.shap_values(matrix, check_additivity=False))
    # shap raises whatever its loaders meet: TypeError, AttributeError, its own
    except Exception as error:
        raise NotApplicable(
            f"{type(estimator).__name__} has no exact SHAP values (shap: "
            f"{(str(error).splitlines() or [type(error).__name__])[0][:160]})",
            key="select_features.method",
            value="shap",
            mend="use permutation",
        ) from error
    # (rows, columns), or with a last axis of classes
    values = np.abs(values).mean(axis=0)
    return np.asarray(values.mean(axis=-1) if values.ndim == 2 else values, dtype=np.float64)


def _last_step(learner: Learner, rows: Dataset, names: Sequence[str]) -> tuple[Any, Array, Array]:
    """The estimator that ends a pipeline, the matrix it gets, and whose feature each column is.

    Found by trying: a feature's values are shuffled, and the columns that move are its own.

    Raises:
        NotApplicable: A column is made of several features.
    """
    model, info = learner.model, learner.info
    rows = sample_rows(rows, _SHAP_ROWS)
    steps = getattr(model, "steps", [("model", model)])

    def matrix_of(some: Dataset) -> Array:
        table = estimator_table(model, info, some)
        with warnings.catch_warnings():
            # unknown categories that the user's encoder was told to ignore
            warnings.simplefilter("ignore")
            found = model[:-1].transform(table) if len(steps) > 1 else table
        dense = found.toarray() if hasattr(found, "toarray") else found
        return np.asarray(dense, dtype=np.float64)

    few = sample_rows(rows, _TRACED_ROWS)
    before = matrix_of(few)
    owners = np.full(before.shape[1], -1, dtype=np.int64)
    order = np.random.default_rng(0).permutation(len(few))
    for position, name in enumerate(names):
        shuffled = few.features[name][order]
        after = matrix_of(Dataset({**few.features, name: shuffled}, few.labels))
        moved = ~((before == after) | (np.isnan(before) & np.isnan(after))).all(axis=0)
        if (owners[moved] >= 0).any():
            raise NotApplicable(
                "a step of the pipeline mixes features, so what its last step says of its columns "
                "says nothing of them",
                key="select_features.method",
                mend="use permutation",
            )
        owners[moved] = position
    return steps[-1][1], matrix_of(rows), owners


def _by_owner(values: Array, owners: Array, names: Sequence[str]) -> dict[str, float]:
    return {name: float(np.sum(values[owners == i])) for i, name in enumerate(names)}
