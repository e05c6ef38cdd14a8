"""What the tasks that train nothing import on an ONNX model: imports are their largest cost."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimgate.data.dataset import Dataset
from trimgate.models.directory import ModelInfo, RuntimeChoice, TensorSpec, seal, writing

HEAVY = {
    "cmaes", "daal4py", "kfp", "kserve", "lightgbm", "mlflow", "nncf", "onnx",
    "onnxscript", "openvino", "optuna", "pandas", "scipy", "shap", "skl2onnx", "sklearn",
    "skops", "sympy", "tokenizers", "torch", "torch_pruning", "transformers", "xgboost",
}  # fmt: skip
EVALUATE = """
tasks.evaluate("model", "rows", out, split=out, name="x", metric="accuracy", baseline=None,
               chosen_on=None, settings={}, confidence=0.95, extra_metrics=[], seed=0)
"""
BENCHMARK = """
tasks.benchmark("model", "model", "validation", "rows", out, name="x", uri="x",
                target={"name": "t", "batch_sizes": [1]},
                settings={"seconds": 0.2, "processes": 1, "min_rounds": 5})
"""
SELECT = """
import json
candidate = json.load(open("candidate.json"))
tasks.select("model", "model", "validation", [tasks.encode(candidate)], out, "board.md",
             objective={"latency": 1.0}, policy={})
"""
GATE = """
tasks.gate("test", "test", "selection", "", out, "summary.md", policy={})
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small ONNX model and rows, both evaluated and benchmarked."""
    folder = tmp_path_factory.mktemp("run")
    weight = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["input", "w"], ["product"]),
            helper.make_node("Softmax", ["product"], ["scores"], axis=1),
        ],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    features = ("a", "b", "c", "d")
    info = ModelInfo(
        name="small",
        task="binary",
        family="linear",
        framework="onnx",
        inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 4), features=features),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(-1, 2)),),
        score_output="scores",
        labels=("no", "yes"),
        features=features,
        runtime=RuntimeChoice(name="onnxruntime"),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with writing(folder / "model") as partial:
        onnx.save(model, partial / "model.onnx")
        seal(partial, info)
    rows = np.random.default_rng(1).normal(size=(300, 4))
    labels = np.where(rows[:, 0] > 0, "yes", "no").astype(object)
    Dataset({n: rows[:, i] for i, n in enumerate(features)}, labels).save(folder / "rows")
    return folder


def imported(folder: Path, code: str, out: str, extra: str = "") -> set[str]:
    """The top-level packages in a fresh process after it ran a task."""
    script = (
        "import json, sys\n"
        "from trimgate import tasks\n"
        f"out = {out!r}\n{code}\n{extra}\n"
        "json.dump(sorted({n.partition('.')[0] for n in sys.modules}), open('modules.json', 'w'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads((folder / "modules.json").read_text()))


def test_nothing_heavy(run: Path) -> None:
    assert not imported(run, EVALUATE, "validation") & HEAVY
    assert not imported(run, EVALUATE, "test") & HEAVY
    keep = "json.dump(tasks.decode(made[0]), open('candidate.json', 'w'))"
    measuring = BENCHMARK.replace("tasks.benchmark", "made = tasks.benchmark", 1)
    assert not imported(run, measuring, "benchmark", keep) & HEAVY
    assert not imported(run, SELECT, "selection") & HEAVY
    assert not imported(run, GATE, "verdict") & HEAVY


def test_techniques_and_runtimes_are_found_without_their_packages(run: Path) -> None:
    code = (
        "from trimgate import runtimes, techniques\n"
        "assert techniques.names() and runtimes.names()\n"
        "[techniques.get(name).config.model_json_schema() for name in techniques.names()]\n"
    )
    assert not imported(run, code, "none") & (HEAVY | {"onnxruntime", "pyarrow"})
