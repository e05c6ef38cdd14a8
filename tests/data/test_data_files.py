import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimgate.data import as_dataset, read_columns
from trimgate.errors import InvalidInput


def test_csv_types(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("a,b,city,ok,when,y\n1,0.5,Rome,true,2024-01-02,0\n2,,,false,2024-01-03,1\n")
    columns = read_columns(file)
    assert columns["a"].dtype == np.int64
    assert np.isnan(columns["b"][1])
    assert columns["city"].tolist() == ["Rome", None]
    assert columns["ok"].dtype == bool
    assert columns["when"].dtype == np.int64
    assert columns["when"][0] < columns["when"][1]


def test_parquet_types(tmp_path):
    table = pa.table(
        {
            "gap": pa.array([1, None, 3]),
            "flag": pa.array([True, None, False]),
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
            "price": pa.array([1, 2, 3], pa.decimal128(5, 2)),
            "nothing": pa.nulls(3),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    columns = read_columns(tmp_path / "rows.parquet")
    assert np.isnan(columns["gap"][1])
    assert np.isnan(columns["flag"][1])
    assert columns["flag"][0] == 1
    assert columns["kind"].tolist() == ["x", "y", "x"]
    assert columns["price"].tolist() == [1.0, 2.0, 3.0]
    assert np.isnan(columns["nothing"]).all()


def test_npz(tmp_path):
    images = np.zeros((4, 1, 8, 8))
    np.savez(tmp_path / "rows.npz", image=images, label=np.array(["a", "b", "a", "b"]))
    columns = read_columns(tmp_path / "rows.npz")
    assert columns["image"].dtype == np.float32
    data = as_dataset(columns, "label", (), tmp_path / "rows.npz")
    assert data.labels.tolist() == ["a", "b", "a", "b"]
    assert not data.is_table


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.csv", None, "the file is missing"),
        ("rows.xlsx", b"x", "'.xlsx' is not known"),
        ("rows.parquet", b"not parquet", "cannot be read as parquet"),
        ("rows.npz", b"not npz", "cannot be read as .npz"),
        ("rows.csv", b"a,b\n", "has no rows"),
        ("rows.csv", b"a,a\n1,2\n", "two columns have this name"),
        ("rows.csv", b"a,b\n1,2\n3\n", "cannot be read as csv"),
    ],
)
def test_bad_files(tmp_path, name, content, said):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match=said) as caught:
        read_columns(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_npz_with_objects_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "rows.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(InvalidInput, match=r"cannot be read as \.npz"):
        read_columns(tmp_path / "rows.npz")


def test_nested_column_is_refused(tmp_path):
    pq.write_table(pa.table({"a": [[1, 2], [3]]}), tmp_path / "rows.parquet")
    with pytest.raises(InvalidInput, match="is not taken") as caught:
        read_columns(tmp_path / "rows.parquet")
    assert caught.value.key == "a"


@pytest.mark.parametrize(
    ("label", "drop", "key"),
    [("nope", (), "data.label"), ("y", ("nope",), "data.drop"), ("gap", (), "data.label")],
)
def test_bad_columns(tmp_path, label, drop, key):
    columns = {"x": np.arange(3.0), "gap": np.array([0.0, np.nan, 1.0]), "y": np.arange(3)}
    with pytest.raises(InvalidInput) as caught:
        as_dataset(columns, label, drop, tmp_path / "f.csv")
    assert caught.value.key == key


def test_infinite_label(tmp_path):
    with pytest.raises(InvalidInput, match="1 of 2 labels are missing or infinite"):
        as_dataset({"x": np.arange(2.0), "y": np.array([1, np.inf])}, "y", (), tmp_path)
