"""From rows to tensors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimgate.errors import InvalidInput
from trimgate.models import build_inputs
from trimgate.models.directory import ModelInfo, TensorSpec


def info(*inputs: TensorSpec) -> ModelInfo:
    names = tuple(dict.fromkeys(f for spec in inputs for f in spec.features))
    return ModelInfo(
        name="m",
        task="binary",
        family="other",
        framework="onnx",
        inputs=inputs,
        labels=(0, 1),
        features=names,
    )


def matrix(**more: Any) -> TensorSpec:
    return TensorSpec(name="input", dtype="float32", shape=(-1, 2), features=("a", "b"), **more)


TEXT = TensorSpec(name="t", dtype="string", shape=(-1, 1), features=("t",), missing="__missing__")


def test_numbers_are_stacked_in_the_models_order():
    rows = {"b": np.array([1, 2]), "a": np.array([True, False]), "more": np.array([9, 9])}
    tensor = build_inputs(info(matrix()), rows)["input"]
    assert tensor.dtype == np.float32
    assert tensor.tolist() == [[1.0, 1.0], [0.0, 2.0]]


@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=1, max_size=20))
@settings(max_examples=50)
def test_text_keeps_its_values_and_marks_what_is_missing(values: list[str | None]):
    tensor = build_inputs(info(TEXT), {"t": np.array(values, dtype=object)})["t"]
    assert tensor.shape == (len(values), 1)
    assert tensor.dtype == object
    assert tensor[:, 0].tolist() == ["__missing__" if v is None else v for v in values]


def test_none_among_numbers_is_nan():
    rows = {"a": np.array([1, None], dtype=object), "b": np.zeros(2)}
    assert np.isnan(build_inputs(info(matrix()), rows)["input"][1, 0])


@pytest.mark.parametrize(
    ("value", "spec", "message"),
    [
        (np.nan, matrix(no_nan=("b",)), "b: holds NaN"),
        (np.inf, matrix(no_inf=("b",)), "b: holds infinite"),
    ],
)
def test_values_that_the_model_cannot_take(value: float, spec: TensorSpec, message: str):
    with pytest.raises(InvalidInput, match=message):
        build_inputs(info(spec), {"a": np.array([value]), "b": np.array([value])})
    rows = {"a": np.array([value]), "b": np.array([0.0])}
    assert build_inputs(info(spec), rows)["input"].shape == (1, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": np.zeros(1)}, "b: the model needs this feature"),
        ({"a": np.zeros(1), "b": np.array(["x"], dtype=object)}, "b = 'x': .*numbers"),
        ({"a": np.zeros(1), "b": np.array(["x"])}, "b: .*text"),
    ],
)
def test_wrong_numbers(rows: dict[str, Any], message: str):
    with pytest.raises(InvalidInput, match=message):
        build_inputs(info(matrix()), rows)


def test_number_where_text_is_needed():
    with pytest.raises(InvalidInput, match="t = 3: the model needs text"):
        build_inputs(info(TEXT), {"t": np.array([3], dtype=object)})


def test_missing_text_that_the_model_cannot_take():
    spec = TEXT.model_copy(update={"missing": None})
    with pytest.raises(InvalidInput, match="t: has missing values"):
        build_inputs(info(spec), {"t": np.array([None], dtype=object)})


def test_arrays_pass_as_they_are():
    spec = TensorSpec(name="i", dtype="float32", shape=(-1, 1, 2, 2), features=("image",))
    images = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    tensor = build_inputs(info(spec), {"image": images})["i"]
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor, images)
    with pytest.raises(InvalidInput, match="image: rows have the shape"):
        build_inputs(info(spec), {"image": np.zeros((2, 1, 3, 2))})
