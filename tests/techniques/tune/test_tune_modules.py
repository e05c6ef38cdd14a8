"""Tuning the training of torch modules."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from techniques.tune import tuned_nets

from trimgate.errors import InvalidInput
from trimgate.models import ModelSource, import_model, load_trainable
from trimgate.techniques import Context, parse_step
from trimgate.techniques.tune import TECHNIQUE

torch.set_num_threads(1)
FINETUNE = {"epochs": 3, "learning_rate": 1e-3, "distill": 0}
SPACE = {
    "learning_rate": {"low": 1e-4, "high": 3e-2, "log": True},
    "batch_size": {"choices": [32, 64]},
}


def tune(**said: Any) -> Any:
    return parse_step({"technique": "tune", "finetune": FINETUNE, "trials": 4, **said})


@pytest.fixture
def net(digits: Context, tmp_path: Path) -> Path:
    """A network with the weights that it began with."""
    torch.manual_seed(0)
    file = tmp_path / "net.safetensors"
    save_file(tuned_nets.mlp().state_dict(), file)
    source = ModelSource(
        path=file, builder="techniques.tune.tuned_nets:mlp", builder_arguments={"hidden": 16}
    )
    import_model(source, digits.train, tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.parametrize("start", ["given", "new"])
def test_training_from_given_and_from_new_weights(
    start: str, net: Path, digits: Context, conformance: Any, tmp_path: Path
) -> None:
    config = tune(space=SPACE, start=start)
    info = conformance.check(TECHNIQUE, config, net, digits, tmp_path)
    notes = info.notes["tune"]
    assert notes["metric_after"] < 0.9 * notes["metric_before"]
    assert notes["expected_after"] < notes["expected_before"]


def test_bad_learning_rates_are_ended_early(net: Path, digits: Context, tmp_path: Path) -> None:
    rates = [1e-2, 2e-2, 1e-6, 2e-6, 3e-6, 4e-6]
    config = tune(
        space={"learning_rate": {"choices": rates}}, sampler="grid", trials=6, pruner="asha"
    )
    notes = TECHNIQUE.apply(net, tmp_path / "out", config, digits).notes["tune"]
    assert notes["pruned"] >= 1
    assert notes["best_parameters"]["learning_rate"] >= 1e-2


def test_the_width_of_a_new_network(net: Path, digits: Context, tmp_path: Path) -> None:
    space = {"builder_arguments.hidden": {"choices": [2, 24]}}
    finetune = {**FINETUNE, "learning_rate": 1e-2}
    config = tune(space=space, start="new", sampler="grid", finetune=finetune)
    info = TECHNIQUE.apply(net, tmp_path / "out", config, digits)
    assert info.builder_arguments == {"hidden": 24}
    assert load_trainable(tmp_path / "out")[0].out_features == 24


def test_default_space(net: Path, digits: Context, tmp_path: Path) -> None:
    config = tune(finetune={**FINETUNE, "epochs": 2}, trials=2)
    few = replace(digits, train=digits.train.take(slice(0, 300)))
    notes = TECHNIQUE.apply(net, tmp_path / "out", config, few).notes["tune"]
    assert set(notes["best_parameters"]) == {"learning_rate", "weight_decay", "batch_size"}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"learning_rat": {"low": 1e-3, "high": 1e-2}}, "did you mean 'learning_rate'"),
        ({"builder_arguments.hidden": {"choices": [8]}}, "start to new"),
        ({"temperature": {"low": 1, "high": 2}}, "is no parameter"),
    ],
)
def test_wrong_names(
    space: Any, message: str, net: Path, digits: Context, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=message):
        TECHNIQUE.apply(net, tmp_path / "out", tune(space=space), digits)


def test_text_models(
    text_model: Path, text_context: Context, conformance: Any, tmp_path: Path
) -> None:
    config = tune(
        space={"learning_rate": {"choices": [1e-4, 1e-3]}}, trials=2, sampler="grid", guard=False,
        finetune={**FINETUNE, "epochs": 1},
    )  # fmt: skip
    info = conformance.check(TECHNIQUE, config, text_model, text_context, tmp_path)
    assert info.tokenizer is not None
    assert info.notes["tune"]["complete"] == 2


def test_workers_find_the_builder(net: Path, digits: Context, tmp_path: Path) -> None:
    config = tune(space=SPACE, trials=3, workers=2, guard=False)
    notes = TECHNIQUE.apply(net, tmp_path / "out", config, digits).notes["tune"]
    assert notes["complete"] == 3
