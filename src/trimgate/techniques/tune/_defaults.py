"""What is varied when the user does not say: by estimator, booster, module, and step.

The ranges are those that hold the good values of most tables in studies of tunability (Probst,
Boulesteix and Bischl, 2019, arXiv:1802.09596), narrowed to what a model of usual size needs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimgate.models.directory import ONNX_FILE, ModelInfo
from trimgate.techniques.tune._config import Choices, Goal, Parameter, Range, Subset

_C = Range(low=1e-4, high=1e2, log=True, integer=False)
_ALPHA = Range(low=1e-5, high=1e3, log=True, integer=False)
_RATE = Range(low=0.02, high=0.3, log=True)
_SHARE = Range(low=0.4, high=1.0, integer=False)
_LEAF = Range(low=1, high=40, log=True)
_REGULAR = Range(low=1e-3, high=20.0, log=True)
_NEIGHBORS = Range(low=1, high=50, log=True)
_FOREST: dict[str, Parameter] = {
    "max_depth": Range(low=4, high=24),
    "min_samples_leaf": Range(low=1, high=16, log=True),
    "max_features": Choices(choices=("sqrt", 0.3, 0.5, 0.8)),
}
# By the beginning of the class's name; the first that fits.
_ESTIMATORS: tuple[tuple[str, dict[str, Parameter]], ...] = (
    (
        "HistGradientBoosting",
        {
            "learning_rate": _RATE,
            "max_leaf_nodes": Range(low=7, high=63, log=True),
            "min_samples_leaf": Range(low=5, high=60, log=True),
            "l2_regularization": Range(low=1e-4, high=10.0, log=True, integer=False),
        },
    ),
    (
        "GradientBoosting",
        {
            "learning_rate": _RATE,
            "max_depth": Range(low=2, high=6),
            "min_samples_leaf": _LEAF,
            "subsample": _SHARE,
        },
    ),
    ("RandomForest", _FOREST),
    ("ExtraTrees", _FOREST),
    (
        "DecisionTree",
        {
            "max_depth": Range(low=2, high=20),
            "min_samples_leaf": _LEAF,
            "ccp_alpha": Range(low=1e-6, high=1e-2, log=True),
        },
    ),
    ("AdaBoost", {"learning_rate": Range(low=0.05, high=2.0, log=True, integer=False)}),
    (
        "XGB",
        {
            "learning_rate": _RATE,
            "max_depth": Range(low=2, high=10),
            "min_child_weight": Range(low=0.5, high=20.0, log=True),
            "subsample": _SHARE,
            "colsample_bytree": _SHARE,
            "reg_lambda": _REGULAR,
        },
    ),
    (
        "LGBM",
        {
            "learning_rate": _RATE,
            "num_leaves": Range(low=7, high=63, log=True),
            "min_child_samples": Range(low=5, high=60, log=True),
            "colsample_bytree": _SHARE,
            "reg_lambda": _REGULAR,
        },
    ),
    ("LogisticRegression", {"C": _C}),
    ("Linear", {"C": _C}),  # LinearSVC and LinearSVR; LinearRegression has none
    ("Ridge", {"alpha": _ALPHA}),
    ("Lasso", {"alpha": _ALPHA}),
    (
        "ElasticNet",
        {"alpha": _ALPHA, "l1_ratio": Range(low=0.0, high=1.0, integer=False)},
    ),
    (
        "SGD",
        {
            "alpha": Range(low=1e-6, high=1e-1, log=True),
            "penalty": Choices(choices=("l2", "l1", "elasticnet")),
        },
    ),
    ("SV", {"C": Range(low=1e-2, high=1e3, log=True), "gamma": _C}),
    ("NuSV", {"nu": Range(low=0.05, high=0.9), "gamma": _C}),
    (
        "KNeighbors",
        {"n_neighbors": _NEIGHBORS, "weights": Choices(choices=("uniform", "distance"))},
    ),
    ("GaussianNB", {"var_smoothing": Range(low=1e-12, high=1e-2, log=True)}),
    ("MultinomialNB", {"alpha": Range(low=1e-3, high=10.0, log=True)}),
    ("BernoulliNB", {"alpha": Range(low=1e-3, high=10.0, log=True)}),
    ("ComplementNB", {"alpha": Range(low=1e-3, high=10.0, log=True)}),
    (
        "MLP",
        {
            "alpha": Range(low=1e-6, high=1e-1, log=True),
            "learning_rate_init": Range(low=1e-4, high=3e-2, log=True),
        },
    ),
)
_LESS = 8  # of the trees, the least that is tried is this part
_ALL_NODES = 12
_END_NODES = 3


def of_estimator(kind: str, present: Mapping[str, Any], goals: tuple[Goal, ...]) -> dict[
    str, Parameter
]:  # fmt: skip
    """The space of a scikit-learn estimator.

    Args:
        kind: The name of its class.
        present: Its parameters.
        goals: Where the model's cost counts too, so do the number of trees and of neurons.

    Returns:
        Empty where there is nothing that is usually tuned.
    """
    found = next((space for start, space in _ESTIMATORS if kind.startswith(start)), {})
    space = {name: parameter for name, parameter in found.items() if name in present}
    if len(goals) > 1:
        space |= _size_of(kind, present)
    return space


def of_booster(framework: str, rounds: int, goals: tuple[Goal, ...]) -> dict[str, Parameter]:
    """The space of a booster of XGBoost or LightGBM, which has so many rounds."""
    kind = "XGB" if framework == "xgboost" else "LGBM"
    space = dict(next(space for start, space in _ESTIMATORS if start == kind))
    if len(goals) > 1:
        space["n_estimators"] = _fewer(rounds)
    return space


def of_module() -> dict[str, Parameter]:
    """The space of a torch module's training."""
    return {
        "learning_rate": Range(low=1e-5, high=1e-2, log=True),
        "weight_decay": Range(low=1e-6, high=1e-1, log=True),
        "batch_size": Choices(choices=(32, 64, 128)),
    }


def of_step(step: Mapping[str, Any], source: Path, info: ModelInfo) -> dict[str, Parameter]:
    """The space of a technique's step: of prune and of quantize.

    Args:
        step: The step with every parameter spelled out.
        source: The model directory that it works on.
        info: Its record.
    """
    if step["technique"] == "prune":
        return _of_prune(step, info)
    if step["technique"] != "quantize":
        return {}
    space: dict[str, Parameter] = {}
    scheme = step["scheme"]
    if scheme == "static-int8" and step.get("quantizer") != "nncf":
        space["method"] = Choices(choices=("minmax", "entropy", "percentile"))
    if scheme in ("static-int8", "dynamic-int8"):
        space["per_channel"] = Choices(choices=(True, False))
        nodes = _quantizable(source)
        if len(nodes) > _ALL_NODES:  # the ends of a network are where 8 bits hurt most
            nodes = [*nodes[:_END_NODES], *nodes[-_END_NODES:]]
        if nodes and step["exclude"] != "auto":
            space["exclude"] = Subset(subset=tuple(nodes))
    if scheme == "weight-only":
        space["bits"] = Choices(choices=(4, 8))
        space["block_size"] = Choices(choices=(32, 64, 128))
    if scheme == "qat-int8":
        space["finetune.learning_rate"] = Range(low=1e-5, high=1e-3, log=True)
    return space


def _of_prune(step: Mapping[str, Any], info: ModelInfo) -> dict[str, Parameter]:
    method = step["method"]
    if method == "depth":
        return {"depth": Range(low=2, high=10)}
    if method == "cost_complexity":
        return {"alpha": Range(low=1e-5, high=1e-2, log=True)}
    amount = Range(low=0.1, high=0.9)
    if info.framework != "torch":
        return {"amount": amount, "order": Choices(choices=("greedy", "first"))}
    space: dict[str, Parameter] = {
        "amount": amount,
        "finetune.learning_rate": Range(low=1e-5, high=1e-2, log=True),
    }
    if method == "channels" or (method == "auto" and info.family != "transformer"):
        space["scope"] = Choices(choices=("layer", "global"))
        space["importance"] = Choices(choices=("magnitude", "taylor"))
    return space


def _quantizable(source: Path) -> list[str]:
    """Names of the matrix products and convolutions of a graph, in order."""
    import onnx

    graph = onnx.load(source / ONNX_FILE, load_external_data=False).graph
    kinds = ("Conv", "ConvTranspose", "MatMul", "Gemm")
    return [node.name for node in graph.node if node.op_type in kinds and node.name]


def _size_of(kind: str, present: Mapping[str, Any]) -> dict[str, Parameter]:
    if kind.startswith("MLP"):
        layers = present["hidden_layer_sizes"]
        sizes = [layers] if isinstance(layers, int) else list(layers)
        options = [[max(2, size // part) for size in sizes] for part in (1, 2, 4, 8)]
        distinct = [o for place, o in enumerate(options) if o not in options[:place]]
        return {"hidden_layer_sizes": Choices(choices=tuple(distinct))}
    ensembles = ("RandomForest", "ExtraTrees", "GradientBoosting", "HistGradient", "XGB", "LGBM")
    if not kind.startswith((*ensembles, "AdaBoost", "Bagging")):
        return {}
    name = "max_iter" if kind.startswith("HistGradient") else "n_estimators"
    return {name: _fewer(int(present.get(name) or 100))}


def _fewer(rounds: int) -> Range:
    return Range(low=max(1, rounds // _LESS), high=max(1, rounds), log=True)
