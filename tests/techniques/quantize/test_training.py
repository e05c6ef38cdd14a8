"""The step `quantize` with training (`qat-int8`), and what it is made of."""

import copy
import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from techniques.quantize import quantized_nets

from trimgate import runtimes
from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs
from trimgate.models.directory import read
from trimgate.techniques import Context, parse_step
from trimgate.techniques.quantize import TECHNIQUE, QuantizeConfig, _fake

Data = tuple[Dataset, Dataset]
_QAT = {"technique": "quantize", "scheme": "qat-int8", "finetune": {"epochs": 2}}


def _accuracy(directory: Path, rows: Dataset) -> float:
    session = runtimes.load(directory)
    scores = session.predict(build_inputs(session.info, rows.features))
    return float(np.mean(np.array(session.info.labels)[scores.argmax(axis=1)] == rows.labels))


def test_a_convolutional_network(
    torch_net: Any, digits_data: Data, context: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    source = torch_net("residual", digits_data[0])
    config = parse_step(_QAT)
    info = conformance.check(TECHNIQUE, config, source, context(digits_data), tmp_path)
    note = info.notes["quantize"]
    assert (note["batch_norms_folded"], note["batch_norms_frozen"]) == (2, 1)
    assert note["trained_layers"] == 3
    assert note["learnt_ranges"] == 3, "one for the input of each layer"
    assert note["integer_operators"]["QLinearConv"] == 2
    assert note["epochs"] == 2
    assert note["held_out_trained"] <= note["held_out_untrained"]
    before, after = (_accuracy(d, digits_data[1]) for d in (source, tmp_path / "first"))
    assert note["metric_float"] == pytest.approx(before)
    assert note["metric_rounded_trained"] == pytest.approx(after, abs=0.01)
    assert after > before - 0.02
    assert info.framework == "onnx"
    assert info.notes["optimize_graph"]["parity"]["agreement"] == 1


def test_a_network_of_linear_layers(
    torch_net: Any, table_data: Data, context: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    source = torch_net("dense", table_data[0])
    info = conformance.check(TECHNIQUE, parse_step(_QAT), source, context(table_data), tmp_path)
    assert sum(info.notes["quantize"]["nodes"].values()) == 2
    assert info.notes["quantize"]["learnt_ranges"] == 2
    rows = table_data[1]
    assert _accuracy(tmp_path / "first", rows) > _accuracy(source, rows) - 0.02


def test_a_transformer(
    text_model: Path, text_context: Context, conformance: ModuleType, tmp_path: Path
) -> None:
    few = dataclasses.replace(text_context, train=text_context.train.take(slice(0, 120)))
    config = parse_step({**_QAT, "finetune": {"epochs": 1}})
    info = conformance.check(TECHNIQUE, config, text_model, few, tmp_path)
    note = info.notes["quantize"]
    assert note["trained_layers"] == 20
    # query, key and value read the same tensor
    assert note["learnt_ranges"] == 20 - 2 * 3
    assert sum(note["integer_operators"].values()) == 20
    assert info.tokenizer == read(text_model).tokenizer
    rows = text_context.validation
    assert _accuracy(tmp_path / "first", rows) > _accuracy(text_model, rows) - 0.03


def test_excluded_modules_stay_in_float(
    torch_net: Any, digits_data: Data, context: Any, tmp_path: Path
) -> None:
    source = torch_net("residual", digits_data[0])
    config = parse_step({**_QAT, "exclude": ["first", "Linear"]})
    info = TECHNIQUE.apply(source, tmp_path / "q", config, context(digits_data))
    assert info.notes["quantize"]["nodes"] == {"Conv": 1}
    assert info.notes["quantize"]["trained_layers"] == 1


def test_learnt_ranges_are_those_of_the_file(
    torch_net: Any, digits_data: Data, context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimgate.techniques.quantize import _qat

    found: list[_qat.Trained] = []
    real = _qat.train

    def spy(*given: Any) -> _qat.Trained:
        found.append(real(*given))
        return found[-1]

    monkeypatch.setattr(_qat, "train", spy)
    source = torch_net("residual", digits_data[0])
    TECHNIQUE.apply(source, tmp_path / "q", parse_step(_QAT), context(digits_data))
    graph = onnx.load(tmp_path / "q" / "model.onnx").graph
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    scales = [values[n.input[1]] for n in graph.node if n.op_type == "QuantizeLinear"]
    for low, high in found[0].learnt.values():
        assert any(np.allclose(s, (high - low) / 255, rtol=1e-4) for s in scales if s.ndim == 0)


def test_a_killed_training_goes_on(
    torch_net: Any, table_data: Data, context: Any, tmp_path: Path
) -> None:
    source = torch_net("dense", table_data[0])
    whole = TECHNIQUE.apply(source, tmp_path / "a", parse_step(_QAT), context(table_data))
    base = dataclasses.replace(context(table_data), work=tmp_path / "work")
    TECHNIQUE.apply(source, tmp_path / "b", parse_step(_QAT), base)
    again = TECHNIQUE.apply(source, tmp_path / "c", parse_step(_QAT), base)
    assert list((tmp_path / "work").iterdir())
    assert whole.digest == again.digest


def test_refusals(
    torch_net: Any, mlp: Path, table_data: Data, digits_data: Data, context: Any,
    conformance: ModuleType, tmp_path: Path,
) -> None:  # fmt: skip
    config = QuantizeConfig(scheme="qat-int8")
    words = conformance.check_refusal(TECHNIQUE, config, mlp, context(table_data), tmp_path)
    assert "torch form" in words
    source = torch_net("pooled", digits_data[0], epochs=0)
    with pytest.raises(NotApplicable, match="no linear layer"):
        TECHNIQUE.apply(source, tmp_path / "q", config, context(digits_data))
    assert not (tmp_path / "q").exists()


def test_straight_through_gradients() -> None:
    rounding = _fake.FakeActivation(signed=False)
    rounding(torch.tensor([-1.0, 3.0]))
    rounding.seen.fill_(True)
    rounding.low.fill_(-1)
    rounding.high.fill_(3)
    rounding.eval()
    values = torch.tensor([-2.0, -0.5, 0.0, 2.9, 5.0], requires_grad=True)
    found = rounding(values)
    found.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 1, 0], "none outside the range"
    assert found[2] == 0, "zero is exact"
    step = 4 / 255
    assert float((found[1:4] - values[1:4]).abs().max()) <= step / 2 + 1e-6
    weight = torch.randn(4, 3, requires_grad=True)
    _fake.FakeWeight(127)(weight).sum().backward()
    assert weight.grad is not None
    assert bool((weight.grad == 1).all())


def test_a_constant_activation_is_harmless() -> None:
    for signed in (False, True):
        rounding = _fake.FakeActivation(signed)
        for constant in (0.0, 5.0, -5.0):
            rounding.seen.fill_(False)
            given = torch.full((4,), constant)
            assert torch.allclose(rounding.train()(given), given, atol=1e-6)


def test_norms_are_folded_only_where_nothing_changes() -> None:
    torch.manual_seed(0)
    net = quantized_nets.residual().train()
    image = torch.randn(8, 1, 8, 8)
    net(image)
    net.eval()
    with torch.no_grad():
        wanted = net(image)
        assert _fake.settle_norms(net, [image]) == (2, 1)
        assert torch.allclose(net(image), wanted, atol=1e-4)
        frozen = copy.deepcopy(net.before.norm.running_mean)
        net.train()(image * 3 + 1)
        assert torch.equal(net.before.norm.running_mean, frozen)
        _fake.detach(net)
        assert isinstance(net.before, torch.nn.BatchNorm2d)


class _Shared(torch.nn.Module):
    """Its convolution is read by a norm and by something else, so that it cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.layer(image)
        return self.norm(hidden) + hidden


def test_a_result_that_others_read_is_not_folded() -> None:
    torch.manual_seed(0)
    net = _Shared().train()
    image = torch.randn(4, 1, 8, 8)
    net(image)
    net.eval()
    with torch.no_grad():
        wanted = net(image)
        assert _fake.settle_norms(net, [image]) == (0, 1)
        assert torch.allclose(net(image), wanted)
