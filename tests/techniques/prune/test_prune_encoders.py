"""Heads, feed-forward neurons and layers of encoders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import text_models
import torch
from techniques.prune import pruned_nets
from techniques.prune.test_prune_channels import bring

from trimgate.errors import NotApplicable
from trimgate.models import (
    ModelSource,
    directory,
    export_onnx,
    import_model,
    load_trainable,
    transformers,
)
from trimgate.techniques import Context
from trimgate.techniques.prune import TECHNIQUE, PruneConfig, rebuild
from trimgate.techniques.prune._cut import Order, TrainingLoss
from trimgate.techniques.prune._encoders import find_heads, find_neurons
from trimgate.techniques.prune._modules import _CUTS
from trimgate.training import FinetuneConfig

torch.set_num_threads(1)
SHORT = FinetuneConfig(epochs=1, learning_rate=1e-3)
SHAPE = {
    "vocab_size": len(text_models.VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "num_labels": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": SHAPE,
    "roberta": SHAPE,
    "electra": {**SHAPE, "embedding_size": 16},
    "mpnet": SHAPE,
    "modernbert": {
        **SHAPE, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3,
        "global_attn_every_n_layers": 2, "local_attention": 8,
    },
    "deberta-v2": {
        **SHAPE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
        "pooler_hidden_size": 32, "max_relative_positions": 16,
    },
    "distilbert": {
        "vocab_size": SHAPE["vocab_size"], "dim": 32, "n_layers": 4, "n_heads": 4,
        "hidden_dim": 64, "max_position_embeddings": 40, "num_labels": 2,
    },
}  # fmt: skip


def encoder(kind: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A module with random weights, large enough to matter, and its config."""
    torch.manual_seed(0)
    module = transformers.build({"model_type": kind, **CONFIGS[kind]})
    for parameter in module.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return module, transformers.dump_config(module.model.config)


def tensors(module: Any, rows: int = 1, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, SHAPE["vocab_size"], (rows, 11), generator=generator)
    made = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }
    made["attention_mask"][rows // 2 :, 8:] = 0
    return [made[name] for name in module.inputs]


def order(module: Any, method: str, share: float, **said: Any) -> Order:
    batch = tensors(module, 24, seed=1)
    labels = torch.arange(24) % 2
    loss = TrainingLoss([(batch[:], labels)], "logit")
    config = PruneConfig(method=method, amount=share, **said)
    return Order(share, config, tensors(module), lambda: loss)


def output(module: torch.nn.Module, given: list[torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return module(*given)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("method", ["heads", "ffn", "heads_and_ffn", "layers"])
def test_encoders_are_cut_and_made_again(kind: str, method: str) -> None:
    module, config = encoder(kind)
    cut = _CUTS[method](module, order(module, method, 0.5))
    again = rebuild(transformers.BUILDER, {"config": config}, cut.stages)
    again.load_state_dict(cut.module.state_dict())
    rows = tensors(module, 6)
    assert torch.equal(output(again, rows), output(cut.module, rows))
    assert output(again, rows).shape == (6, 2)
    assert not torch.equal(output(module, rows), output(again, rows))
    size = {m: sum(p.numel() for p in m.parameters()) for m in (module, again)}
    assert size[again] < size[module]
    loss = again.train()(*rows).square().sum()
    loss.backward()
    # a second cut works on what the first one left
    once_more = _CUTS[method](again.eval(), order(again, method, 0.5))
    twice = rebuild(transformers.BUILDER, {"config": config}, [*cut.stages, *once_more.stages])
    twice.load_state_dict(once_more.module.state_dict())
    assert torch.equal(output(twice, rows), output(once_more.module, rows))


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "modernbert"])
@pytest.mark.parametrize(("method", "find"), [("heads", find_heads), ("ffn", find_neurons)])
@pytest.mark.parametrize("importance", ["magnitude", "l1", "taylor"])
def test_what_nothing_listens_to_is_removed_without_a_change(
    kind: str, method: str, find: Any, importance: str
) -> None:
    module, _ = encoder(kind)
    with torch.no_grad():
        for units in find(module):
            deaf = slice(0, units.count * units.size // 2)
            module.get_submodule(units.output).weight[:, deaf] = 0
            for projection in units.inputs:
                rows = module.get_submodule(projection.name).weight
                rows.view(projection.blocks, units.count, units.size, -1)[
                    :, : units.count // 2
                ] *= 1e-3
    cut = _CUTS[method](module, order(module, method, 0.5, importance=importance))
    rows = tensors(module, 8, seed=3)
    torch.testing.assert_close(output(cut.module, rows), output(module, rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "mpnet"])
def test_layers_keep_the_same_number_of_heads(kind: str) -> None:
    module, _ = encoder(kind)
    cut = _CUTS["heads"](module, order(module, "heads", 0.3))
    assert {part.after for part in cut.parts} == {3}
    assert {units.count for units in find_heads(cut.module)} == {3}
    least = _CUTS["heads"](module, order(module, "heads", 0.99))
    assert {part.after for part in least.parts} == {1}


def test_heads_are_ranked_over_all_layers_but_none_loses_all() -> None:
    module, _ = encoder("bert")
    with torch.no_grad():
        for name in ("query", "key", "value"):
            first = module.model.bert.encoder.layer[0].attention.self
            getattr(first, name).weight *= 1e-3
        module.model.bert.encoder.layer[0].attention.output.dense.weight *= 1e-3
    cut = _CUTS["heads"](
        module, order(module, "heads", 0.5, scope="global", importance="magnitude")
    )
    # normalized by layer, so that the scale of a layer alone decides nothing
    assert all(1 <= part.after <= 4 for part in cut.parts)
    assert sum(part.after for part in cut.parts) in (8, 9)


def test_ratios_name_layers() -> None:
    module, _ = encoder("bert")
    first, *others = [units.name for units in find_heads(module)]
    config = PruneConfig(method="heads", ratios={first: 0.75})
    base = order(module, "heads", 0.5)
    cut = _CUTS["heads"](module, Order(0.0, config, base.example, base.loss))
    assert {part.layer: part.after for part in cut.parts} == {
        first: 1,
        **dict.fromkeys(others, 4),
    }
    wrong = PruneConfig(method="heads", ratios={"nowhere": 0.5})
    with pytest.raises(NotApplicable, match="nowhere"):
        _CUTS["heads"](module, Order(0.0, wrong, base.example, base.loss))


def test_neurons_are_a_multiple() -> None:
    module, _ = encoder("bert")
    cut = _CUTS["ffn"](module, order(module, "ffn", 0.35))
    assert {(part.after, part.round_to) for part in cut.parts} == {(48, 16)}


def test_layers_that_do_nothing_go_first() -> None:
    module, _ = encoder("modernbert")
    with torch.no_grad():
        idle = module.model.model.layers[1]
        idle.attn.Wo.weight.zero_()
        idle.mlp.Wo.weight.zero_()
    base = order(module, "layers", 0.34)
    batch, _ = base.loss().batches[0]
    sure = TrainingLoss([(batch, output(module, batch).argmax(1))], "logit")
    cut = _CUTS["layers"](module, Order(0.34, base.config, base.example, lambda: sure))
    rows = tensors(module, 6)
    assert [stage["removed"] for stage in cut.stages] == [{"model.model.layers": [1]}]
    torch.testing.assert_close(output(cut.module, rows), output(module, rows))


@pytest.mark.parametrize(
    ("net", "removable"), [("resnet50", 6), ("efficientnet", 3), ("flat", None), ("cnn", None)]
)
def test_residual_blocks_that_keep_their_shape_can_go(net: str, removable: int | None) -> None:
    torch.manual_seed(0)
    module = getattr(pruned_nets, net)().eval()
    images = torch.randn(16, 1, 8, 8)
    loss = TrainingLoss([([images], torch.arange(16) % 10)], "logit")
    what = Order(0.4, PruneConfig(method="layers", amount=0.4), [images[:1]], lambda: loss)
    if removable is None:
        with pytest.raises(NotApplicable, match="left out"):
            _CUTS["layers"](module, what)
        return
    cut = _CUTS["layers"](module, what)
    assert sum(part.before for part in cut.parts) == removable
    assert len(cut.stages) == round(0.4 * removable)
    again = rebuild(f"techniques.prune.pruned_nets:{net}", {}, cut.stages)
    again.load_state_dict(cut.module.state_dict())
    assert torch.equal(output(again, [images]), output(cut.module, [images]))


@pytest.mark.parametrize(
    "config",
    [
        PruneConfig(method="heads", amount=0.5, finetune=SHORT),
        PruneConfig(method="layers", amount=0.34, finetune=SHORT),
        PruneConfig(amount=0.5, finetune=SHORT),
    ],
    ids=lambda config: config.method,
)
def test_text_model(
    config: PruneConfig, text_model: Path, text_context: Context, conformance: Any, tmp_path: Path
) -> None:
    info = conformance.check(TECHNIQUE, config, text_model, text_context, tmp_path)
    notes = info.notes["prune"]
    assert notes["macs_after"] < notes["macs_before"]
    assert notes["parameters_after"] < notes["parameters_before"]
    if config.method == "auto":
        assert notes["method"] == "heads_and_ffn"
    assert info.tokenizer == directory.read(text_model).tokenizer
    module = load_trainable(tmp_path / "first", info)
    graph = export_onnx(module, info, text_context.validation, tmp_path / "model.onnx")
    assert graph["notes"]["optimize_graph"]["parity"]["agreement"] == 1.0


def test_two_steps_cut_heads_then_layers(
    text_model: Path, text_context: Context, tmp_path: Path
) -> None:
    none = FinetuneConfig(epochs=0)
    heads = PruneConfig(method="heads", amount=0.5, finetune=none)
    layers = PruneConfig(method="layers", amount=0.34, finetune=none)
    ffn = PruneConfig(method="ffn", amount=0.5, finetune=none)
    TECHNIQUE.apply(text_model, tmp_path / "1", heads, text_context)
    TECHNIQUE.apply(tmp_path / "1", tmp_path / "2", layers, text_context)
    info = TECHNIQUE.apply(tmp_path / "2", tmp_path / "3", ffn, text_context)
    assert info.builder_arguments["builder"] == transformers.BUILDER
    module = load_trainable(tmp_path / "3", info)
    layer_list = module.model.bert.encoder.layer
    assert len(layer_list) == 2
    assert {part.attention.self.num_attention_heads for part in layer_list} == {1}
    assert {part.intermediate.dense.out_features for part in layer_list} == {32}


def test_refusals(
    text_model: Path, text_context: Context, digit_images: Context, conformance: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    words = conformance.check_refusal(
        TECHNIQUE, PruneConfig(method="channels"), text_model, text_context, tmp_path
    )
    assert "transformer" in words
    words = conformance.check_refusal(
        TECHNIQUE, PruneConfig(importance="fpgm"), text_model, text_context, tmp_path
    )
    assert "fpgm" in words
    source = bring("cnn", digit_images, tmp_path)
    for method, said in {"heads": "transformers", "layers": "left out", "depth": "torch"}.items():
        words = conformance.check_refusal(
            TECHNIQUE, PruneConfig(method=method), source, digit_images, tmp_path
        )
        assert said in words


def test_shared_layers_are_not_left_out(
    text_context: Context, conformance: Any, tmp_path: Path
) -> None:
    config = {"model_type": "albert", **SHAPE, "embedding_size": 16}
    folder = text_models.write_folder(tmp_path / "albert", config)
    import_model(ModelSource(path=folder), text_context.train, tmp_path / "source")
    words = conformance.check_refusal(
        TECHNIQUE, PruneConfig(method="layers", amount=0.5), tmp_path / "source", text_context,
        tmp_path,
    )  # fmt: skip
    assert "share" in words


def test_heads_of_torch_itself_are_refused() -> None:
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    module = torch.nn.TransformerEncoder(layer, 2).eval()
    example = [torch.randn(1, 5, 16)]
    what = Order(0.5, PruneConfig(method="heads", amount=0.5), example, lambda: pytest.fail("used"))
    with pytest.raises(NotApplicable, match="MultiheadAttention"):
        _CUTS["heads"](module, what)
    narrow = Order(
        0.5, PruneConfig(method="ffn", amount=0.5, importance="l1"), example, what.loss
    )  # fmt: skip
    cut = _CUTS["ffn"](module, narrow)
    assert [part.after for part in cut.parts] == [16, 16]
    assert np.isfinite(output(cut.module, example).numpy()).all()
