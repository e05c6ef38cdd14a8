"""XGBoost and LightGBM boosters in ONNX, from their own JSON dumps."""

import json
from typing import Any

import numpy as np

from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo
from trimgate.models.export._forest import Forest, link
from trimgate.models.export._graph import finish
from trimgate.models.export._nodes import ML, Writer

_LEAF = -1


def convert(model: Any, info: ModelInfo, opset: int) -> Any:
    """Converts a booster with one matrix as its input.

    Args:
        model: `xgboost.Booster` or `lightgbm.Booster`.
        info: Its record; the dtype of its input is what thresholds are compared in.
        opset: Version of the default operator set.

    Returns:
        An `onnx.ModelProto` with the input of `info` and one output, `scores`.

    Raises:
        NotApplicable: The booster does something that has no ONNX form.
    """
    import onnx
    from onnx import helper

    spec = info.inputs[0]
    dtype = np.dtype(spec.dtype)
    graph = _Graph()
    writer = Writer(graph, graph, dtype.type)
    writers = {"xgboost": write_xgboost, "lightgbm": write_lightgbm}
    try:
        scores = writers[info.framework](model, writer, spec.name, info.score_kind != "logit")
    except NotImplementedError as error:
        raise NotApplicable(f"no ONNX form for {error}") from error
    columns = 1 if info.task == "regression" or info.score_kind == "logit" else len(info.labels)
    if info.task == "multiclass":
        columns = len(info.labels)
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    made = helper.make_graph(
        graph.nodes,
        info.name,
        [helper.make_tensor_value_info(spec.name, kind, ["rows", *spec.shape[1:]])],
        [helper.make_tensor_value_info(scores, onnx.TensorProto.FLOAT, ["rows", columns])],
        graph.initializers,
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(ML, 3)]
    proto = helper.make_model(made, producer_name="trimgate", opset_imports=imports)
    proto.ir_version = helper.find_min_ir_version_for(imports)
    return finish(proto, scores)


class _Graph:
    """Collects nodes as skl2onnx's scope and container do."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.node_domain_version_pair_sets: set[tuple[str, int]] = set()
        self._count = 0

    def get_unique_variable_name(self, seed: str) -> str:
        self._count += 1
        return f"trimgate_{seed}_{self._count}"

    get_unique_operator_name = get_unique_variable_name

    def add_node(
        self,
        kind: str,
        inputs: list[str],
        outputs: list[str],
        op_domain: str = "",
        op_version: int | None = None,
        **attrs: Any,
    ) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, outputs, domain=op_domain, **attrs))


def write_xgboost(booster: Any, writer: Writer, matrix: str, probabilities: bool) -> str:
    """Writes an `xgboost.Booster`.

    Args:
        booster: The booster; all its trees are used.
        writer: Where the nodes go.
        matrix: Name of the tensor `(rows, features)`.
        probabilities: Whether scores are probabilities (else raw scores).

    Returns:
        Name of the scores.

    Raises:
        NotImplementedError: It has another kind of trees or objective.
    """
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective = learner["objective"]["name"]
    targets = max(1, int(learner["learner_model_param"]["num_class"]))
    if int(learner["learner_model_param"].get("num_target", 1)) > 1:
        raise NotImplementedError("XGBoost with several targets")
    # a number, or since XGBoost 3 a list in text: "[5E-1]"
    stored = np.atleast_1d(json.loads(learner["learner_model_param"]["base_score"].lower()))
    base = np.broadcast_to(np.asarray(stored, dtype=np.float64), (targets,)).copy()
    logistic = objective in ("binary:logistic", "binary:logitraw", "reg:logistic")
    exponential = objective in ("count:poisson", "reg:gamma", "reg:tweedie")
    if logistic and objective != "binary:logitraw":
        base = np.log(base) - np.log1p(-base)
    elif exponential:
        base = np.log(base)
    # XGBoost compares float32
    single = Writer(writer.scope, writer.container, np.float32)
    model = learner["gradient_booster"]
    if model["name"] == "gblinear":
        raise NotImplementedError("XGBoost with the booster gblinear")
    raw = _xgboost_trees(model, targets).write(single, single.cast(matrix), base, exact=True)
    if not probabilities or objective == "binary:logitraw":
        return raw
    if objective == "reg:logistic":
        return writer.node("Sigmoid", [raw])
    if exponential:
        return writer.node("Exp", [raw])
    if objective.split(":")[0] in ("binary", "multi"):
        return link(writer, raw, targets)
    return raw


def _xgboost_trees(model: dict[str, Any], targets: int) -> Forest:
    drop = model.get("weight_drop")
    trees = (model.get("gbtree") or model)["model"]
    forest = Forest(targets, mode="BRANCH_LT")
    for position, tree in enumerate(trees["trees"]):
        if any(tree["split_type"]):
            raise NotImplementedError("XGBoost with categorical splits")
        if int(tree["tree_param"]["size_leaf_vector"]) > 1:
            raise NotImplementedError("XGBoost with vector leaves")
        left = np.array(tree["left_children"])
        values = np.array(tree["split_conditions"])
        leaf = np.zeros((len(left), targets))
        at_leaf = left == _LEAF
        weight = 1.0 if drop is None else drop[position]
        leaf[at_leaf, trees["tree_info"][position]] = values[at_leaf] * weight
        forest.add(
            left,
            np.array(tree["right_children"]),
            np.array(tree["split_indices"]),
            values,
            np.array(tree["default_left"]),
            leaf,
        )
    return forest


def write_lightgbm(booster: Any, writer: Writer, matrix: str, probabilities: bool) -> str:
    """Writes a `lightgbm.Booster`; see `write_xgboost`.

    Raises:
        NotImplementedError: It has linear trees, zeros as missing values or another objective.
    """
    dump = booster.dump_model()
    targets = int(dump["num_tree_per_iteration"])
    forest = Forest(targets)
    scale = 1.0
    if dump["average_output"]:
        scale = targets / max(1, len(dump["tree_info"]))
    for position, tree in enumerate(dump["tree_info"]):
        _add_lightgbm_tree(forest, tree["tree_structure"], position % targets, scale)
    raw = forest.write(writer, matrix, np.zeros(targets), exact=False)
    objective, *settings = str(dump.get("objective", "regression")).split(" ")
    if not probabilities:
        return raw
    if objective in ("binary", "cross_entropy"):
        sigmoid = next((float(s.split(":")[1]) for s in settings if s.startswith("sigmoid:")), 1.0)
        if sigmoid != 1.0:
            raw = writer.node("Mul", [raw, writer.constant(np.float32(sigmoid))])
        return link(writer, raw, 1)
    if objective == "multiclass":
        return link(writer, raw, targets)
    if objective in ("poisson", "gamma", "tweedie"):
        return writer.node("Exp", [raw])
    if objective == "multiclassova" or "sqrt" in settings:
        raise NotImplementedError(f"LightGBM with the objective {dump['objective']}")
    return raw


def _add_lightgbm_tree(forest: Forest, root: dict[str, Any], target: int, scale: float) -> None:
    rows: list[tuple[int, int, int, float, bool, float]] = []
    categories: dict[int, tuple[list[int], bool]] = {}

    def walk(node: dict[str, Any]) -> int:
        place = len(rows)
        if "split_index" not in node:
            rows.append((_LEAF, _LEAF, 0, 0.0, False, float(node["leaf_value"]) * scale))
            return place
        rows.append((0, 0, 0, 0.0, False, 0.0))
        threshold, missing_left = 0.0, False
        if node["decision_type"] == "==":
            categories[place] = ([int(c) for c in str(node["threshold"]).split("||")], True)
        else:
            threshold = float(node["threshold"])
            if node["missing_type"] == "Zero":
                raise NotImplementedError("LightGBM with zero_as_missing")
            # without missing values in training, NaN counts as zero
            none_seen = node["missing_type"] == "None"
            missing_left = threshold >= 0.0 if none_seen else bool(node["default_left"])
        left, right = walk(node["left_child"]), walk(node["right_child"])
        rows[place] = (left, right, int(node["split_feature"]), threshold, missing_left, 0.0)
        return place

    walk(root)
    left, right, feature, threshold, missing_left, value = map(np.array, zip(*rows, strict=True))
    leaf = np.zeros((len(rows), forest.targets))
    leaf[:, target] = value
    forest.add(left, right, feature, threshold, missing_left, leaf, categories)


def write_wrapper(model: Any, writer: Writer, matrix: str) -> str:
    """Writes the scikit-learn wrapper of a booster, a step of a pipeline."""
    probabilities = True
    if type(model).__name__.startswith("LGBM"):
        return write_lightgbm(model.booster_, writer, matrix, probabilities)
    missing = model.missing
    if missing is not None and missing == missing:
        raise NotImplementedError(f"{type(model).__name__}(missing={missing})")
    booster = model.get_booster()
    best = booster.attr("best_iteration")
    if best is not None:
        booster = booster[: int(best) + 1]
    return write_xgboost(booster, writer, matrix, probabilities)
