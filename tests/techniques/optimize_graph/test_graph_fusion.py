"""Fusion of transformer encoders."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from trimgate import runtimes
from trimgate.data.dataset import Dataset
from trimgate.models import build_inputs
from trimgate.models.directory import read
from trimgate.techniques import Context
from trimgate.techniques.optimize_graph import TECHNIQUE, OptimizeGraphConfig

pytest.importorskip("transformers")


def served(directory: Path, data: Dataset) -> np.ndarray:
    session = runtimes.load(directory)
    scores = runtimes.predict(session, data)
    session.close()
    return scores


@pytest.fixture(scope="module")
def text_graph(
    text_model: Path, text_context: Context, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny BERT as torch exports it."""
    out = tmp_path_factory.mktemp("graph") / "raw"
    TECHNIQUE.apply(text_model, out, OptimizeGraphConfig(level="none"), text_context)
    return out


def test_conformance_transformer(
    text_graph: Path, text_context: Context, tmp_path: Path, conformance: ModuleType
) -> None:
    config = OptimizeGraphConfig(level="transformer")
    info = conformance.check(TECHNIQUE, config, text_graph, text_context, tmp_path)
    layers = read(text_graph).builder_arguments["config"]["num_hidden_layers"]
    fused = info.notes["optimize_graph"]["fused"]
    assert fused["MultiHeadAttention"] == layers
    assert fused["BiasGelu"] == layers
    assert fused["SkipLayerNormalization"] == 2 * layers
    rows = text_context.validation
    np.testing.assert_allclose(
        served(tmp_path / "first", rows), served(text_graph, rows), atol=1e-5
    )


def test_attention_that_cannot_be_fused_stays(
    text_graph: Path, text_context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the fused attention gives other scores, the rest is fused and the card says so."""
    from trimgate.techniques.optimize_graph import _fusion

    real = _fusion.fuse_attention

    def wrong(model: Any) -> int:
        count = real(model)
        for node in model.graph.node:
            if node.op_type == "MultiHeadAttention":
                next(a for a in node.attribute if a.name == "scale").f *= 7
        return count

    monkeypatch.setattr(_fusion, "fuse_attention", wrong)
    config = OptimizeGraphConfig(level="transformer")
    info = TECHNIQUE.apply(text_graph, tmp_path / "m", config, text_context)
    note = info.notes["optimize_graph"]
    assert "MultiHeadAttention" not in note["fused"]
    assert "other scores" in note["attention"]


def test_conformance_offline_transformer(
    text_graph: Path, text_context: Context, tmp_path: Path, conformance: ModuleType
) -> None:
    config = OptimizeGraphConfig(level="transformer", offline=True, external_data=True)
    conformance.check(TECHNIQUE, config, text_graph, text_context, tmp_path)
    session = runtimes.load(tmp_path / "first")
    few = text_context.validation.take(slice(0, 5))
    assert session.predict(build_inputs(session.info, few.features)).shape == (5, 2)
    session.close()


@pytest.mark.parametrize("kind", ["distilbert", "mpnet", "modernbert"])
def test_other_encoders(kind: str, tmp_path: Path) -> None:
    """What is fused of each, on torch's own graphs, with the same outputs."""
    from trimgate.techniques.optimize_graph._fusion import fuse_transformer

    model = _encoder(kind)
    inputs = {
        "input_ids": np.random.default_rng(0).integers(3, 50, (3, 12)),
        "attention_mask": np.ones((3, 12), dtype=np.int64),
    }
    inputs["attention_mask"][1, 7:] = 0
    expected = _answer(model, inputs)
    fused, counts = fuse_transformer(model, {"config": {"model_type": kind}})
    np.testing.assert_allclose(_answer(fused, inputs), expected, atol=1e-5)
    # attention with rotary positions stays as it is
    assert counts.get("MultiHeadAttention", 0) == (0 if kind == "modernbert" else 2)


def _answer(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


def _encoder(kind: str) -> Any:
    """Two layers of an architecture, as torch exports them."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    sizes: dict[str, Any] = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64,
    }  # fmt: skip
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    config = AutoConfig.for_model(
        kind, vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1,
        sep_token_id=2, **sizes,
    )  # fmt: skip

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForSequenceClassification.from_config(
                config, attn_implementation="eager"
            )

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length")
    example = torch.ones(2, 9, dtype=torch.int64)
    program = torch.onnx.export(
        Logits().eval(), (example, example), dynamo=True, opset_version=19, verbose=False,
        input_names=["input_ids", "attention_mask"],
        dynamic_shapes=({0: rows, 1: length}, {0: rows, 1: length}),
    )  # fmt: skip
    del program.model_proto.graph.value_info[:]
    return program.model_proto
