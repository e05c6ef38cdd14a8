"""scikit-learn's tree models as one ONNX TreeEnsembleRegressor.

skl2onnx ignores where a node sends missing values, does not know HistGradientBoosting's
categories, never returns for some thresholds and has no float64; a tree is written node by node
here, with the comparisons that scikit-learn makes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.models.export._boosters import write_wrapper
from trimgate.models.export._encoders import look_up
from trimgate.models.export._forest import Forest, link
from trimgate.models.export._nodes import Writer, is_text, numeric_type

Array = NDArray[Any]


def add_tree(forest: Forest, tree: Any, leaf: Array) -> None:
    """Adds a `sklearn.tree._tree.Tree`; `leaf` is `(nodes, targets)`."""
    forest.add(
        tree.children_left,
        tree.children_right,
        tree.feature,
        tree.threshold,
        tree.missing_go_to_left,
        leaf,
    )


def _probabilities(tree: Any) -> Array:
    value = np.asarray(tree.value[:, 0, :], dtype=np.float64)
    total = value.sum(axis=1, keepdims=True)
    return value / np.where(total == 0, 1.0, total)


def _vote(model: Any, writer: Writer, matrix: str) -> str:
    """Decision trees and forests: the mean of the leaves.

    Of two classes one sum is enough, which ONNX Runtime takes 1.4 times as fast. The leaves are
    added up as they are and divided afterwards, so that votes are counted without rounding, and
    a row on which the trees are divided stays a tie.
    """
    members = getattr(model, "estimators_", [model])
    classifier = hasattr(model, "classes_")
    targets = len(model.classes_) if classifier else 1
    pair = targets == 2
    forest = Forest(1 if pair else targets)
    for member in members:
        tree = member.tree_
        leaf = _probabilities(tree) if classifier else tree.value[:, :1, 0]
        add_tree(forest, tree, leaf[:, 1:] if pair else leaf)
    # scikit-learn compares in float32
    single = Writer(writer.scope, writer.container, np.float32)
    count = single.constant(np.array([len(members)], np.float32))
    total = forest.write(single, single.cast(matrix), np.zeros(forest.targets), exact=True)
    if pair:
        total = single.node("Concat", [single.node("Sub", [count, total]), total], axis=1)
    return total if len(members) == 1 else single.node("Div", [total, count])


def _gradient_boosting(model: Any, writer: Writer, matrix: str) -> str:
    stages, targets = model.estimators_.shape
    forest = Forest(targets)
    for stage in range(stages):
        for target in range(targets):
            tree = model.estimators_[stage, target].tree_
            leaf = np.zeros((tree.node_count, targets))
            leaf[:, target] = tree.value[:, 0, 0] * model.learning_rate
            add_tree(forest, tree, leaf)
    if type(model.init_).__name__ not in ("DummyClassifier", "DummyRegressor", "str"):
        raise NotImplementedError(f"{type(model).__name__}(init={type(model.init_).__name__})")
    zero = np.zeros((1, model.n_features_in_), dtype=np.float32)
    base = np.asarray(model._raw_predict_init(zero), dtype=np.float64).reshape(-1)
    single = Writer(writer.scope, writer.container, np.float32)
    raw = forest.write(single, single.cast(matrix), base, exact=True)
    return link(writer, raw, targets) if hasattr(model, "classes_") else raw


def _hist_gradient_boosting(model: Any, writer: Writer, matrix: str) -> str:
    targets = model.n_trees_per_iteration_
    forest = Forest(targets)
    known, place = model._bin_mapper.make_known_categories_bitsets()
    for stage in model._predictors:
        for target, predictor in enumerate(stage):
            _add_predictor(forest, predictor, target, known, place)
    base = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)
    raw = forest.write(writer, matrix, base, exact=False)
    if hasattr(model, "classes_"):
        return link(writer, raw, targets)
    name = type(model._loss.link).__name__
    if name == "LogLink":
        return writer.node("Exp", [raw])
    if name != "IdentityLink":
        raise NotImplementedError(f"HistGradientBoostingRegressor with {name}")
    return raw


def _add_predictor(forest: Forest, predictor: Any, target: int, known: Array, place: Array) -> None:
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"].astype(bool)
    leaf = np.zeros((len(nodes), forest.targets))
    leaf[is_leaf, target] = nodes["value"][is_leaf]
    categories: dict[int, tuple[list[int], bool]] = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~is_leaf).tolist():
        lefts = _members(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
        # missing and unknown values go with those that are not asked for
        if nodes["missing_go_to_left"][node]:
            all_known = _members(known[place[nodes["feature_idx"][node]]])
            categories[node] = ([c for c in all_known if c not in lefts], False)
        else:
            categories[node] = (lefts, True)
    forest.add(
        np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
        np.where(is_leaf, -1, nodes["right"].astype(np.int64)),
        nodes["feature_idx"],
        nodes["num_threshold"],
        nodes["missing_go_to_left"],
        leaf,
        categories,
    )


def _members(bitset: Array) -> list[int]:
    return [32 * w + b for w, word in enumerate(bitset) for b in range(32) if int(word) >> b & 1]


def _encoded(model: Any, writer: Writer, variables: list[Any], missing: str) -> str:
    """The matrix that a tree model sees: HistGradientBoosting encodes its categories first."""
    preprocessor = getattr(model, "_preprocessor", None)
    if preprocessor is None:
        if any(is_text(v) for v in variables):
            raise NotImplementedError(f"{type(model).__name__} on text")
        return writer.matrix(variables)
    encoder = preprocessor.named_transformers_["encoder"]
    categorical = np.flatnonzero(model.is_categorical_).tolist()
    columns = writer.columns(variables)
    parts = []
    for position, column in enumerate(categorical):
        name, variable = columns[column]
        parts.append(look_up(writer, name, is_text(variable), encoder, position, missing))
    for column, (name, _) in enumerate(columns):
        if column not in categorical:
            parts.append(writer.cast(name))
    return writer.node("Concat", parts, axis=1)


_WRITERS = {
    "DecisionTreeClassifier": _vote,
    "DecisionTreeRegressor": _vote,
    "ExtraTreeClassifier": _vote,
    "ExtraTreeRegressor": _vote,
    "RandomForestClassifier": _vote,
    "RandomForestRegressor": _vote,
    "ExtraTreesClassifier": _vote,
    "ExtraTreesRegressor": _vote,
    "GradientBoostingClassifier": _gradient_boosting,
    "GradientBoostingRegressor": _gradient_boosting,
    "HistGradientBoostingClassifier": _hist_gradient_boosting,
    "HistGradientBoostingRegressor": _hist_gradient_boosting,
    "XGBClassifier": write_wrapper,
    "XGBRegressor": write_wrapper,
    "LGBMClassifier": write_wrapper,
    "LGBMRegressor": write_wrapper,
}
_BOOSTERS = ("XGB", "LGBM")


def tree_types(steps: list[Any]) -> tuple[set[type], set[type]]:
    """The classes among the steps of a model that are written here.

    Returns:
        All of them, and those of them that skl2onnx does not know.
    """
    own = {type(step) for step in steps if type(step).__name__ in _WRITERS}
    return own, {kind for kind in own if kind.__name__.startswith(_BOOSTERS)}


def booster_parser(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> Any:
    """skl2onnx parser of the scikit-learn wrappers of XGBoost and LightGBM."""
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType

    operator = scope.declare_local_operator("TrimgateBooster", model)
    operator.inputs = inputs
    if hasattr(model, "classes_"):
        operator.outputs.append(scope.declare_local_variable("label", Int64TensorType()))
    operator.outputs.append(scope.declare_local_variable("booster", FloatTensorType()))
    return operator.outputs


def tree_converter(dtype: Any, missing: str) -> Any:
    """skl2onnx converter of scikit-learn's tree models."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        writer = Writer(scope, container, dtype)
        model = operator.raw_operator
        if getattr(model, "n_outputs_", 1) > 1:
            raise NotImplementedError("several targets at once")
        matrix = _encoded(model, writer, operator.inputs, missing)
        scores = _WRITERS[type(model).__name__](model, writer, matrix)
        # the tree operator gives float32 whatever it takes
        writer.cast(scores, dtype, operator.outputs[-1].full_name)
        if len(operator.outputs) == 2:
            _write_label(writer, model, operator)

    return convert


def _write_label(writer: Writer, model: Any, operator: Any) -> None:
    best = writer.node("ArgMax", [operator.outputs[1].full_name], axis=1, keepdims=0)
    classes = np.asarray(model.classes_)
    kind = object if is_text(operator.outputs[0]) else np.int64
    table = writer.constant(
        np.array([str(c) for c in classes], dtype=object)
        if kind is object
        else classes.astype(np.int64)
    )
    writer.node("Gather", [table, best], operator.outputs[0].full_name, axis=0)


def tree_shape(dtype: Any) -> Any:
    """skl2onnx shape calculator for `tree_converter`."""

    def shape(operator: Any) -> None:
        from skl2onnx.common.data_types import Int64TensorType, StringTensorType

        model = operator.raw_operator
        if len(operator.outputs) == 2:
            text = np.asarray(model.classes_).dtype.kind in "UO"
            operator.outputs[0].type = (StringTensorType if text else Int64TensorType)([None])
            operator.outputs[1].type = numeric_type(dtype, len(model.classes_))
        else:
            operator.outputs[0].type = numeric_type(dtype, 1)

    return shape
