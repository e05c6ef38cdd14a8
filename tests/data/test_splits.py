import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trimgate.data import Dataset, digest, halves, load_splits, row_hashes
from trimgate.errors import InvalidInput


def write(path, rows, seed=0, **columns):
    generator = np.random.default_rng(seed)
    table = {"x": generator.normal(size=rows), "y": generator.permutation(np.arange(rows) % 2)}
    pq.write_table(pa.table({**table, **columns}), path)
    return path


def test_stratified_keeps_the_shares(tmp_path):
    labels = np.r_[np.zeros(900, int), np.ones(100, int)]
    file = write(tmp_path / "d.parquet", 1000, y=labels)
    splits = load_splits(file, label="y")
    assert [len(s) for s in splits.named().values()] == [600, 200, 200]
    for part in splits.named().values():
        assert part.labels.mean() == pytest.approx(0.1)


def test_temporal_keeps_the_order(tmp_path):
    when = np.random.default_rng(1).permutation(100)
    file = write(tmp_path / "d.parquet", 100, t=when)
    splits = load_splits(file, label="y", method="temporal", by="t")
    times = [s.features["t"] for s in splits.named().values()]
    assert times[0].max() < times[1].min()
    assert times[1].max() < times[2].min()
    dropped = load_splits(file, label="y", method="temporal", by="t", drop=("t",))
    assert list(dropped.test.features) == ["x"]


@pytest.mark.parametrize("method", ["stratified", "random"])
def test_seed_decides(tmp_path, method):
    file = write(tmp_path / "d.parquet", 200)
    first, again, other = (
        load_splits(file, label="y", method=method, seed=s).digests() for s in (1, 1, 2)
    )
    assert first == again
    assert first != other


@given(st.integers(10, 200), st.floats(0.1, 0.4), st.floats(0.1, 0.4), st.integers(0, 5))
def test_every_row_is_in_one_split(tmp_path_factory, rows, validation, test, seed):
    file = write(tmp_path_factory.mktemp("d") / "d.parquet", rows, x=np.arange(rows) * 1.0)
    try:
        splits = load_splits(file, label="y", validation=validation, test=test, seed=seed)
    except InvalidInput as error:
        assert "split" in error.problem  # noqa: PT017 (too few rows for a split is a fair answer)
        return
    found = np.concatenate([s.features["x"] for s in splits.named().values()])
    assert sorted(found.tolist()) == list(range(rows))


def three(tmp_path, test_x, test_y=(0, 1, 0, 1)):
    train = write(tmp_path / "train.parquet", 4, x=[1.0, 2.0, 3.0, 4.0], y=[0, 1, 0, 1])
    validation = write(tmp_path / "val.parquet", 2, x=[5.0, 6.0], y=[0, 1])
    test = write(tmp_path / "test.parquet", len(test_x), x=list(test_x), y=list(test_y))
    return train, validation, test


def test_overlap_is_refused_with_the_count(tmp_path):
    files = three(tmp_path, [1.0, 2.0, 7.0, 8.0])
    with pytest.raises(InvalidInput, match="2 of 4 test rows also stand in train or validation"):
        load_splits(files, label="y")


def test_overlap_can_be_dropped_or_allowed(tmp_path):
    files = three(tmp_path, [1.0, 6.0, 7.0, 8.0])
    dropped = load_splits(files, label="y", overlap="drop")
    assert dropped.test.features["x"].tolist() == [7.0, 8.0]
    assert "2 of 4 test rows" in dropped.notes[0]
    allowed = load_splits(files, label="y", overlap="allow")
    assert len(allowed.test) == 4
    assert "allows it" in allowed.notes[0]


def test_same_features_with_another_label_are_another_row(tmp_path):
    files = three(tmp_path, [1.0, 7.0, 8.0, 9.0], (1, 0, 1, 0))
    assert len(load_splits(files, label="y").test) == 4


def test_dropping_all_rows_is_an_empty_split(tmp_path):
    files = three(tmp_path, [1.0, 2.0, 3.0, 4.0])
    with pytest.raises(InvalidInput, match="the test split is empty"):
        load_splits(files, label="y", overlap="drop")


def test_one_class_only(tmp_path):
    files = three(tmp_path, [7.0, 8.0, 9.0, 10.0], (1, 1, 1, 1))
    with pytest.raises(InvalidInput, match="the test split has one class only"):
        load_splits(files, label="y")
    load_splits(files, label="y", regression=True)


def test_unknown_class_in_test(tmp_path):
    files = three(tmp_path, [7.0, 8.0, 9.0, 10.0], (0, 1, 2, 1))
    with pytest.raises(InvalidInput, match=r"classes that train has not: \['2'\]"):
        load_splits(files, label="y")


def test_different_columns(tmp_path):
    train, validation, test = three(tmp_path, [7.0, 8.0, 9.0, 10.0])
    write(test, 4, extra=np.arange(4))
    with pytest.raises(InvalidInput, match=r"it has \['extra'\] besides"):
        load_splits((train, validation, test), label="y")
    write(test, 4, x=["a", "b", "c", "d"])
    with pytest.raises(InvalidInput, match="its type differs"):
        load_splits((train, validation, test), label="y")


def test_no_rows_for_a_split(tmp_path):
    with pytest.raises(InvalidInput, match=r"split is empty|one class only"):
        load_splits(write(tmp_path / "d.parquet", 3), label="y")


def test_missing_time_column(tmp_path):
    with pytest.raises(InvalidInput, match="no such column"):
        load_splits(write(tmp_path / "d.parquet", 9), label="y", method="temporal", by="t")


@given(arrays(np.float64, 5, elements=st.floats(allow_nan=True)))
def test_row_hash_sees_values_not_dtypes(values):
    labels = np.zeros(5)
    plain = row_hashes(Dataset({"a": values}, labels))
    assert (plain == row_hashes(Dataset({"a": values + 0.0}, labels.astype(int)))).all()
    again = row_hashes(Dataset({"a": values[::-1].copy()}, labels))
    assert (plain[::-1] == again).all()


def test_row_hash_tells_rows_apart():
    images = np.random.default_rng(0).integers(0, 255, (50, 1, 4, 4), dtype=np.uint8)
    strings = np.array([None, "", "a", "b", "None"], dtype=object)
    assert len(set(row_hashes(Dataset({"i": images}, np.zeros(50))).tolist())) == 50
    assert len(set(row_hashes(Dataset({"s": strings}, np.zeros(5))).tolist())) == 5
    swapped = Dataset({"a": np.array([1.0]), "b": np.array([2.0])}, np.zeros(1))
    other = Dataset({"a": np.array([2.0]), "b": np.array([1.0])}, np.zeros(1))
    assert row_hashes(swapped) != row_hashes(other)
    assert digest(swapped) != digest(other)


@pytest.mark.parametrize("kind", ["table", "arrays"])
def test_save_and_load(tmp_path, kind):
    labels = np.array(["n", "y", "n"], dtype=object)
    if kind == "table":
        features = {
            "f": np.array([1.5, np.nan, 2.0]),
            "i": np.array([1, 2, 3]),
            "b": np.array([True, False, True]),
            "s": np.array(["x", None, ""], dtype=object),
        }
    else:
        features = {"image": np.random.default_rng(0).random((3, 2, 2)).astype(np.float32)}
    data = Dataset(features, labels)
    data.save(tmp_path / "d")
    loaded = Dataset.load(tmp_path / "d")
    assert digest(loaded) == digest(data)
    for name, values in features.items():
        assert loaded.features[name].dtype == values.dtype
    with pytest.raises(InvalidInput, match="already exists"):
        data.save(tmp_path / "d")
    with pytest.raises(InvalidInput, match="not a data set"):
        Dataset.load(tmp_path)


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=4, max_size=60))
def test_halves_share_no_row_and_have_the_same_mix(labels):
    rows = Dataset({"x": np.arange(float(len(labels)))}, np.array(labels, dtype=object))
    choosing, ranking = halves(rows)
    if min(labels.count(label) for label in set(labels)) < 2:
        assert len(choosing) == len(ranking) == len(rows)
        return
    positions = [*choosing.features["x"], *ranking.features["x"]]
    assert sorted(positions) == list(range(len(labels)))
    assert (np.diff(choosing.features["x"]) > 0).all()
    for label in set(labels):
        counts = [part.labels.tolist().count(label) for part in (choosing, ranking)]
        assert abs(counts[0] - counts[1]) <= 1


def test_halves_of_a_regression():
    rows = Dataset({"x": np.arange(101.0)}, np.random.default_rng(0).normal(size=101))
    choosing, ranking = halves(rows)
    assert (len(choosing), len(ranking)) == (51, 50)
    assert choosing.labels.mean() == pytest.approx(ranking.labels.mean(), abs=0.1)
