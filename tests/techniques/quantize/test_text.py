"""The step `quantize` on a transformer encoder."""

import dataclasses
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from trimgate import environment, runtimes
from trimgate.data.dataset import Dataset
from trimgate.models import build_inputs
from trimgate.models.directory import RuntimeChoice, read, seal, writing
from trimgate.techniques import Context, parse_step
from trimgate.techniques.quantize import TECHNIQUE, QuantizeConfig

_LAYERS = 3


def _scores(directory: Path, rows: Dataset) -> np.ndarray:
    session = runtimes.load(directory)
    return session.predict(build_inputs(session.info, rows.features))


def _accuracy(directory: Path, rows: Dataset) -> float:
    return float(np.mean(_scores(directory, rows).argmax(axis=1) == rows.labels))


@pytest.mark.parametrize(
    "step",
    [
        {"scheme": "static-int8"},
        {"scheme": "static-int8", "method": "entropy"},
        {"scheme": "static-int8", "method": "percentile", "embeddings": True},
        {"scheme": "dynamic-int8"},
        {"scheme": "dynamic-int8", "embeddings": True},
        {"scheme": "fp16"},
        {"scheme": "weight-only"},
        {"scheme": "weight-only", "bits": 4, "block_size": 16, "symmetric": False},
        {"scheme": "weight-only", "bits": 4, "block_size": 32, "embeddings": True},
        {"scheme": "weight-only", "bits": 8, "embeddings": True},
    ],
    ids=lambda step: "-".join(map(str, step.values())),
)
def test_every_scheme(
    step: dict[str, Any],
    text_onnx: Path,
    text_context: Context,
    conformance: ModuleType,
    tmp_path: Path,
) -> None:
    config = QuantizeConfig(**step)
    info = conformance.check(TECHNIQUE, config, text_onnx, text_context, tmp_path)
    rows = text_context.validation
    assert _accuracy(text_onnx, rows) > 0.9
    assert _accuracy(tmp_path / "first", rows) > _accuracy(text_onnx, rows) - 0.03
    assert info.tokenizer == read(text_onnx).tokenizer
    assert info.size < read(text_onnx).size
    note = info.notes["quantize"]
    if "int8" in config.scheme:
        # four products of weights in attention, two behind it, and the two of the head
        assert sum(note["nodes"].values()) == 6 * _LAYERS + 2
        assert sum(note["integer_operators"].values()) == 6 * _LAYERS + 2
        # scores and mixtures of attention are products of two activations
        assert sum(note["float_operators"].values()) == 2 * _LAYERS
    if config.scheme == "weight-only":
        assert note["packed_operators"]["MatMulNBits"] == 6 * _LAYERS + 2
        assert "less of a speed-up" in note["purpose"]
    if config.embeddings:
        assert note["embeddings"] >= 1


def test_embeddings_stay_unless_asked_for(
    text_onnx: Path, text_context: Context, tmp_path: Path
) -> None:
    def tables(name: str, **parameters: Any) -> list[int]:
        TECHNIQUE.apply(text_onnx, tmp_path / name, QuantizeConfig(**parameters), text_context)
        graph = onnx.load(tmp_path / name / "model.onnx").graph
        kinds = {t.name: t.data_type for t in graph.initializer}
        return [
            kinds[n.input[0]]
            for n in graph.node
            if n.op_type == "Gather" and n.input[0] in kinds and "word" in n.input[0]
        ]

    words = tables("float")
    assert words
    assert set(words) <= {onnx.TensorProto.FLOAT}
    assert onnx.TensorProto.INT8 in tables("int8", embeddings=True)


def test_types_follow_the_runtime(text_onnx: Path, text_context: Context, tmp_path: Path) -> None:
    """ONNX Runtime multiplies unsigned activations, OpenVINO signed ones as fast or faster."""
    served = _served_by(text_onnx, tmp_path / "openvino", RuntimeChoice(name="openvino"))
    kinds = {}
    for name, source in (("onnxruntime", text_onnx), ("openvino", served)):
        info = TECHNIQUE.apply(source, tmp_path / f"{name}-q", QuantizeConfig(), text_context)
        kinds[name] = info.notes["quantize"]["activation_type"]
        graph = onnx.load(tmp_path / f"{name}-q" / "model.onnx").graph
        types = {t.name: t.data_type for t in graph.initializer}
        points = {types[n.input[2]] for n in graph.node if n.op_type == "QuantizeLinear"}
        wanted = onnx.TensorProto.UINT8 if name == "onnxruntime" else onnx.TensorProto.INT8
        assert points == {wanted}
        assert "types_chosen" in info.notes["quantize"]
        rows = text_context.validation
        assert _accuracy(tmp_path / f"{name}-q", rows) > _accuracy(text_onnx, rows) - 0.03
    assert kinds == {"onnxruntime": "uint8", "openvino": "int8"}


def test_arm_gets_signed_activations(
    text_onnx: Path, text_context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import platform

    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    info = TECHNIQUE.apply(text_onnx, tmp_path / "q", QuantizeConfig(), text_context)
    note = info.notes["quantize"]
    assert (note["activation_type"], note["weight_type"]) == ("int8", "int8")
    assert "aarch64" in note["types_chosen"]


@pytest.mark.parametrize("bits", [4, 8])
def test_openvino_reads_weights_only(
    bits: int, text_onnx: Path, text_context: Context, tmp_path: Path
) -> None:
    source = _served_by(text_onnx, tmp_path / "openvino", RuntimeChoice(name="openvino"))
    config = QuantizeConfig(scheme="weight-only", bits=bits)
    TECHNIQUE.apply(source, tmp_path / "q", config, text_context)
    rows = text_context.validation
    assert _accuracy(tmp_path / "q", rows) > _accuracy(text_onnx, rows) - 0.03


def test_batches_of_text_do_not_change_minmax_ranges_much(
    text_onnx: Path, text_context: Context, tmp_path: Path
) -> None:
    """Rows of every length calibrate together, whatever number of them."""
    for rows in (8, 300):
        config = QuantizeConfig(rows=rows)
        info = TECHNIQUE.apply(text_onnx, tmp_path / str(rows), config, text_context)
        assert info.notes["quantize"]["calibration_rows"] == rows


def test_static_is_refused_on_a_fused_graph(
    text_onnx: Path, text_context: Context, conformance: ModuleType, tmp_path: Path
) -> None:
    source = tmp_path / "fused"
    with writing(source) as partial:
        model = onnx.load(text_onnx / "model.onnx")
        index, node = next((i, n) for i, n in enumerate(model.graph.node) if n.op_type == "Erf")
        fused = onnx.helper.make_node("Gelu", node.input, node.output, domain="com.microsoft")
        model.graph.node.remove(node)
        model.graph.node.insert(index, fused)
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
        onnx.save(model, partial / "model.onnx")
        seal(partial, read(text_onnx))
    words = conformance.check_refusal(TECHNIQUE, QuantizeConfig(), source, text_context, tmp_path)
    assert "fused" in words
    info = TECHNIQUE.apply(
        source, tmp_path / "dynamic", QuantizeConfig(scheme="dynamic-int8"), text_context
    )
    assert info.notes["quantize"]["nodes"]["MatMul"] == 6 * _LAYERS + 2


def test_orders_that_make_no_sense() -> None:
    quantize = parse_step({"technique": "quantize"})
    extended = parse_step({"technique": "optimize_graph", "level": "extended"})
    assert "twice" in str(TECHNIQUE.order_problem(quantize, [quantize]))
    assert "level basic" in str(TECHNIQUE.order_problem(quantize, [extended]))
    dynamic = QuantizeConfig(scheme="dynamic-int8")
    assert TECHNIQUE.order_problem(dynamic, [extended]) is None
    qat = QuantizeConfig(scheme="qat-int8")
    assert TECHNIQUE.order_problem(qat, [parse_step({"technique": "prune"})]) is None


def test_logging_of_the_process_stays_as_it_was(
    text_onnx: Path, text_context: Context, tmp_path: Path
) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    config = QuantizeConfig(scheme="weight-only")
    TECHNIQUE.apply(text_onnx, tmp_path / "q", config, text_context)
    assert (list(root.handlers), root.level) == before


def test_words_that_are_not_known_are_no_obstacle(
    text_onnx: Path, text_context: Context, tmp_path: Path
) -> None:
    odd = Dataset({"text": np.array(["", "zzz", "the plot"] * 20, dtype=object)},
                  np.array([0, 1, 1] * 20))  # fmt: skip
    context = dataclasses.replace(text_context, train=odd)
    TECHNIQUE.apply(text_onnx, tmp_path / "q", QuantizeConfig(), context)


def test_a_search_tries_more_than_the_default_recipes(text_model: Path) -> None:
    from trimgate.targets import PROFILES

    info = read(text_model)
    found = TECHNIQUE.suggest(info, PROFILES["cloud-cpu"], frozenset({"avx512_vnni"}))
    usual = [s.step["scheme"] for s in found if s.usual]
    assert usual == ["dynamic-int8", "static-int8"]
    others = {s.step["scheme"] for s in found if not s.usual}
    assert {"weight-only", "qat-int8", "static-int8"} <= others
    for suggestion in found:
        parse_step(suggestion.step)
    gpu = TECHNIQUE.suggest(info, PROFILES["gpu"], frozenset())
    assert [s.step["scheme"] for s in gpu] == ["fp16"]
    trees = info.model_copy(update={"family": "trees"})
    assert TECHNIQUE.suggest(trees, PROFILES["cloud-cpu"], frozenset()) == ()


def _served_by(source: Path, out: Path, runtime: RuntimeChoice) -> Path:
    info = read(source)
    with writing(out) as partial:
        for name in info.files:
            (partial / name).write_bytes((source / name).read_bytes())
        seal(partial, info.model_copy(update={"runtime": runtime}))
    return out


def test_refusal_says_that_nothing_is_left(
    text_onnx: Path, text_context: Context, conformance: ModuleType, tmp_path: Path
) -> None:
    config = QuantizeConfig(scheme="weight-only", exclude=("MatMul", "Gemm"))
    words = conformance.check_refusal(TECHNIQUE, config, text_onnx, text_context, tmp_path)
    assert "nothing to quantize" in words
    info = read(text_onnx).model_copy(update={"family": "cnn"})
    for scheme in ("dynamic-int8", "weight-only"):
        config = QuantizeConfig(scheme=scheme)
        assert "static-int8" in str(TECHNIQUE.refusal(info, config, text_context.target))


def test_fp16_for_a_gpu_leaves_tokens_alone(
    text_onnx: Path, text_context: Context, tmp_path: Path
) -> None:
    from trimgate.techniques.quantize._half import compute_in_half

    with writing(tmp_path / "q") as partial:
        compute_in_half(text_onnx / "model.onnx", partial / "model.onnx", exclude=())
        seal(partial, read(text_onnx))
    graph = onnx.load(tmp_path / "q" / "model.onnx").graph
    assert {v.type.tensor_type.elem_type for v in graph.input} == {onnx.TensorProto.INT64}
    rows = text_context.validation
    assert _accuracy(tmp_path / "q", rows) > _accuracy(text_onnx, rows) - 0.03


@pytest.mark.skipif(not environment.has_bfloat16(), reason="the CPU has no bfloat16")
def test_bf16_on_openvino(
    text_onnx: Path, text_context: Context, conformance: ModuleType, tmp_path: Path
) -> None:
    source = _served_by(text_onnx, tmp_path / "openvino", RuntimeChoice(name="openvino"))
    config = QuantizeConfig(scheme="bf16")
    info = conformance.check(TECHNIQUE, config, source, text_context, tmp_path)
    assert info.runtime.precision == "bf16"
    rows = text_context.validation
    assert _accuracy(tmp_path / "first", rows) > _accuracy(text_onnx, rows) - 0.03
