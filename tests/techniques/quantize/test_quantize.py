"""The step `quantize`, on a network of each kind."""

import hashlib
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from trimgate import environment, runtimes
from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import build_inputs
from trimgate.models.directory import RuntimeChoice, TensorSpec, read, seal, writing
from trimgate.techniques import parse_step
from trimgate.techniques.quantize import TECHNIQUE, QuantizeConfig

Data = tuple[Dataset, Dataset]


def _scores(directory: Path, rows: Dataset) -> np.ndarray:
    session = runtimes.load(directory)
    return session.predict(build_inputs(session.info, rows.features))


def _accuracy(directory: Path, rows: Dataset) -> float:
    labels = np.array(read(directory).labels)
    return float(np.mean(labels[_scores(directory, rows).argmax(axis=1)] == rows.labels))


def _operators(directory: Path) -> list[str]:
    return [node.op_type for node in onnx.load(directory / "model.onnx").graph.node]


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_static_int8_of_a_cnn(
    method: str,
    cnn: Path,
    digits_data: Data,
    context: Any,
    conformance: ModuleType,
    tmp_path: Path,
) -> None:
    config = QuantizeConfig(scheme="static-int8", method=method)
    info = conformance.check(TECHNIQUE, config, cnn, context(digits_data), tmp_path)
    assert info.notes["quantize"]["nodes"] == {"Conv": 2, "Gemm": 1}
    assert info.notes["quantize"]["calibration_rows"] == 256
    rows = digits_data[1]
    assert _accuracy(cnn, rows) > 0.9
    assert _accuracy(tmp_path / "first", rows) > _accuracy(cnn, rows) - 0.02
    assert info.size < read(cnn).size


def test_static_int8_types_are_the_fast_ones(
    cnn: Path, digits_data: Data, context: Any, tmp_path: Path
) -> None:
    TECHNIQUE.apply(cnn, tmp_path / "q", QuantizeConfig(), context(digits_data))
    graph = onnx.load(tmp_path / "q" / "model.onnx").graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    activations = {kinds[n.input[2]] for n in graph.node if n.op_type == "QuantizeLinear"}
    assert activations == {onnx.TensorProto.UINT8}
    weights = [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    assert len(weights) == 3
    scales = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and t.dims]
    assert {t.dims[0] for t in scales} >= {10, 16, 32}, "one scale for each output channel"


def test_static_int8_of_a_scikit_learn_network(
    mlp: Path, table_data: Data, context: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    """Shape inference knows no type behind its scaler; all three products are quantized."""
    info = conformance.check(TECHNIQUE, QuantizeConfig(), mlp, context(table_data), tmp_path)
    assert info.notes["quantize"]["nodes"] == {"MatMul": 3}
    assert _accuracy(tmp_path / "first", table_data[1]) > _accuracy(mlp, table_data[1]) - 0.02
    assert info.size < 0.6 * (mlp / "model.onnx").stat().st_size
    assert info.framework == "onnx"
    assert not (tmp_path / "first" / "model.skops").exists()


def test_scores_are_not_rounded_to_8_bits(
    mlp: Path, table_data: Data, context: Any, tmp_path: Path
) -> None:
    TECHNIQUE.apply(mlp, tmp_path / "q", QuantizeConfig(), context(table_data))
    top = _scores(tmp_path / "q", table_data[1]).max(axis=1)
    assert len(np.unique(top)) > 0.9 * len(np.unique(_scores(mlp, table_data[1]).max(axis=1)))


def test_dynamic_int8(
    mlp: Path, table_data: Data, context: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    config = QuantizeConfig(scheme="dynamic-int8")
    info = conformance.check(TECHNIQUE, config, mlp, context(table_data), tmp_path)
    assert info.notes["quantize"]["nodes"] == {"MatMul": 3}
    assert _accuracy(tmp_path / "first", table_data[1]) > _accuracy(mlp, table_data[1]) - 0.02


@pytest.mark.parametrize("scheme", ["static-int8", "dynamic-int8", "fp16"])
def test_numbers_and_text(
    scheme: str,
    mixed: tuple[Path, Data],
    context: Any,
    conformance: ModuleType,
    tmp_path: Path,
) -> None:
    """Text and raw numbers of very different size go through untouched."""
    source, data = mixed
    config = QuantizeConfig(scheme=scheme)
    info = conformance.check(TECHNIQUE, config, source, context(data), tmp_path)
    assert info.inputs == read(source).inputs
    given, expected = _scores(tmp_path / "first", data[1]), _scores(source, data[1])
    assert np.mean(given.argmax(1) == expected.argmax(1)) > 0.97
    assert np.abs(given - expected).max() < 0.1


def test_fp16_halves_the_size_and_keeps_float32_tensors(
    mlp: Path, table_data: Data, context: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    config = QuantizeConfig(scheme="fp16")
    info = conformance.check(TECHNIQUE, config, mlp, context(table_data), tmp_path)
    assert info.size < 0.6 * (mlp / "model.onnx").stat().st_size
    given, expected = _scores(tmp_path / "first", table_data[1]), _scores(mlp, table_data[1])
    np.testing.assert_allclose(given, expected, atol=5e-3)
    assert given.dtype == np.float32


def test_fp16_for_a_gpu_computes_in_float16(cnn: Path, digits_data: Data, tmp_path: Path) -> None:
    from trimgate.techniques.quantize._half import compute_in_half

    with writing(tmp_path / "q") as partial:
        compute_in_half(cnn / "model.onnx", partial / "model.onnx", exclude=("Gemm",))
        seal(partial, read(cnn))
    graph = onnx.load(tmp_path / "q" / "model.onnx").graph
    kinds = {t.name: t.data_type for t in graph.initializer}
    for node in graph.node:
        half = node.op_type == "Conv"
        wanted = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
        if node.op_type in ("Conv", "Gemm"):
            assert kinds[node.input[1]] == wanted
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {
        onnx.TensorProto.FLOAT
    }
    given, expected = (_scores(d, digits_data[1]) for d in (tmp_path / "q", cnn))
    np.testing.assert_allclose(given, expected, atol=2e-2)


@pytest.mark.skipif(not environment.has_bfloat16(), reason="the CPU has no bfloat16")
def test_bf16_on_openvino(
    cnn: Path, digits_data: Data, context: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    source = _with(cnn, tmp_path / "source", runtime=RuntimeChoice(name="openvino"))
    config = QuantizeConfig(scheme="bf16")
    info = conformance.check(TECHNIQUE, config, source, context(digits_data), tmp_path)
    assert info.runtime == RuntimeChoice(name="openvino", precision="bf16")
    assert info.size < 0.75 * read(cnn).size
    rows = digits_data[1]
    assert _accuracy(tmp_path / "first", rows) > _accuracy(cnn, rows) - 0.02


def test_bf16_is_refused_on_onnxruntime(
    cnn: Path, digits_data: Data, context: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    config = QuantizeConfig(scheme="bf16")
    words = conformance.check_refusal(TECHNIQUE, config, cnn, context(digits_data), tmp_path)
    assert "engine openvino and precision bf16" in words


def test_bf16_is_refused_where_it_would_be_emulated(
    cnn: Path,
    digits_data: Data,
    context: Any,
    conformance: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "cpu_flags", lambda: frozenset({"avx2"}))
    source = _with(cnn, tmp_path / "source", runtime=RuntimeChoice(name="openvino"))
    config = QuantizeConfig(scheme="bf16")
    words = conformance.check_refusal(TECHNIQUE, config, source, context(digits_data), tmp_path)
    assert "emulated" in words


@pytest.mark.parametrize("family", ["trees", "other"])
def test_tree_ensembles_are_refused(
    family: str,
    trees: Path,
    table_data: Data,
    context: Any,
    conformance: ModuleType,
    tmp_path: Path,
) -> None:
    """By the record, and by the graph where the record does not tell."""
    source = _with(trees, tmp_path / "source", family=family)
    config = QuantizeConfig()
    words = conformance.check_refusal(TECHNIQUE, config, source, context(table_data), tmp_path)
    assert ("tree ensemble" in words) or ("nothing to quantize" in words)
    with pytest.raises(NotApplicable):
        TECHNIQUE.apply(source, tmp_path / "h", QuantizeConfig(scheme="fp16"), context(table_data))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (QuantizeConfig(scheme="dynamic-int8"), "use static-int8"),
        (QuantizeConfig(exclude=("Conv", "Gemm")), "nothing to quantize"),
    ],
)
def test_refusals_for_a_cnn(
    config: QuantizeConfig,
    words: str,
    cnn: Path,
    digits_data: Data,
    context: Any,
    conformance: ModuleType,
    tmp_path: Path,
) -> None:
    found = conformance.check_refusal(TECHNIQUE, config, cnn, context(digits_data), tmp_path)
    assert words in found


def test_is_refused_twice_and_without_onnx(
    cnn: Path, digits_data: Data, context: Any, conformance: ModuleType, tmp_path: Path
) -> None:
    TECHNIQUE.apply(cnn, tmp_path / "q", QuantizeConfig(), context(digits_data))
    words = conformance.check_refusal(
        TECHNIQUE, QuantizeConfig(), tmp_path / "q", context(digits_data), tmp_path
    )
    assert "already" in words
    bare = tmp_path / "bare"
    bare.mkdir()
    seal(bare, read(cnn))
    with pytest.raises(NotApplicable, match="optimize_graph"):
        TECHNIQUE.apply(bare, tmp_path / "n", QuantizeConfig(), context(digits_data))


def test_exclude_by_type_and_by_name(
    cnn: Path, digits_data: Data, context: Any, tmp_path: Path
) -> None:
    first = next(n for n in onnx.load(cnn / "model.onnx").graph.node if n.op_type == "Conv").name
    config = QuantizeConfig(exclude=(first, "Gemm"))
    info = TECHNIQUE.apply(cnn, tmp_path / "q", config, context(digits_data))
    assert info.notes["quantize"]["nodes"] == {"Conv": 1}


def test_range_is_reduced_where_sums_would_saturate(
    mlp: Path, table_data: Data, context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def largest(name: str, **config: Any) -> int:
        TECHNIQUE.apply(mlp, tmp_path / name, QuantizeConfig(**config), context(table_data))
        graph = onnx.load(tmp_path / name / "model.onnx").graph
        return max(
            int(np.abs(onnx.numpy_helper.to_array(t).astype(int)).max())
            for t in graph.initializer
            if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1
        )

    monkeypatch.setattr(environment, "has_int8_dot_product", lambda: True)
    assert largest("full") > 64
    monkeypatch.setattr(environment, "has_int8_dot_product", lambda: False)
    assert largest("reduced") <= 64
    assert largest("asked", reduce_range=False) > 64


def test_shapes_that_contradict_the_graph_do_no_harm(
    mlp: Path, table_data: Data, context: Any, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    with writing(source) as partial:
        model = onnx.load(mlp / "model.onnx")
        product = next(n for n in model.graph.node if n.op_type == "MatMul").output[0]
        stale = onnx.helper.make_tensor_value_info(product, onnx.TensorProto.FLOAT, ["n", 16])
        model.graph.value_info.append(stale)
        onnx.save(model, partial / "model.onnx")
        seal(partial, read(mlp))
    for scheme in ("static-int8", "dynamic-int8"):
        config = QuantizeConfig(scheme=scheme)
        info = TECHNIQUE.apply(source, tmp_path / scheme, config, context(table_data))
        assert info.notes["quantize"]["nodes"] == {"MatMul": 3}


def test_two_at_the_same_time_do_not_disturb_each_other(
    mlp: Path, cnn: Path, table_data: Data, digits_data: Data, context: Any, tmp_path: Path
) -> None:
    work = [(mlp, table_data), (cnn, digits_data), (mlp, table_data)]
    threads = [
        threading.Thread(
            target=TECHNIQUE.apply,
            args=(source, tmp_path / str(n), QuantizeConfig(), context(data)),
        )
        for n, (source, data) in enumerate(work)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    digests = [
        hashlib.sha256((tmp_path / str(n) / "model.onnx").read_bytes()).hexdigest()
        for n in range(3)
    ]
    assert digests[0] == digests[2] != digests[1]


def test_calibration_depends_on_the_seed_and_never_on_validation_rows(
    mlp: Path, table_data: Data, context: Any, tmp_path: Path
) -> None:
    from dataclasses import replace

    base = context(table_data)
    config = QuantizeConfig(rows=64)
    same = replace(base, validation=table_data[1].take(slice(0, 50)))
    digests = [
        TECHNIQUE.apply(mlp, tmp_path / str(n), config, c).digest
        for n, c in enumerate([base, same, replace(base, seed=1)])
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_configuration_that_is_wrong() -> None:
    for step in (
        {"technique": "quantize", "scheme": "int4"},
        {"technique": "quantize", "rows": 0},
        {"technique": "quantize", "percentile": 3},
    ):
        with pytest.raises(InvalidInput, match="quantize"):
            parse_step(step)


def test_a_missing_feature_is_named(
    mlp: Path, table_data: Data, context: Any, tmp_path: Path
) -> None:
    train, validation = table_data
    fewer = Dataset({n: v for n, v in train.features.items() if n != "p7"}, train.labels)
    with pytest.raises(InvalidInput, match="p7"):
        TECHNIQUE.apply(mlp, tmp_path / "q", QuantizeConfig(), context((fewer, validation)))
    assert not (tmp_path / "q").exists()


def _with(source: Path, out: Path, **changes: Any) -> Path:
    import shutil

    info = read(source)
    with writing(out) as partial:
        for name in info.files:
            shutil.copyfile(source / name, partial / name)
        seal(partial, info.model_copy(update=changes))
    return out


def test_gpu_target_takes_fp16_only(cnn: Path) -> None:
    from trimgate.targets import PROFILES

    info = read(cnn)
    assert "fp16" in str(TECHNIQUE.refusal(info, QuantizeConfig(), PROFILES["gpu"]))
    assert TECHNIQUE.refusal(info, QuantizeConfig(scheme="fp16"), PROFILES["gpu"]) is None


def test_text_inputs_are_in_the_case(mixed: tuple[Path, Data]) -> None:
    kinds = {tensor.dtype for tensor in read(mixed[0]).inputs}
    assert kinds == {"float32", "string"}
    assert all(isinstance(tensor, TensorSpec) for tensor in read(mixed[0]).inputs)
