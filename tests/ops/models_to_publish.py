"""Small real model directories."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from trimgate.models.directory import ModelInfo, TensorSpec, seal, writing


def onnx_bytes(weight=1.0, domain=""):
    node = helper.make_node("Mul", ["x", "w"], ["y"], domain=domain)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [1], [weight])],
    )
    imports = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports).SerializeToString()


def info(name="m", **changes):
    return ModelInfo(
        name=name,
        task="regression",
        family="other",
        framework="onnx",
        inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 1), features=("a",)),),
        features=("a",),
        **changes,
    )


def model(folder, weight=1.0, name="m", large=0):
    """A model directory; `large` adds a file of so many bytes."""
    with writing(folder) as partial:
        (partial / "model.onnx").write_bytes(onnx_bytes(weight))
        (partial / "deeper").mkdir()
        (partial / "deeper" / "notes.txt").write_text("x")
        if large:
            rows = np.random.default_rng(0).integers(0, 256, large, dtype=np.uint8)
            np.save(partial / "large.npy", rows)
        seal(partial, info(name))
    onnx.checker.check_model(str(folder / "model.onnx"))
    return folder
