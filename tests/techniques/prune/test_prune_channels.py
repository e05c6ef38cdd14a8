"""Pruning of torch modules."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from techniques.prune import pruned_nets

from trimgate.errors import NotApplicable
from trimgate.models import ModelSource, directory, export_onnx, import_model, load_trainable
from trimgate.techniques import Context
from trimgate.techniques.prune import TECHNIQUE, PruneConfig, rebuild
from trimgate.techniques.prune._channels import cut_channels, macs
from trimgate.techniques.prune._cut import Order, TrainingLoss, rounded
from trimgate.techniques.prune._rebuild import BUILDER
from trimgate.training import FinetuneConfig, finetune, training_labels

torch.set_num_threads(1)
NONE = FinetuneConfig(epochs=0)
IMAGE = torch.zeros(1, 1, 8, 8)


def order(share: float, **said: Any) -> Order:
    def no_loss() -> Any:
        raise AssertionError("the loss is not needed")

    return Order(share, PruneConfig(method="channels", amount=share, **said), (IMAGE,), no_loss)


def bring(net: str, context: Context, tmp_path: Path, *, epochs: int = 0, **said: Any) -> Path:
    """Trains a net of `pruned_nets` for some epochs, saves its weights and imports them."""
    torch.manual_seed(0)
    module = getattr(pruned_nets, net)()
    source = ModelSource(
        path=tmp_path / f"{net}.safetensors", builder=f"techniques.prune.pruned_nets:{net}", **said
    )
    save_file(module.state_dict(), source.path)
    info = import_model(source, context.train, tmp_path / "untrained")
    if not epochs:
        return tmp_path / "untrained"
    epochs_done = itertools.count()
    kind = "value" if info.task == "regression" else "logit"
    finetune(
        module,
        [next(iter(context.train.features.values()))]
        if not context.train.is_table
        else [np.column_stack(list(context.train.features.values())).astype(np.float32)],
        training_labels(info, context.train.labels),
        FinetuneConfig(epochs=epochs, learning_rate=3e-3),
        kind=kind,
        validate=lambda _: float(next(epochs_done)),  # keeps the last epoch
    )
    save_file(module.state_dict(), source.path)
    import_model(source, context.train, tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def standardized(cancer: Context) -> Context:
    def scaled(rows: Any) -> Any:
        return type(rows)(
            {
                name: (values - cancer.train.features[name].mean())
                / cancer.train.features[name].std()
                for name, values in rows.features.items()
            },
            rows.labels,
        )

    return Context(
        scaled(cancer.train), scaled(cancer.validation), "accuracy", cancer.target, seed=0
    )


def test_cnn_recovers_its_accuracy(digit_images: Context, conformance: Any, tmp_path: Path) -> None:
    source = bring("cnn", digit_images, tmp_path, epochs=6)
    config = PruneConfig(amount=0.5, finetune=FinetuneConfig(epochs=10, learning_rate=3e-3))
    info = conformance.check(TECHNIQUE, config, source, digit_images, tmp_path)
    notes = info.notes["prune"]
    assert notes["metric_before"] > 0.9
    assert notes["metric_untrained"] < notes["metric_before"] - 0.05, "nothing was cut"
    assert notes["metric_after"] > notes["metric_before"] - 0.02
    assert notes["macs_after"] < 0.4 * notes["macs_before"]
    assert notes["parameters_after"] < 0.4 * notes["parameters_before"]
    assert [cut["after"] for cut in notes["layers"]] == [8, 16, 16]
    assert [cut["round_to"] for cut in notes["layers"]] == [8, 16, 16]
    assert info.files["weights.safetensors"].size < 0.5 * (
        directory.read(source).files["weights.safetensors"].size
    )


def test_residual_network_is_reloaded_with_equal_outputs(
    digit_images: Context, conformance: Any, tmp_path: Path
) -> None:
    source = bring("resnet", digit_images, tmp_path)
    config = PruneConfig(amount=0.5, finetune=FinetuneConfig(epochs=1))
    info = conformance.check(TECHNIQUE, config, source, digit_images, tmp_path)
    assert info.builder == BUILDER
    assert info.builder_arguments["builder"] == "techniques.prune.pruned_nets:resnet"
    first = load_trainable(tmp_path / "first", info)
    second = load_trainable(tmp_path / "first", info)
    images = torch.from_numpy(digit_images.validation.features["image"][:20])
    with torch.inference_mode():
        assert torch.equal(first(images), second(images))
        assert first(images).shape == (20, 10)
    assert first.blocks[0].conv2.out_channels == first.stem[0].out_channels == 8
    assert macs(first, [IMAGE]) == info.notes["prune"]["macs_after"]
    changes = export_onnx(first, info, digit_images.validation, tmp_path / "model.onnx")
    assert changes["notes"]["optimize_graph"]["parity"]["agreement"] == 1.0


@pytest.mark.parametrize("net", ["cnn", "resnet", "mobile"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_rebuilt_module_equals_the_pruned_one(net: str, scope: str) -> None:
    torch.manual_seed(1)
    module = getattr(pruned_nets, net)().eval()
    cut = cut_channels(module, order(0.4, scope=scope))
    small = cut.module
    assert any(part.after < part.before for part in cut.parts)
    again = rebuild(f"techniques.prune.pruned_nets:{net}", {}, cut.stages)
    again.load_state_dict(small.state_dict())
    images = torch.randn(5, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(again(images), small(images))
    assert {n: (m.extra_repr(), type(m)) for n, m in again.named_modules()} == {
        n: (m.extra_repr(), type(m)) for n, m in small.named_modules()
    }


def test_removed_channels_are_the_weakest_and_dead_ones_cost_nothing() -> None:
    torch.manual_seed(0)
    module = pruned_nets.cnn().eval()
    with torch.no_grad():
        for name in ("0", "1"):
            layer = module.get_submodule(name)
            layer.weight[::2] = 0
            layer.bias[::2] = 0
        module[3].weight[:, ::2] = 0
    cut = cut_channels(module, order(0.5))
    assert cut.parts[0].after == 8
    torch.testing.assert_close(cut.module[0].weight, module[0].weight[1::2])


def test_mlp_with_taylor_and_global_ranking(
    standardized: Context, conformance: Any, tmp_path: Path
) -> None:
    source = bring("mlp", standardized, tmp_path, epochs=8)
    config = PruneConfig(
        amount=0.5, importance="taylor", scope="global", finetune=FinetuneConfig(epochs=2)
    )
    info = conformance.check(TECHNIQUE, config, source, standardized, tmp_path)
    assert info.notes["prune"]["metric_after"] > info.notes["prune"]["metric_before"] - 0.03


def test_regression_is_pruned_by_squared_error(
    diabetes: Context, conformance: Any, tmp_path: Path
) -> None:
    source = bring("regressor", diabetes, tmp_path, epochs=5)
    config = PruneConfig(amount=0.5, finetune=FinetuneConfig(epochs=2, learning_rate=0.01))
    info = conformance.check(TECHNIQUE, config, source, diabetes, tmp_path)
    assert info.notes["prune"]["metric_after"] <= info.notes["prune"]["metric_untrained"]


def test_pruning_twice_goes_back_to_the_users_builder(
    digit_images: Context, tmp_path: Path
) -> None:
    source = bring("cnn", digit_images, tmp_path)
    config = PruneConfig(amount=0.3, round_to=1, finetune=NONE)
    once = TECHNIQUE.apply(source, tmp_path / "once", config, digit_images)
    twice = TECHNIQUE.apply(tmp_path / "once", tmp_path / "twice", config, digit_images)
    assert twice.builder_arguments["builder"] == "techniques.prune.pruned_nets:cnn"
    assert twice.notes["prune"]["parameters_before"] == once.notes["prune"]["parameters_after"]
    module = load_trainable(tmp_path / "twice", twice)
    assert macs(module, [IMAGE]) == twice.notes["prune"]["macs_after"]


def test_auto_removes_as_much_as_is_good(
    digit_images: Context, conformance: Any, tmp_path: Path
) -> None:
    source = bring("cnn", digit_images, tmp_path, epochs=4)
    config = PruneConfig(
        amounts=(0.25, 0.9), tolerance=0.02, finetune=FinetuneConfig(epochs=2, learning_rate=2e-3)
    )
    info = TECHNIQUE.apply(source, tmp_path / "pruned", config, digit_images)
    notes = info.notes["prune"]
    assert notes["amount"] == 0.25
    assert notes["metric_after"] >= notes["metric_before"] - 0.02
    strict = config.model_copy(update={"amounts": (0.9,), "finetune": NONE})
    words = conformance.check_refusal(TECHNIQUE, strict, source, digit_images, tmp_path)
    assert "90%" in words


@pytest.mark.parametrize(
    ("net", "words"),
    [("fixed_view", "sizes"), ("recurrent", "LSTM"), ("linear", "no layer")],
)
def test_refuses_what_it_cannot_prune(
    net: str, words: str, digit_images: Context, conformance: Any, tmp_path: Path
) -> None:
    source = bring(net, digit_images, tmp_path)
    config = PruneConfig(amount=0.5, finetune=NONE)
    assert words in conformance.check_refusal(TECHNIQUE, config, source, digit_images, tmp_path)


@pytest.mark.parametrize(
    ("module", "least"),
    [(pruned_nets.resnet(64), 0.22), (pruned_nets.resnet50(64), 0.22),
     (pruned_nets.efficientnet(32), 0.22)],
    ids=["ResNet-18", "ResNet-50", "EfficientNet-Lite"],
)  # fmt: skip
@pytest.mark.parametrize("amount", [0.3, 0.5])
def test_known_shapes_keep_multiples_of_16(module: Any, least: float, amount: float) -> None:
    cut = cut_channels(module.eval(), order(amount))
    assert all(part.after % 16 == 0 and part.round_to == 16 for part in cut.parts)
    left = macs(cut.module, [IMAGE]) / macs(module, [IMAGE])
    assert least < left < (1 - amount) ** 1.5


@pytest.mark.parametrize("importance", ["l1", "fpgm", "batch_norm", "random", "taylor"])
@pytest.mark.parametrize("net", ["resnet50", "efficientnet"])
def test_criteria(net: str, importance: str) -> None:
    torch.manual_seed(0)
    module = getattr(pruned_nets, net)().eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.1, 1)
    images = torch.randn(32, 1, 8, 8)
    loss = TrainingLoss([([images], torch.arange(32) % 10)], "logit")
    config = PruneConfig(method="channels", amount=0.5, importance=importance)
    made = [cut_channels(module, Order(0.5, config, (IMAGE,), lambda: loss)) for _ in range(2)]
    again = rebuild(f"techniques.prune.pruned_nets:{net}", {}, made[0].stages)
    again.load_state_dict(made[1].module.state_dict())
    usual = cut_channels(module, order(0.5))
    with torch.inference_mode():
        assert torch.equal(again(images), made[0].module(images))
        assert not torch.equal(usual.module(images), made[0].module(images))
    assert [p.after for p in usual.parts] == [p.after for p in made[0].parts]


def test_slimming_removes_the_channels_of_small_scales() -> None:
    torch.manual_seed(0)
    module = pruned_nets.resnet50().eval()
    scale = module.layer2[1].bn1.weight
    with torch.no_grad():
        scale[::2] = 1e-3
    cut = cut_channels(module, order(0.5, importance="batch_norm"))
    kept = cut.module.layer2[1].bn1.weight
    assert torch.equal(kept, scale[1::2])
    with pytest.raises(NotApplicable, match="batch norm"):
        cut_channels(
            torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Linear(16, 2)).eval(),
            replace(order(0.5, importance="batch_norm"), example=(torch.zeros(1, 4),)),
        )


def test_ratios_of_single_layers(digit_images: Context, conformance: Any, tmp_path: Path) -> None:
    source = bring("cnn", digit_images, tmp_path)
    config = PruneConfig(method="channels", ratios={"3": 0.5}, finetune=NONE)
    info = conformance.check(TECHNIQUE, config, source, digit_images, tmp_path)
    left = {p["layer"]: (p["before"], p["after"]) for p in info.notes["prune"]["layers"]}
    assert left == {"0": (16, 16), "3": (32, 16), "6": (32, 32)}
    wrong = PruneConfig(method="channels", ratios={"4": 0.5}, finetune=NONE)
    words = conformance.check_refusal(TECHNIQUE, wrong, source, digit_images, tmp_path)
    assert "'4'" in words
    assert "its layers are 0, 1, 3, 6" in words


@given(
    st.integers(1, 2048), st.floats(0.01, 0.99), st.sampled_from([1, 4, 8, 16]),
    st.sampled_from([1, 2, 4, 8]),
)  # fmt: skip
def test_kept_channels_are_a_multiple(size: int, amount: float, round_to: int, blocks: int) -> None:
    channels = size * blocks
    kept, multiple = rounded(channels, channels * (1 - amount), round_to, blocks)
    assert 1 <= kept <= channels
    assert kept == channels or (kept % multiple == 0 and kept % blocks == 0)
    assert multiple <= round_to
