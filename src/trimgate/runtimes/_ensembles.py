"""Fitted tree ensembles of any library as flat arrays, which a compiled engine can take over.

Notes:
    The engine compares in `float32`: a row goes left when `x <= threshold`. Thresholds are
    rounded so that this decides as the library does. scikit-learn's trees compare `float32` rows,
    for which the largest `float32` not above the threshold is exact (`below`). Where a library
    compares `float64` rows, row and threshold are rounded alike, so that a row that equals its
    threshold still goes left (`alike`); only values that coincide in `float32` cannot be told
    apart any more.
"""

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import NotApplicable

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Link = Literal["identity", "logit", "softmax", "exp"]

_NAMES = {
    "GradientBoostingClassifier",
    "GradientBoostingRegressor",
    "HistGradientBoostingClassifier",
    "HistGradientBoostingRegressor",
    "RandomForestClassifier",
    "RandomForestRegressor",
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
    "DecisionTreeClassifier",
    "DecisionTreeRegressor",
}


@dataclass(frozen=True)
class Tree:
    """One tree; node 0 is the root, and a leaf has `left` = -1.

    Attributes:
        left: Child of each node for `x <= threshold`.
        right: The other child.
        feature: Position of the feature that is compared.
        threshold: See the module's notes.
        missing_left: Whether a missing value goes left.
        value: What a leaf adds to the score.
    """

    left: Integers
    right: Integers
    feature: Integers
    threshold: Floats
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]


@dataclass(frozen=True)
class Ensemble:
    """Trees whose values are summed, and what is done with the sum.

    Attributes:
        features: Number of features of a row.
        groups: The trees of each score: one group, or one for each class.
        link: From the sum to the score. `identity` of a classifier is a probability.
    """

    features: int
    groups: tuple[tuple[Tree, ...], ...]
    link: Link


def ensemble(model: Any) -> Ensemble:
    """Takes a fitted model apart.

    Args:
        model: A scikit-learn, XGBoost or LightGBM estimator, or a Booster of the latter two.

    Raises:
        NotApplicable: It is another kind of model or uses what the engine does not know.
    """
    module, kind = type(model).__module__.split(".")[0], type(model).__name__
    if kind == "Pipeline" and len(model.steps) == 1:
        return ensemble(model.steps[0][1])
    if module == "xgboost":
        return _xgboost(model)
    if module == "lightgbm":
        return _lightgbm(model)
    if module != "sklearn" or kind not in _NAMES:
        raise NotApplicable(f"daal4py compiles tree ensembles only, and this is a {kind}")
    if kind.startswith("Hist"):
        return _hist_gradient_boosting(model)
    if kind.startswith("Gradient"):
        return _gradient_boosting(model)
    return _forest(model)


def below(threshold: NDArray[np.float64]) -> Floats:
    """The largest `float32` that is not above each threshold."""
    with np.errstate(over="ignore"):
        rounded = threshold.astype(np.float32)
    over = rounded.astype(np.float64) > threshold
    return np.where(over, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def alike(threshold: NDArray[np.float64]) -> Floats:
    """The nearest `float32` to each threshold, the lower one if both are as near.

    A threshold half-way between two neighbours was put there to part `float32` values; LightGBM
    then moves it up by the smallest step.
    """
    lower = below(threshold)
    with np.errstate(over="ignore"):
        upper = np.nextafter(lower, np.float32(np.inf))
    middle = lower.astype(np.float64) / 2.0 + upper.astype(np.float64) / 2.0
    return np.where(threshold > np.nextafter(middle, np.inf), upper, lower)


def _forest(model: Any) -> Ensemble:
    members = getattr(model, "estimators_", [model])
    classes = getattr(model, "n_classes_", None)
    if model.n_outputs_ != 1 or (classes is not None and classes != 2):
        raise NotApplicable(
            "daal4py has no random forests for more than two classes or several outputs",
            mend="serve it with onnxruntime",
        )
    trees = []
    for member in members:
        value = member.tree_.value[:, 0, :]
        # For two classes the value is the share of each; the second one is the score.
        leaf = value[:, 0] if classes is None else value[:, 1] / value.sum(axis=1)
        trees.append(_sklearn_tree(member.tree_, leaf / len(members)))
    return Ensemble(model.n_features_in_, (tuple(trees),), "identity")


def _sklearn_tree(tree: Any, value: NDArray[np.float64]) -> Tree:
    missing = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count))
    return Tree(
        left=tree.children_left.astype(np.int64),
        right=tree.children_right.astype(np.int64),
        feature=tree.feature.astype(np.int64),
        threshold=below(tree.threshold),
        missing_left=np.asarray(missing, dtype=bool),
        value=value,
    )


def _gradient_boosting(model: Any) -> Ensemble:
    if type(model.init_).__name__ not in ("DummyClassifier", "DummyRegressor", "str"):
        raise NotApplicable("daal4py cannot run a GradientBoosting model with its own `init`")
    rate, scale = model.learning_rate, 2.0 if model.loss == "exponential" else 1.0
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))[0]
    groups = []
    for column, base in zip(model.estimators_.T, start, strict=True):
        trees = [_sklearn_tree(m.tree_, m.tree_.value[:, 0, 0] * rate * scale) for m in column]
        groups.append(_with_base(trees, float(base) * scale))
    link: Link = "identity"
    if hasattr(model, "classes_"):
        link = "softmax" if len(groups) > 1 else "logit"
    return Ensemble(model.n_features_in_, tuple(groups), link)


def _hist_gradient_boosting(model: Any) -> Ensemble:
    if model.is_categorical_ is not None and np.any(model.is_categorical_):
        raise NotApplicable("daal4py has no categorical splits", mend="serve it with onnxruntime")
    groups = []
    for column, base in zip(
        zip(*model._predictors, strict=True), np.ravel(model._baseline_prediction), strict=True
    ):
        trees = []
        for predictor in column:
            nodes = predictor.nodes
            leaf = nodes["is_leaf"].astype(bool)
            trees.append(
                Tree(
                    left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
                    right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
                    feature=nodes["feature_idx"].astype(np.int64),
                    threshold=alike(nodes["num_threshold"]),
                    missing_left=nodes["missing_go_to_left"].astype(bool),
                    value=nodes["value"].astype(np.float64),
                )
            )
        groups.append(_with_base(trees, float(base)))
    link: Link = "identity"
    if hasattr(model, "classes_"):
        link = "softmax" if len(groups) > 1 else "logit"
    elif model.loss in ("poisson", "gamma"):
        link = "exp"
    return Ensemble(model.n_features_in_, tuple(groups), link)


_XGBOOST_LINKS: dict[str, Link] = {
    "binary:logistic": "logit",
    "reg:logistic": "logit",
    "multi:softprob": "softmax",
    "reg:squarederror": "identity",
    "reg:absoluteerror": "identity",
    "reg:pseudohubererror": "identity",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
}


def _xgboost(model: Any) -> Ensemble:
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    best = getattr(model, "best_iteration", None) if booster is not model else None
    if best is not None:
        booster = booster[: best + 1]
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective = learner["objective"]["name"]
    boosting = learner["gradient_booster"]
    if boosting["name"] != "gbtree" or objective not in _XGBOOST_LINKS:
        raise NotApplicable(
            f"daal4py cannot run an XGBoost model of {boosting['name']} with {objective}"
        )
    link = _XGBOOST_LINKS[objective]
    parameters = learner["learner_model_param"]
    base = np.atleast_1d(np.asarray(json.loads(parameters["base_score"]), dtype=np.float64))
    if link == "logit":
        base = np.log(base / (1.0 - base))
    elif link == "exp":
        base = np.log(base)
    count = max(int(parameters["num_class"]), 1)
    grouped: list[list[Tree]] = [[] for _ in range(count)]
    content = boosting["model"]
    for group, tree in zip(content["tree_info"], content["trees"], strict=True):
        if any(tree["split_type"]) or int(tree["tree_param"]["size_leaf_vector"]) > 1:
            raise NotApplicable("daal4py has no categorical splits and no vector leaves")
        condition = np.asarray(tree["split_conditions"], dtype=np.float32)
        grouped[group].append(
            Tree(
                left=np.asarray(tree["left_children"], dtype=np.int64),
                right=np.asarray(tree["right_children"], dtype=np.int64),
                feature=np.asarray(tree["split_indices"], dtype=np.int64),
                # XGBoost goes left when x < condition.
                threshold=np.nextafter(condition, np.float32(-np.inf)),
                missing_left=np.asarray(tree["default_left"], dtype=bool),
                value=condition.astype(np.float64),
            )
        )
    base = np.broadcast_to(base, count)
    groups = tuple(_with_base(t, float(b)) for t, b in zip(grouped, base, strict=True))
    return Ensemble(int(parameters["num_feature"]), groups, link)


_LIGHTGBM_LINKS: dict[str, Link] = {
    "binary": "logit",
    "cross_entropy": "logit",
    "multiclass": "softmax",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
}


def _lightgbm(model: Any) -> Ensemble:
    dump = getattr(model, "booster_", model).dump_model()
    objective, *settings = dump.get("objective", "custom").split()
    if objective not in _LIGHTGBM_LINKS or "sqrt" in settings or dump["average_output"]:
        raise NotApplicable(f"daal4py cannot run a LightGBM model with objective {objective}")
    count = int(dump["num_tree_per_iteration"])
    # `sigmoid:s` means 1 / (1 + exp(-s * score)).
    steep = [float(s.partition(":")[2]) for s in settings if s.startswith("sigmoid:")]
    grouped: list[list[Tree]] = [[] for _ in range(count)]
    for number, tree in enumerate(dump["tree_info"]):
        grown = _lightgbm_tree(tree["tree_structure"])
        value = grown.value * steep[0] if steep else grown.value
        grouped[number % count].append(replace(grown, value=value))
    groups = tuple(tuple(group) for group in grouped)
    return Ensemble(int(dump["max_feature_idx"]) + 1, groups, _LIGHTGBM_LINKS[objective])


def _lightgbm_tree(root: dict[str, Any]) -> Tree:
    nodes: list[dict[str, Any]] = [root]
    left, right = [], []
    position = 0
    while position < len(nodes):
        node = nodes[position]
        position += 1
        if "left_child" not in node:
            if "leaf_const" in node or "leaf_coeff" in node:
                raise NotApplicable("daal4py has no linear trees")
            left.append(-1)
            right.append(-1)
            continue
        if node["decision_type"] != "<=":
            raise NotApplicable("daal4py has no categorical splits")
        if node["missing_type"] == "Zero":
            raise NotApplicable("daal4py cannot treat zeros as missing (zero_as_missing)")
        left.append(len(nodes))
        right.append(len(nodes) + 1)
        nodes += [node["left_child"], node["right_child"]]
    threshold = np.array([node.get("threshold", 0.0) for node in nodes], dtype=np.float64)
    # Trained without missing values, LightGBM takes one for 0.
    missing_left = [
        node["default_left"] if node.get("missing_type") == "NaN" else node.get("threshold", 0) >= 0
        for node in nodes
    ]
    return Tree(
        left=np.array(left),
        right=np.array(right),
        feature=np.array([node.get("split_feature", 0) for node in nodes]),
        threshold=alike(threshold),
        missing_left=np.array(missing_left, dtype=bool),
        value=np.array([node.get("leaf_value", 0.0) for node in nodes]),
    )


def _with_base(trees: list[Tree], base: float) -> tuple[Tree, ...]:
    """Adds a constant to the sum, by the leaves of the first tree."""
    first = replace(trees[0], value=trees[0].value + base)
    return (first, *trees[1:])
