"""Smaller trees: branches of fitted trees become leaves."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trimgate.data.dataset import Array
from trimgate.techniques.prune._ensembles import Fitted, GradientBoosting

_ALPHAS = 30


def limited(ensemble: Fitted, depth: int) -> Fitted:
    """The ensemble with each tree cut at so many levels; the deepest nodes left become leaves.

    Args:
        ensemble: Of fitted trees of scikit-learn.
        depth: Levels below the root to keep.
    """
    return ensemble.with_trees([_limited(tree, depth) for tree in _sources(ensemble)])


def simplified(ensemble: Fitted, alpha: float) -> Fitted:
    """The ensemble after minimal cost-complexity pruning of each of its fitted trees.

    Branches go whose impurity, per leaf saved, rises by no more than `alpha` (Breiman et al.,
    1984). The impurity is that of the training, so no rows are needed.

    Args:
        ensemble: Of fitted trees of scikit-learn.
        alpha: As `ccp_alpha` of scikit-learn.
    """
    from sklearn.tree._tree import Tree, _build_pruned_tree_ccp

    made = []
    for tree in _sources(ensemble):
        pruned = Tree(*_arguments(tree))
        _build_pruned_tree_ccp(pruned, tree, alpha)
        made.append(pruned)
    return ensemble.with_trees(made)


def alphas(ensemble: Fitted) -> list[float]:
    """Ascending values of `alpha` at which more and more branches go."""
    from sklearn.tree._tree import ccp_pruning_path

    paths = [ccp_pruning_path(tree)["ccp_alphas"] for tree in _sources(ensemble)]
    steps = np.unique(np.concatenate(paths))
    steps = steps[steps > 0]
    if not len(steps):
        return []
    ranks = np.linspace(0, len(steps) - 1, min(_ALPHAS, len(steps)))
    return [float(value) for value in steps[np.unique(ranks.round().astype(int))]]


def depth_of(ensemble: Fitted) -> int:
    """Levels below the root of the deepest tree."""
    return max(int(tree.max_depth) for tree in ensemble.trees())


def _sources(ensemble: Fitted) -> Iterator[Any]:
    """The trees, with the value that each node has when it becomes a leaf.

    That is the node's own but in boosting, where training gave new values to the leaves alone:
    there a node stands for the mean of the leaves below it, by their training rows.
    """
    for tree in ensemble.trees():
        if isinstance(ensemble, GradientBoosting):
            tree = copy.deepcopy(tree)
            tree.value[...] = _means(tree)
        yield tree


def _means(tree: Any) -> Array:
    values = np.array(tree.value)
    left, right = tree.children_left, tree.children_right
    weights = tree.weighted_n_node_samples
    # children always stand after their parent
    for node in range(tree.node_count - 1, -1, -1):
        if left[node] != -1:
            below = [left[node], right[node]]
            values[node] = np.average(values[below], axis=0, weights=weights[below])
    return values


def _limited(tree: Any, depth: int) -> Any:
    from sklearn.tree._tree import Tree

    state = tree.__getstate__()
    old = state["nodes"]
    kept, parents = _walk(old, depth)
    nodes = old[kept]
    place = {node: position for position, node in enumerate(kept)}
    for position, node in enumerate(kept):
        if parents[position]:
            nodes["left_child"][position] = place[int(old["left_child"][node])]
            nodes["right_child"][position] = place[int(old["right_child"][node])]
        else:
            nodes["left_child"][position] = nodes["right_child"][position] = -1
            nodes["feature"][position] = -2
            nodes["threshold"][position] = -2.0
    made = Tree(*_arguments(tree))
    made.__setstate__(
        {
            "max_depth": min(depth, int(tree.max_depth)),
            "node_count": len(kept),
            "nodes": nodes,
            "values": np.ascontiguousarray(state["values"][kept]),
        }
    )
    return made


def _walk(nodes: Array, depth: int) -> tuple[list[int], list[bool]]:
    """The nodes down to a depth, parents first, and whether each keeps its children."""
    kept, parents = [], []
    waiting = [(0, 0)]
    while waiting:
        node, level = waiting.pop()
        left, right = int(nodes["left_child"][node]), int(nodes["right_child"][node])
        kept.append(node)
        parents.append(left != -1 and level < depth)
        if parents[-1]:
            waiting += [(right, level + 1), (left, level + 1)]
    return kept, parents


def _arguments(tree: Any) -> Sequence[Any]:
    """What `Tree` is made with."""
    arguments: Sequence[Any] = tree.__reduce__()[1]
    return arguments
