"""Tree ensembles compiled by oneDAL (daal4py), which wins on batches of many rows.

Models: gradient boosting, histogram gradient boosting, random forests, extra trees and single
trees of scikit-learn, XGBoost (gbtree) and LightGBM, for regression, two classes and (boosting
only) more. There are no options; precision is `f32`.

Notes:
    daal4py's own converters are not used: they move every threshold one `float32` down, so that
    rows that equal a threshold go the wrong way (integer features do), and they ignore how
    LightGBM treats missing values. `_ensembles` takes the models apart exactly.

    oneDAL has one thread pool per process: the last loaded session sets its size.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo
from trimgate.runtimes._base import Array, Runtime, Session
from trimgate.runtimes._ensembles import Ensemble, Tree, ensemble
from trimgate.runtimes._support import absent, bad_option, column_order, require

_FRAMEWORKS = ("sklearn", "xgboost", "lightgbm")


class Daal4pySession(Session):
    """Trees compiled by oneDAL."""

    def __init__(self, trees: Ensemble, info: ModelInfo, order: Array | None) -> None:
        import daal4py

        self.info = info
        self._input = info.inputs[0].name
        self._order = order
        self._link = trees.link
        # An algorithm object keeps the size of its first batch, so each call makes its own.
        if trees.link in ("logit", "softmax"):
            self._algorithm = functools.partial(
                daal4py.gbt_classification_prediction,
                nClasses=max(len(trees.groups), 2),
                fptype="float",
                resultsToEvaluate="computeClassProbabilities",
            )
        else:
            self._algorithm = functools.partial(daal4py.gbt_regression_prediction, fptype="float")
        self._model = _compile(daal4py, trees)

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        """See `Session.predict`."""
        rows = np.ascontiguousarray(inputs[self._input], dtype=np.float32)
        result = self._algorithm().compute(rows, self._model)
        if self._link in ("logit", "softmax"):
            scores: Array = result.probabilities
            if self._link == "logit":
                # its sigmoid is exp(x) / (1 + exp(x)), which overflows for logits above 88
                scores[np.isnan(scores).any(axis=1)] = (0.0, 1.0)
            if self.info.task == "regression":
                return scores[:, 1]
        else:
            values: Array = result.prediction[:, 0]
            if self.info.task == "regression":
                return np.exp(values) if self._link == "exp" else values
            scores = np.stack([1.0 - values, values], axis=1)
        return scores if self._order is None else scores[:, self._order]

    def close(self) -> None:
        """Frees the model; the session cannot be used afterwards."""
        self._model = None


class Daal4py(Runtime):
    """Tree ensembles compiled by oneDAL."""

    name = "daal4py"

    def missing(self) -> str | None:
        """See `Runtime.missing`."""
        return absent("daal4py", "trees")

    def refusal(self, info: ModelInfo) -> str | None:
        """See `Runtime.refusal`."""
        if info.family != "trees":
            return "daal4py compiles tree ensembles only"
        if info.framework not in _FRAMEWORKS:
            return "daal4py needs the trained ensemble (scikit-learn, XGBoost or LightGBM)"
        if len(info.inputs) != 1 or info.inputs[0].dtype == "string":
            return "daal4py takes one numeric matrix, and this model has text or several inputs"
        if info.score_kind not in ("probability", "value"):
            return f"daal4py gives probabilities or values, this model gives a {info.score_kind}"
        if info.runtime.precision != "f32":
            return "daal4py computes in f32"
        if problem := bad_option(info.runtime.options, {}):
            return f"daal4py {problem}"
        return None

    def load(self, directory: Path, info: ModelInfo, *, threads: int) -> Session:
        """See `Runtime.load`."""
        require("daal4py", "trees")
        try:
            import daal4py
        except ImportError as error:
            raise NotApplicable(
                f"daal4py cannot be loaded here: {error}",
                mend="another library may have brought an older TBB: use a process of its own",
            ) from error

        from trimgate.models import load_trainable

        daal4py.daalinit(threads)
        model = load_trainable(directory, info)
        trees = ensemble(model)
        width = info.inputs[0].shape[-1]
        if trees.features != width:
            raise NotApplicable(
                f"the trees look at {trees.features} features, the input has {width}",
                file=directory,
            )
        last = model.steps[-1][1] if hasattr(model, "steps") else model
        order = None
        if info.task != "regression" and hasattr(last, "classes_"):
            order = column_order(np.asarray(last.classes_).tolist(), info)
        return Daal4pySession(trees, info, order)


def _compile(daal4py: Any, trees: Ensemble) -> Any:
    longest = max(len(group) for group in trees.groups)
    classes = len(trees.groups)
    votes = trees.link in ("logit", "softmax")
    if votes:
        builder = daal4py.gbt_clf_model_builder(
            n_features=trees.features, n_iterations=longest, n_classes=max(classes, 2)
        )
    else:
        builder = daal4py.gbt_reg_model_builder(n_features=trees.features, n_iterations=longest)
    # oneDAL reads a row of trees as iteration by iteration, one tree of each class; the builder
    # fills that row class by class, so the class to name is the one that owns the place.
    padded = [[*group, *[_EMPTY] * (longest - len(group))] for group in trees.groups]
    for place, tree in enumerate(tree for row in zip(*padded, strict=True) for tree in row):
        _add(builder, tree, place // longest if votes else None)
    return builder.model(base_score=0.5 if trees.link == "logit" else 0.0)


def _add(builder: Any, tree: Tree, label: int | None) -> None:
    count = len(tree.left)
    if label is None:
        number = builder.create_tree(count)
    else:
        number = builder.create_tree(n_nodes=count, class_label=label)
    left, right = tree.left.tolist(), tree.right.tolist()
    feature, threshold = tree.feature.tolist(), tree.threshold.tolist()
    missing, value = tree.missing_left.tolist(), tree.value.tolist()
    waiting: list[tuple[int, dict[str, int]]] = [(0, {})]
    while waiting:
        node, place = waiting.pop()
        if left[node] < 0:
            builder.add_leaf(tree_id=number, response=value[node], cover=0.0, **place)
            continue
        parent = builder.add_split(
            tree_id=number,
            feature_index=feature[node],
            feature_value=threshold[node],
            default_left=int(missing[node]),
            cover=0.0,
            **place,
        )
        waiting.append((right[node], {"parent_id": parent, "position": 1}))
        waiting.append((left[node], {"parent_id": parent, "position": 0}))


_EMPTY = Tree(
    left=np.array([-1]),
    right=np.array([-1]),
    feature=np.array([0]),
    threshold=np.zeros(1, dtype=np.float32),
    missing_left=np.zeros(1, dtype=bool),
    value=np.zeros(1),
)

RUNTIME = Daal4py()
