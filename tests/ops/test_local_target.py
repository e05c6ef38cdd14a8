import json

import pytest

from trimgate.errors import InvalidInput
from trimgate.models.directory import ModelInfo, TensorSpec, read, seal, writing
from trimgate.ops.local_target import promote, released


def model(folder, content=b"one"):
    info = ModelInfo(
        name="m",
        task="regression",
        family="other",
        framework="onnx",
        inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 1), features=("a",)),),
        features=("a",),
    )
    with writing(folder) as partial:
        (partial / "model.onnx").write_bytes(content)
        seal(partial, info)
    return folder


def test_promote_and_again(tmp_path):
    store = tmp_path / "store"
    source = model(tmp_path / "a")
    first = promote(source, store, name="m", run="r1", verdict="pass")
    assert first.digest == read(source).digest
    assert first.uri == f"models/m/{first.digest.removeprefix('sha256:')}/"
    assert read(store / first.uri, verify=True) == read(source)
    assert promote(source, store, name="m", run="r2", verdict="pass") == first
    assert released(store, "m") == first
    assert released(store, "other") is None


def test_previous_release_is_kept(tmp_path):
    store = tmp_path / "store"
    first = promote(model(tmp_path / "a"), store, name="m", run="r1", verdict="pass")
    second = promote(model(tmp_path / "b", b"two"), store, name="m", run="r2", verdict="pass")
    assert second.previous == first.digest
    assert (store / first.uri).is_dir()
    assert json.loads((store / "releases" / "m.json").read_text())["run"] == "r2"
    assert not [f for f in store.rglob("*") if "partial" in f.name]


@pytest.mark.parametrize("verdict", ["fail", "inconclusive", "baseline", ""])
def test_only_what_passed(tmp_path, verdict):
    with pytest.raises(InvalidInput, match="only a model that passed"):
        promote(model(tmp_path / "a"), tmp_path / "store", name="m", run="r", verdict=verdict)
    assert not (tmp_path / "store").exists()


def test_altered_model(tmp_path):
    source = model(tmp_path / "a")
    (source / "model.onnx").write_bytes(b"evil")
    with pytest.raises(InvalidInput, match="altered"):
        promote(source, tmp_path / "store", name="m", run="r", verdict="pass")
    assert released(tmp_path / "store", "m") is None


def test_altered_store(tmp_path):
    store = tmp_path / "store"
    source = model(tmp_path / "a")
    release = promote(source, store, name="m", run="r1", verdict="pass")
    (store / release.uri / "model.onnx").write_bytes(b"evil")
    with pytest.raises(InvalidInput, match="altered"):
        promote(source, store, name="m", run="r2", verdict="pass")
