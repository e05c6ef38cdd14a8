"""Selecting the features of torch modules."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trimgate import runtimes, techniques
from trimgate.models import build_inputs, directory, load_trainable
from trimgate.techniques import Context
from trimgate.techniques.select_features import TECHNIQUE, SelectFeaturesConfig
from trimgate.training import FinetuneConfig

torch.set_num_threads(1)
TUNE = FinetuneConfig(epochs=3, learning_rate=3e-3)


@pytest.mark.parametrize("method", ["permutation", "rfe", "l1", "mutual_information"])
def test_a_network_learns_to_do_without(
    method: Any, planted: Context, bring_module: Any, conformance: Any, tmp_path: Path
) -> None:
    source = bring_module("mlp", planted, features=11)
    config = SelectFeaturesConfig(method=method, keep=5, finetune=TUNE)
    info = conformance.check(TECHNIQUE, config, source, planted, tmp_path)
    notes = info.notes["select_features"]
    assert {"a", "b", "c"} - {"a"} <= set(notes["kept"])
    assert notes["metric_after"] > notes["metric_before"] - 0.05
    first = load_trainable(tmp_path / "first", info)
    export = techniques.get("optimize_graph")
    step = techniques.parse_step({"technique": "optimize_graph"})
    made = export.apply(tmp_path / "first", tmp_path / "served", step, planted)
    raw = build_inputs(made, planted.validation.features)["input"].copy()
    gone = [i for i, n in enumerate(info.features) if n in info.unused_features]
    with contextlib.closing(runtimes.load(tmp_path / "served")) as session:
        before = session.predict({"input": raw})
        raw[:, gone] = np.nan
        np.testing.assert_array_equal(session.predict({"input": raw}), before)
        raw[:, gone] = np.inf
        np.testing.assert_array_equal(session.predict({"input": raw}), before)
    with torch.inference_mode():
        np.testing.assert_allclose(
            torch.softmax(first(torch.from_numpy(raw)), 1).numpy(), before, atol=1e-5
        )


def test_twice_and_auto(planted: Context, bring_module: Any, tmp_path: Path) -> None:
    source = bring_module("normed", planted, features=11)
    config = SelectFeaturesConfig(tolerance=0.03, finetune=TUNE)
    once = TECHNIQUE.apply(source, tmp_path / "once", config, planted)
    assert len(once.unused_features) >= 4
    config = SelectFeaturesConfig(keep=2, finetune=TUNE)
    twice = TECHNIQUE.apply(tmp_path / "once", tmp_path / "twice", config, planted)
    assert set(twice.unused_features) > set(once.unused_features)
    assert twice.builder == once.builder
    assert twice.builder_arguments["builder"] == "techniques.select_features.feature_nets:normed"
    module = load_trainable(tmp_path / "twice", twice)
    rows = torch.from_numpy(build_inputs(twice, planted.validation.features)["input"])
    odd = rows.clone()
    odd[:, [n in twice.unused_features for n in twice.features]] = float("nan")
    with torch.inference_mode():
        assert torch.equal(module(rows), module(odd))


def test_regression(diabetes: Context, bring_module: Any, tmp_path: Path) -> None:
    source = bring_module("regressor", diabetes, epochs=0, features=10)
    config = SelectFeaturesConfig(
        method="mutual_information", keep=3, finetune=FinetuneConfig(epochs=1)
    )
    info = TECHNIQUE.apply(source, tmp_path / "out", config, diabetes)
    assert "bmi" in info.notes["select_features"]["kept"]


@pytest.mark.parametrize("method", ["shap", "model", "forward", "backward"])
def test_what_networks_do_not_offer(
    method: Any, planted: Context, bring_module: Any, conformance: Any, tmp_path: Path
) -> None:
    source = bring_module("mlp", planted, epochs=0, features=11)
    words = conformance.check_refusal(
        TECHNIQUE, SelectFeaturesConfig(method=method, keep=3), source, planted, tmp_path
    )
    assert "not for torch modules" in words
    assert directory.read(source).framework == "torch"
