"""Columns to Arrow and back."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from trimgate.data._arrow import to_arrow, to_numpy

COLUMNS = {
    "float": np.array([1.5, np.nan, -np.inf]),
    "float32 with steps": np.arange(9, dtype=np.float32)[::3],
    "half": np.array([0.5, 2.0], dtype=np.float16),
    "integers": np.array([-1, 2**40]),
    "bytes": np.array([0, 255], dtype=np.uint8),
    "booleans": np.array([True, False, True, True, False] * 3),
    "text": np.array(["a", None, "", "ü€"], dtype=object),
    "fixed-width text": np.array(["yes", "no"]),
    "no numbers": np.zeros(0),
    "no booleans": np.zeros(0, dtype=bool),
    "no text": np.zeros(0, dtype=object),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_there_and_back(name: str) -> None:
    values = COLUMNS[name]
    array = to_arrow(values)
    array.validate(full=True)
    assert array.to_pylist() == pa.array(values, from_pandas=False).to_pylist() or name == "float"
    back = to_numpy(pa.chunked_array([array]))
    expected = values.astype(object) if values.dtype.kind == "U" else values
    np.testing.assert_array_equal(back, expected)
    assert back.dtype == expected.dtype
    np.testing.assert_array_equal(
        to_numpy(pa.chunked_array([array[1:], array])), np.concatenate([expected[1:], expected])
    )


def test_objects_that_are_no_text_are_left_to_arrow() -> None:
    assert to_arrow(np.array([1, None, 3], dtype=object)).to_pylist() == [1, None, 3]


def test_no_chunks() -> None:
    assert to_numpy(pa.chunked_array([], type=pa.float32())).dtype == np.float32


def test_pandas_stays_away() -> None:
    code = (
        "import sys, numpy as np, pyarrow as pa; from trimgate.data._arrow import *\n"
        "for v in (np.ones(3), np.ones(3, bool), np.array(['a', None], dtype=object)):\n"
        "    to_numpy(pa.chunked_array([to_arrow(v)]))\n"
        "assert 'pandas' not in sys.modules"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)
