"""The protocols' tensors, without a server."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trimgate.errors import InvalidInput
from trimgate.models.directory import ModelInfo, TensorSpec
from trimgate.serving import _rows, _tensors

NUMBERS = ["uint8", "int8", "int32", "int64", "float32", "float64", "bool"]


def _spec(dtype, shape, **fields):
    return TensorSpec(name="x", dtype=dtype, shape=(-1, *shape[1:]), **fields)


@given(data=st.data())
@settings(max_examples=60)
def test_numbers_survive_both_forms(data):
    dtype = data.draw(st.sampled_from(NUMBERS))
    array = data.draw(
        hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
            elements=(
                {"allow_nan": False, "allow_infinity": False} if dtype.startswith("f") else None
            ),
        )
    )
    spec = _spec(dtype, array.shape)
    datatype = _tensors.datatype_of(array)
    shape = _tensors.check_shape(spec, datatype, list(array.shape))
    binary = _tensors.from_bytes(spec, shape, _tensors.to_bytes(array))
    assert binary.dtype == array.dtype
    np.testing.assert_array_equal(binary, array)
    for form in (array.tolist(), array.reshape(-1).tolist()):
        listed = _tensors.from_list(spec, shape, form)
        assert listed.dtype == array.dtype
        np.testing.assert_array_equal(listed, array)


@given(texts=st.lists(st.text(max_size=6), min_size=1, max_size=5))
@settings(max_examples=60)
def test_texts_survive_both_forms(texts):
    array = np.array(texts, dtype=object)[:, None]
    spec = _spec("string", array.shape)
    raw = _tensors.to_bytes(array)
    assert _tensors.from_bytes(spec, array.shape, raw).tolist() == array.tolist()
    assert _tensors.from_list(spec, array.shape, texts).tolist() == array.tolist()


@given(raw=st.binary(max_size=40), rows=st.integers(1, 4))
@settings(max_examples=150)
def test_any_bytes_are_read_or_refused(raw, rows):
    for dtype in ("string", "float32"):
        try:
            array = _tensors.from_bytes(_spec(dtype, (rows,)), (rows,), raw)
        except InvalidInput:
            continue
        assert array.shape == (rows,)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)
MIXED = ModelInfo(
    name="m",
    task="regression",
    family="other",
    framework="onnx",
    features=("a", "b", "c"),
    inputs=(
        TensorSpec(name="i", dtype="float32", shape=(-1, 1), features=("a",)),
        TensorSpec(name="j", dtype="string", shape=(-1, 1), features=("b",), missing="?"),
        TensorSpec(name="k", dtype="int64", shape=(-1, 1), features=("c",)),
    ),
)


@given(instances=st.lists(JSON, max_size=3) | JSON)
@settings(max_examples=200)
def test_any_json_is_rows_or_refused(instances):
    try:
        features = _rows.from_instances(MIXED, instances, 10)
    except InvalidInput:
        return
    assert {len(column) for column in features.values()} == {len(instances)}


@given(data=JSON, dtype=st.sampled_from(["float32", "int64", "bool", "string"]))
@settings(max_examples=200)
def test_any_json_is_a_tensor_or_refused(data, dtype):
    try:
        array = _tensors.from_list(_spec(dtype, (2,)), (2,), data)
    except InvalidInput:
        return
    assert array.shape == (2,)


@pytest.mark.parametrize(
    ("dtype", "data", "words"),
    [
        ("uint8", [256, 0], "within 0 and 255"),
        ("int64", [1.5, 2], "values of INT64"),
        ("int64", [None, 2], "null"),
        ("float32", ["1", 2], "numbers"),
        ("bool", [1, 0], "values of BOOL"),
        ("string", ["a", 1], "strings"),
        ("string", ["a", None], "null"),
        ("float32", {"a": 1}, "list"),
    ],
)
def test_wrong_values_are_named(dtype, data, words):
    with pytest.raises(InvalidInput, match=words):
        _tensors.from_list(_spec(dtype, (2,)), (2,), data)


def test_null_is_nan_or_the_models_own_text():
    assert np.isnan(_tensors.from_list(_spec("float32", (2,)), (2,), [None, 1])[0])
    spec = _spec("string", (2,), missing="?")
    assert _tensors.from_list(spec, (2,), [None, "a"]).tolist() == ["?", "a"]


def test_text_that_is_not_utf8_is_refused():
    raw = struct.pack("<I", 1) + b"\xff"
    with pytest.raises(InvalidInput, match="UTF-8"):
        _tensors.from_bytes(_spec("string", (1,)), (1,), raw)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_values_that_the_model_cannot_take(value, words):
    spec = TensorSpec(
        name="x", dtype="float32", shape=(-1, 2), features=("a", "b"), no_nan=("b",), no_inf=("b",)
    )
    info = MIXED.model_copy(update={"inputs": (spec,), "features": ("a", "b")})
    inputs = {"x": np.array([[value, 1.0]], dtype=np.float32)}
    assert _tensors.check_finite(info, inputs)
    with pytest.raises(InvalidInput, match=f"'b' holds {words}"):
        _tensors.check_finite(info, {"x": inputs["x"][:, ::-1]})


def test_labels_that_are_truth_values():
    info = MIXED.model_copy(update={"task": "binary", "labels": (False, True)})
    scores = np.array([[0.25, 0.75]], dtype=np.float32)
    assert _tensors.outputs(info, scores)["label"].dtype == bool
    assert _tensors.output_specs(info)[1].dtype == "bool"
    assert _tensors.predictions(info, scores) == [
        {"label": True, "probabilities": {"false": 0.25, "true": 0.75}}
    ]
