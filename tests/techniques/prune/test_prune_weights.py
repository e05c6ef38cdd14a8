"""Single weights set to zero, and removal in steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from techniques.prune import pruned_nets
from techniques.prune.test_prune_channels import bring

from trimgate import techniques
from trimgate.errors import NotApplicable
from trimgate.models import directory, load_trainable
from trimgate.techniques import Context
from trimgate.techniques.prune import TECHNIQUE, PruneConfig
from trimgate.techniques.prune._config import Schedule
from trimgate.techniques.prune._cut import Order, TrainingLoss
from trimgate.techniques.prune._weights import compressed_size, cut_weights, hold
from trimgate.training import FinetuneConfig

torch.set_num_threads(1)
SHORT = FinetuneConfig(epochs=2, learning_rate=2e-3)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in module.named_parameters() if p.dim() > 1}


def order(share: float, **said: Any) -> Order:
    if "pattern" not in said:
        said["amount"] = share
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(40, 1, 8, 8, generator=generator)
    loss = TrainingLoss([([images], torch.arange(40) % 10)], "logit")
    return Order(share, PruneConfig(method="weights", **said), [images[:1]], lambda: loss)


def groups(weight: torch.Tensor, size: int) -> torch.Tensor:
    """How many weights are not zero, in each group of neighbours along the inputs."""
    return (weight.movedim(1, -1).reshape(-1, size) != 0).sum(dim=1)


def test_cnn_keeps_its_accuracy_and_its_zeros(
    digit_images: Context, conformance: Any, tmp_path: Path
) -> None:
    source = bring("cnn", digit_images, tmp_path, epochs=6)
    config = PruneConfig(
        method="weights", amount=0.7, finetune=FinetuneConfig(epochs=6, learning_rate=3e-3)
    )
    info = conformance.check(TECHNIQUE, config, source, digit_images, tmp_path)
    notes = info.notes["prune"]
    assert notes["metric_after"] > notes["metric_before"] - 0.03
    assert notes["epochs"] > 0
    assert notes["best_epoch"] > 0
    module = load_trainable(tmp_path / "first", info)
    for name, weight in weights(module).items():
        assert int((weight == 0).sum()) == round(0.7 * weight.numel()), name
    assert notes["sparsity"] == pytest.approx(0.7, abs=0.001)
    assert notes["macs_after"] == notes["macs_before"], "a dense runtime computes as much"
    assert notes["compressed_bytes_after"] < 0.5 * notes["compressed_bytes_before"]
    assert notes["compressed_bytes_after"] == compressed_size(module)
    assert "70%" in notes["says"]
    assert "no faster" in notes["says"]
    assert info.builder == directory.read(source).builder
    plain = {n: f.size for n, f in info.files.items()}
    assert plain["weights.safetensors"] == (
        directory.read(source).files["weights.safetensors"].size
    )


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "random"])
def test_a_global_rank_leaves_layers_with_different_shares(importance: str) -> None:
    torch.manual_seed(0)
    module = pruned_nets.cnn().eval()
    with torch.no_grad():
        module[0].weight *= 10
    cut = cut_weights(module, order(0.6, scope="global", importance=importance))
    left = {part.layer: part.after / part.before for part in cut.parts}
    total = sum(part.before for part in cut.parts)
    assert sum(part.after for part in cut.parts) == pytest.approx(0.4 * total, abs=1)
    if importance == "magnitude":
        assert left["0"] > 0.9
        kept = torch.cat([w[cut.masks[n]].abs() for n, w in weights(module).items()])
        gone = torch.cat([w[~cut.masks[n]].abs() for n, w in weights(module).items()])
        assert gone.max() <= kept.min()


@settings(max_examples=15)
@given(st.sampled_from(["1:2", "2:4", "1:4", "4:8"]))
def test_pattern_holds_in_every_group(pattern: str) -> None:
    torch.manual_seed(0)
    module = pruned_nets.resnet().eval()
    kept, size = map(int, pattern.split(":"))
    cut = cut_weights(module, order(1 - kept / size, pattern=pattern))
    for name, weight in weights(cut.module).items():
        if weight.shape[1] % size:
            assert name == "stem.0.weight"
            assert int((weight == 0).sum()) == 0
        else:
            assert groups(weight, size).eq(kept).all(), name
            held = (weight != 0) == cut.masks[name]
            assert held.all()


def test_pattern_through_fine_tuning(
    digit_images: Context, conformance: Any, tmp_path: Path
) -> None:
    source = bring("resnet", digit_images, tmp_path)
    config = PruneConfig(
        method="weights", pattern="2:4", schedule=Schedule(steps=2), finetune=SHORT
    )
    info = conformance.check(TECHNIQUE, config, source, digit_images, tmp_path)
    module = load_trainable(tmp_path / "first", info)
    assert all(
        groups(weight, 4).le(2).all()
        for weight in weights(module).values()
        if weight.shape[1] % 4 == 0
    )
    assert info.notes["prune"]["left_dense"] == ["stem.0"]
    assert info.recipe[-1]["pattern"] == "2:4"


def test_text_model(
    text_model: Path, text_context: Context, conformance: Any, tmp_path: Path
) -> None:
    config = PruneConfig(method="weights", amount=0.5, finetune=FinetuneConfig(epochs=1))
    info = conformance.check(TECHNIQUE, config, text_model, text_context, tmp_path)
    module = load_trainable(tmp_path / "first", info)
    query = module.model.bert.encoder.layer[0].attention.self.query.weight
    assert int((query == 0).sum()) == query.numel() // 2
    assert int((module.model.bert.embeddings.word_embeddings.weight == 0).sum()) <= 32


def test_ratios_take_from_the_named_layers_alone() -> None:
    module = pruned_nets.cnn().eval()
    said = Order(
        0.0, PruneConfig(method="weights", ratios={"3": 0.9}), [], lambda: pytest.fail("used")
    )
    cut = cut_weights(module, said)
    assert {p.layer: round(1 - p.after / p.before, 2) for p in cut.parts} == {
        "0": 0.0, "3": 0.9, "6": 0.0, "8": 0.0,
    }  # fmt: skip


def test_masks_hold_what_training_moves() -> None:
    module = pruned_nets.cnn()
    cut = cut_weights(module, order(0.5))
    with torch.no_grad():
        for parameter in cut.module.parameters():
            parameter += 1
    hold(cut.module, cut.masks)
    assert all(
        torch.equal(weight != 0, cut.masks[name])
        for name, weight in weights(cut.module).items()
    )  # fmt: skip


def test_auto_and_refusals(digit_images: Context, conformance: Any, tmp_path: Path) -> None:
    source = bring("cnn", digit_images, tmp_path, epochs=4)
    config = PruneConfig(
        method="weights", amounts=(0.3, 0.98), tolerance=0.02,
        finetune=FinetuneConfig(epochs=1, learning_rate=1e-3),
    )  # fmt: skip
    info = TECHNIQUE.apply(source, tmp_path / "pruned", config, digit_images)
    assert info.notes["prune"]["amount"] == 0.3
    strict = config.model_copy(update={"amounts": (0.98,)})
    words = conformance.check_refusal(TECHNIQUE, strict, source, digit_images, tmp_path)
    assert "98% of its weights" in words
    odd = PruneConfig(method="weights", pattern="3:7")
    words = conformance.check_refusal(TECHNIQUE, odd, source, digit_images, tmp_path)
    assert "groups of 7" in words


def test_what_comes_after_may_not_fill_the_zeros() -> None:
    zeros = PruneConfig(method="weights", amount=0.5)
    assert "put prune weights last" in str(
        TECHNIQUE.order_problem(PruneConfig(amount=0.5), [zeros])
    )
    assert TECHNIQUE.order_problem(zeros, [PruneConfig(amount=0.5)]) is None
    assert TECHNIQUE.order_problem(zeros, [zeros]) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"pattern": "4:2"},
        {"pattern": "2:4", "amount": 0.5},
        {"pattern": "2:4", "method": "channels"},
        {"method": "weights", "importance": "fpgm"},
        {"method": "weights", "round_to": 8},
        {"method": "trees", "schedule": {"steps": 3}},
        {"method": "channels", "depth": 3},
        {"method": "layers", "ratios": {"a": 0.5}},
        {"method": "heads", "ratios": {"a": 0.5}, "scope": "global"},
        {"schedule": {"steps": 1}},
    ],
)
def test_config_refuses_what_does_not_fit(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PruneConfig(**wrong)


def test_schedule_is_cubic() -> None:
    shares = Schedule(steps=4).shares(0.8)
    assert shares == pytest.approx([0.4625, 0.7, 0.7875, 0.8])


@pytest.mark.parametrize("method", ["channels", "layers"])
def test_steps_end_where_one_cut_would(
    method: str, digit_images: Context, conformance: Any, tmp_path: Path
) -> None:
    source = bring("resnet50", digit_images, tmp_path)
    none = FinetuneConfig(epochs=0)
    slow = PruneConfig(
        method=method, amount=0.5, schedule=Schedule(steps=3, epochs=1), finetune=none
    )
    info = conformance.check(TECHNIQUE, slow, source, digit_images, tmp_path)
    at_once = slow.model_copy(update={"schedule": None})
    other = TECHNIQUE.apply(source, tmp_path / "once", at_once, digit_images)
    notes, once = info.notes["prune"], other.notes["prune"]
    assert [(p["layer"], p["before"]) for p in notes["layers"]] == (
        [(p["layer"], p["before"]) for p in once["layers"]]
    )
    assert sum(p["after"] for p in notes["layers"]) == sum(p["after"] for p in once["layers"])
    assert notes["parameters_after"] < 0.8 * notes["parameters_before"]
    assert notes["epochs"] == 2


def test_a_killed_step_goes_on(digit_images: Context, tmp_path: Path) -> None:
    source = bring("cnn", digit_images, tmp_path)
    config = PruneConfig(
        amount=0.5, schedule=Schedule(steps=2, epochs=1), finetune=FinetuneConfig(epochs=2)
    )
    whole = TECHNIQUE.apply(source, tmp_path / "whole", config, digit_images)
    kept = replace(digit_images, work=tmp_path / "work")
    TECHNIQUE.apply(source, tmp_path / "first", config, kept)
    made = sorted(p.name for p in (tmp_path / "work").iterdir())
    assert made == ["finetune-0.5-0.pt", "finetune-0.5-1.pt"]
    again = TECHNIQUE.apply(source, tmp_path / "again", config, kept)
    assert again.digest == whole.digest


def test_suggestions(text_model: Path, tmp_path: Path, digit_images: Context) -> None:
    sources = [text_model, bring("cnn", digit_images, tmp_path)]
    for source in sources:
        info = directory.read(source)
        suggested = TECHNIQUE.suggest(info, digit_images.target, frozenset())
        assert suggested
        for suggestion in suggested:
            config = techniques.parse_step(suggestion.step)
            assert isinstance(config, PruneConfig)
            assert config.method != "weights"
            assert TECHNIQUE.refusal(info, config, digit_images.target) is None


def test_a_search_cuts_more_channels_than_the_default(
    tmp_path: Path, digit_images: Context
) -> None:
    info = directory.read(bring("cnn", digit_images, tmp_path))
    found = TECHNIQUE.suggest(info, digit_images.target, frozenset())
    amounts: dict[bool, list[float]] = {True: [], False: []}
    for suggestion in found:
        if "method" not in suggestion.step:  # of a CNN: channels
            amounts[suggestion.usual].append(suggestion.step["amount"])
    assert amounts == {True: [0.3, 0.5], False: [0.7]}


def test_nothing_to_set_to_zero() -> None:
    with pytest.raises(NotApplicable, match="no dense"):
        cut_weights(torch.nn.Sequential(torch.nn.BatchNorm1d(3)), order(0.5))
