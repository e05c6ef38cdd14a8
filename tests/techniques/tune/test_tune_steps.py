"""Tuning the parameters of other steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.neural_network import MLPClassifier

from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import directory
from trimgate.techniques import Context, get, parse_step
from trimgate.techniques.tune import TECHNIQUE
from trimgate.techniques.tune._tasks import path_of


def tune(step: dict[str, Any], **said: Any) -> Any:
    return parse_step({"technique": "tune", "step": step, "trials": 5, **said})


@pytest.fixture
def boosted(cancer: Context, bring: Any, matrix: Any) -> Path:
    model = GradientBoostingClassifier(n_estimators=30, random_state=0)
    return bring(model.fit(matrix(cancer.train), cancer.train.labels), cancer.train)


@pytest.fixture
def network(digits: Context, bring: Any, matrix: Any, tmp_path: Path) -> Path:
    """A network with its ONNX form."""
    model = MLPClassifier((16, 12), max_iter=15, random_state=0, tol=1e-2)
    source = bring(model.fit(matrix(digits.train), digits.train.labels), digits.train)
    out = tmp_path / "onnx"
    get("optimize_graph").apply(source, out, parse_step({"technique": "optimize_graph"}), digits)
    return out


def test_the_share_to_prune(
    boosted: Path, cancer: Context, conformance: Any, tmp_path: Path
) -> None:
    context = replace(cancer, metric="roc_auc")
    config = tune(
        {"technique": "prune", "method": "trees"},
        space={"amount": {"low": 0.1, "high": 0.9}},
        objectives=["metric", "size"],
        tolerance=0.02,
    )
    assert TECHNIQUE.form_needed(config) == TECHNIQUE.form_given(config) == "trainable"
    assert config.title() == "tuned prune trees"
    info = conformance.check(TECHNIQUE, config, boosted, context, tmp_path)
    notes = info.notes["tune"]
    assert notes["best"]["size"] < 1
    assert notes["step"]["amount"] == notes["best_parameters"]["amount"]
    assert info.notes["prune"]["trees_after"] < 30
    assert info.recipe[-1]["step"] == {"technique": "prune", "method": "trees"}


def test_calibration_and_the_nodes_that_stay_in_float(
    network: Path, digits: Context, conformance: Any, tmp_path: Path
) -> None:
    config = tune({"technique": "quantize", "rows": 64}, objectives=["metric", "size"])
    assert TECHNIQUE.form_needed(config) == TECHNIQUE.form_given(config) == "onnx"
    info = conformance.check(TECHNIQUE, config, network, digits, tmp_path)
    notes = info.notes["tune"]
    assert set(notes["best_parameters"]) == {"method", "per_channel", "exclude"}
    # the layers, each in or out
    graph = onnx.load(network / "model.onnx").graph
    products = [n.name for n in graph.node if n.op_type in ("MatMul", "Gemm")]
    assert set(notes["best_parameters"]["exclude"]) <= set(products)
    assert any("exclude[" in name for name in notes["importances"]) or notes["complete"] < 5
    assert notes["step"]["rows"] == 64
    assert info.framework == "onnx"


def test_latency_is_measured_beside_the_given_model(
    network: Path, digits: Context, tmp_path: Path
) -> None:
    config = tune(
        {"technique": "quantize", "rows": 64, "per_channel": False},
        space={"method": {"choices": ["minmax", "entropy"]}},
        trials=2,
        sampler="grid",
    )
    assert config.goals == ("metric", "latency")
    notes = TECHNIQUE.apply(network, tmp_path / "out", config, digits).notes["tune"]
    assert 0.1 < notes["best"]["latency"] < 10
    assert notes["front"]


def test_steps_that_fail_in_a_trial(boosted: Path, cancer: Context, tmp_path: Path) -> None:
    """No trees can be spared at this tolerance, and the reason is the step's own."""
    context = replace(cancer, metric="log_loss")
    config = tune(
        {"technique": "prune", "method": "trees", "max_loss_rise": 0.0},
        space={"tolerance": {"choices": [0.0]}},
        objectives=["metric"],
    )
    with pytest.raises(NotApplicable, match=r"none of .* trials worked"):
        TECHNIQUE.apply(boosted, tmp_path / "out", config, context)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"step": {"technique": "shrink"}}, "is not a technique"),
        ({"step": {"technique": "prune", "amount": 3}}, "prune.amount.* = 3: .*less than 1"),
        ({"step": {"technique": "tune"}}, "does not tune a tune step"),
        ({"step": {"technique": "prune"}, "folds": 3}, "folds has no meaning"),
        ({"step": {"technique": "prune"}, "pruner": "asha"}, "cannot be judged early"),
    ],
)  # fmt: skip
def test_wrong_steps_are_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_step({"technique": "tune", **said})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"amuont": {"low": 0.1, "high": 0.5}}, "is no parameter of prune; did you mean 'amount'"),
        ({"finetune.epoch": {"low": 1, "high": 2}}, "did you mean 'finetune.epochs'"),
        ({"amount": {"low": 0.1, "high": 1.5}}, "prune.amount"),
        ({"ratios": {"choices": [None]}}, "prune.ratios"),
        ({"technique": {"choices": ["quantize"]}}, "is no parameter of prune"),
    ],
)
def test_wrong_spaces_are_told_before_work(
    space: Any, message: str, boosted: Path, cancer: Context, tmp_path: Path
) -> None:
    config = tune({"technique": "prune"}, space=space)
    with pytest.raises(InvalidInput, match=message):
        TECHNIQUE.apply(boosted, tmp_path / "out", config, cancer)


def test_names_of_layers_keep_their_dots() -> None:
    step = parse_step({"technique": "prune", "ratios": {"block.0.conv": 0.5}})
    assert path_of(step, "ratios.block.1.conv") == ("ratios", "block.1.conv")
    assert path_of(step, "finetune.epochs") == ("finetune", "epochs")
    assert path_of(step, "finetune.epochs.more") is None
    assert path_of(step, "technique") is None


def test_what_the_step_refuses_is_refused(
    boosted: Path, cancer: Context, conformance: Any, tmp_path: Path
) -> None:
    words = conformance.check_refusal(
        TECHNIQUE, tune({"technique": "quantize"}), boosted, cancer, tmp_path
    )
    assert "tree ensemble" in words
    words = conformance.check_refusal(
        TECHNIQUE, tune({"technique": "select_features"}), boosted, cancer, tmp_path
    )
    assert "no default space" in words


def test_a_graph_cannot_be_trained(
    network: Path, digits: Context, conformance: Any, tmp_path: Path
) -> None:
    quantized = tmp_path / "quantized"
    step = parse_step({"technique": "quantize", "rows": 64, "per_channel": False})
    get("quantize").apply(network, quantized, step, digits)
    assert directory.read(quantized).framework == "onnx"
    words = conformance.check_refusal(
        TECHNIQUE, parse_step({"technique": "tune"}), quantized, digits, tmp_path
    )
    assert "only there as ONNX" in words
