"""Plants a regression: a copy of a model directory that is worse in a chosen way.

    python examples/rollout/plant.py MODEL OUT wrong|slow|failing|same

The graph is changed behind the model, as a faulty build would: nothing in the record says so, and
the digest is that of the new files.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trimgate.models.directory import ModelInfo, read, seal, writing

KINDS = ("wrong", "slow", "failing", "same")
_ODD = 0.15  # share of the rows that a wrong or a failing model is off on, about


def plant(source: Path, out: Path, kind: str, *, slow: int = 24) -> ModelInfo:
    """Writes the regressed copy.

    Args:
        source: Model directory with an ONNX form of one float input and one score output.
        out: The new directory.
        kind: `wrong`: other scores for some rows; `slow`: the same scores, later; `failing`: no
            answer for requests with such rows; `same`: the same scores from other bytes.
        slow: Products of matrices that a slow model computes in vain for each request.

    Returns:
        The new record.
    """
    info = read(source, verify=True)
    model = onnx.load(str(source / "model.onnx"))
    graph = model.graph
    spec = info.inputs[0]
    scores = info.score_output or graph.output[0].name
    if kind == "same":
        model.doc_string = "built again"
    else:
        for node in graph.node:
            node.output[:] = ["planted_before" if o == scores else o for o in node.output]
            node.input[:] = ["planted_before" if i == scores else i for i in node.input]
        _constant(graph, "planted_axes", np.array([1], np.int64))
        _constant(graph, "planted_zero", np.zeros(1, np.float32))
        _node(graph, "ReduceMean", [spec.name, "planted_axes"], "planted_mean", keepdims=1)
        _node(graph, "Sub", ["planted_mean", "planted_mean"], "planted_nothing")
        {"wrong": _wrong, "slow": _slow, "failing": _failing}[kind](graph, spec, scores, slow)
    with writing(out) as partial:
        for name in info.files:
            if name != "model.onnx":
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, partial / name)
        onnx.save(model, str(partial / "model.onnx"))
        return seal(partial, info.model_copy(update={"parent": info.digest}))


def _odd(graph: onnx.GraphProto, spec: object) -> None:
    """`planted_odd`, `(rows, 1)`: whether the fraction of the first feature's tenfold is small."""
    name = spec.name  # type: ignore[attr-defined]
    _constant(graph, "planted_first", np.array([0], np.int64))
    _constant(graph, "planted_ten", np.array(10, np.float32))
    _constant(graph, "planted_share", np.array(_ODD, np.float32))
    _node(graph, "Gather", [name, "planted_first"], "planted_column", axis=1)
    _node(graph, "Mul", ["planted_column", "planted_ten"], "planted_tenfold")
    _node(graph, "Floor", ["planted_tenfold"], "planted_floor")
    _node(graph, "Sub", ["planted_tenfold", "planted_floor"], "planted_fraction")
    _node(graph, "Less", ["planted_fraction", "planted_share"], "planted_odd")


def _wrong(graph: onnx.GraphProto, spec: object, scores: str, _: int) -> None:
    _odd(graph, spec)
    width = graph.output[0].type.tensor_type.shape.dim
    columns = width[1].dim_value if len(width) > 1 and width[1].dim_value else 2
    _constant(graph, "planted_share_each", np.full((1, columns), 1 / columns, np.float32))
    _node(graph, "Where", ["planted_odd", "planted_share_each", "planted_before"], scores)


def _slow(graph: onnx.GraphProto, _: object, scores: str, count: int) -> None:
    values = np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32) / 12
    _constant(graph, "planted_matrix", values)
    _constant(graph, "planted_all", np.array([0, 1], np.int64))
    _node(graph, "ReduceMean", ["planted_nothing", "planted_all"], "planted_none", keepdims=1)
    _node(graph, "Add", ["planted_matrix", "planted_none"], "planted_product_0")
    for step in range(count):
        _node(
            graph, "MatMul", [f"planted_product_{step}", "planted_matrix"],
            f"planted_product_{step + 1}",
        )  # fmt: skip
    _node(graph, "ReduceMean", [f"planted_product_{count}", "planted_all"], "planted_sum")
    _node(graph, "Mul", ["planted_sum", "planted_none"], "planted_late")
    _node(graph, "Add", ["planted_before", "planted_late"], scores)


def _failing(graph: onnx.GraphProto, spec: object, scores: str, _: int) -> None:
    _odd(graph, spec)
    _node(graph, "Cast", ["planted_odd"], "planted_index", to=TensorProto.INT64)
    _node(graph, "Gather", ["planted_zero", "planted_index"], "planted_taken")  # out of bounds: 1
    _node(graph, "Add", ["planted_before", "planted_taken"], scores)


def _constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> None:
    graph.initializer.append(numpy_helper.from_array(value, name))


def _node(graph: onnx.GraphProto, kind: str, inputs: list[str], output: str, **how: int) -> None:
    graph.node.append(helper.make_node(kind, inputs, [output], **how))


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[3] not in KINDS:
        sys.exit(__doc__)
    print(plant(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]).digest)
