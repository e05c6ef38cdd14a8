"""Trees of any framework as one ONNX TreeEnsembleRegressor."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.models.export._nodes import ML, Writer

Array = NDArray[Any]


@dataclass
class Forest:
    """Collects the attributes of a TreeEnsembleRegressor.

    Attributes:
        targets: Number of output columns.
        mode: How a value is compared with a threshold: `BRANCH_LEQ` or `BRANCH_LT`.
    """

    targets: int
    mode: str = "BRANCH_LEQ"
    rows: list[tuple[int, int, int, str, float, int, int, int]] = field(default_factory=list)
    weights: list[tuple[int, int, int, float]] = field(default_factory=list)
    trees: int = 0

    def add(
        self,
        left: Array,
        right: Array,
        feature: Array,
        threshold: Array,
        missing_left: Array,
        leaf: Array,
        categories: dict[int, tuple[list[int], bool]] | None = None,
    ) -> None:
        """Adds one tree.

        Args:
            left: `(nodes,)` child when the comparison holds; -1 for a leaf.
            right: `(nodes,)` the other child.
            feature: `(nodes,)` column that is compared.
            threshold: `(nodes,)` what is compared with.
            missing_left: `(nodes,)` whether NaN goes left.
            leaf: `(nodes, targets)` what a leaf adds.
            categories: For nodes that ask for membership: the categories, and whether a
                member goes left (else it goes right, and all others left).
        """
        tree, count = self.trees, len(left)
        self.trees += 1
        for node in range(count):
            if left[node] < 0:
                self.rows.append((tree, node, 0, "LEAF", 0.0, 0, 0, 0))
                for target in np.flatnonzero(leaf[node]):
                    self.weights.append((tree, node, int(target), float(leaf[node, target])))
                if not leaf[node].any():
                    self.weights.append((tree, node, 0, 0.0))
                continue
            column, yes, no = int(feature[node]), int(left[node]), int(right[node])
            if categories is not None and node in categories:
                members, to_left = categories[node]
                hit, other = (yes, no) if to_left else (no, yes)
                # a chain of equalities that all lead to the same child
                members = members or [-1]  # no category has this number
                for position, member in enumerate(members):
                    here = node if position == 0 else count
                    count += position > 0
                    rest = other if position == len(members) - 1 else count
                    row = (tree, here, column, "BRANCH_EQ", float(member), hit, rest, 0)
                    self.rows.append(row)
            else:
                tracks = int(missing_left[node])
                row = (tree, node, column, self.mode, float(threshold[node]), yes, no, tracks)
                self.rows.append(row)

    def write(self, writer: Writer, matrix: str, base: Array, *, exact: bool) -> str:
        """Writes the node.

        Args:
            writer: Its type is that of `matrix` and of the thresholds.
            matrix: Name of the tensor `(rows, features)`.
            base: `(targets,)` what is added to every row.
            exact: Whether the model itself compares float32 values, so that float32 thresholds
                can be rounded without any change. Else values and thresholds are both rounded to
                the nearest float32, so that equal ones stay equal.

        Returns:
            Name of the output `(rows, targets)`, which is float32 in any case.
        """
        from onnx import helper, numpy_helper

        # every node of a tree in the order of its ids, as runtimes expect
        self.rows.sort(key=lambda row: (row[0], row[1]))
        tree, node, feature, mode, value, yes, no, missing = zip(*self.rows, strict=True)
        w_tree, w_node, w_target, weight = zip(*self.weights, strict=True)
        attrs: dict[str, Any] = {
            "nodes_treeids": tree,
            "nodes_nodeids": node,
            "nodes_featureids": feature,
            "nodes_modes": mode,
            "nodes_truenodeids": yes,
            "nodes_falsenodeids": no,
            "nodes_missing_value_tracks_true": missing,
            "target_treeids": w_tree,
            "target_nodeids": w_node,
            "target_ids": w_target,
            "n_targets": self.targets,
            "aggregate_function": "SUM",
            "post_transform": "NONE",
        }
        if np.dtype(writer.dtype) == np.float64:
            for key, values in (
                ("nodes_values", value),
                ("target_weights", weight),
                ("base_values", base),
            ):
                array = np.asarray(values, dtype=np.float64)
                attrs[f"{key}_as_tensor"] = numpy_helper.from_array(array, key)
        else:
            values64 = np.asarray(value, dtype=np.float64)
            values32: Array = round_down(values64) if exact else values64.astype(np.float32)
            attrs["nodes_values"] = [float(v) for v in values32]
            attrs["target_weights"] = weight
            attrs["base_values"] = [float(v) for v in base]
        output: str = writer.scope.get_unique_variable_name("trees")
        made = helper.make_node(
            "TreeEnsembleRegressor",
            [matrix],
            [output],
            domain=ML,
            name=writer.scope.get_unique_operator_name("TreeEnsembleRegressor"),
            **attrs,
        )
        writer.container.nodes.append(made)
        writer.container.node_domain_version_pair_sets.add((ML, 3))
        return output


def round_down(values: Array) -> Array:
    """The largest float32 that is not above: for a float32 x, x <= it just when x <= value."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def link(writer: Writer, raw: str, targets: int) -> str:
    """From raw scores to probabilities of all classes."""
    if targets > 1:
        return writer.node("Softmax", [raw], axis=1)
    one = writer.node("Sigmoid", [raw])
    other = writer.node("Sigmoid", [writer.node("Neg", [raw])])
    return writer.node("Concat", [other, one], axis=1)
