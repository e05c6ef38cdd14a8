"""What is refused when a model is brought, and what the record says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.models import (
    ModelSource,
    directory,
    export_onnx,
    import_model,
    load_trainable,
    save_trainable,
)


def fitted(data: Dataset) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression())
    return model.fit(np.stack(list(data.features.values()), axis=1), data.labels)


def saved(data: Dataset, tmp_path: Path) -> Path:
    import skops.io

    skops.io.dump(fitted(data), tmp_path / "m.skops")
    return tmp_path / "m.skops"


def refused(file: Path, data: Dataset, **more: Any) -> str:
    out = file.parent / "out"
    with pytest.raises(InvalidInput) as caught:
        import_model(ModelSource(path=file, **more), data, out)
    assert not out.exists()
    assert list(file.parent.glob(".*.partial")) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_record_is_complete(cancer: Dataset, tmp_path: Path):
    info = import_model(ModelSource(path=saved(cancer, tmp_path)), cancer, tmp_path / "out")
    assert directory.read(tmp_path / "out", verify=True) == info
    assert info.name == "m"
    assert info.family == "linear"
    assert info.runtime.name == "native"
    assert info.inputs[0].features == tuple(cancer.features)
    assert info.inputs[0].no_nan == tuple(cancer.features)
    assert list(info.files) == ["model.skops"]


def test_equal_models_give_equal_bytes(cancer: Dataset, tmp_path: Path):
    info = import_model(ModelSource(path=saved(cancer, tmp_path)), cancer, tmp_path / "out")
    (tmp_path / "again").mkdir()
    save_trainable(load_trainable(tmp_path / "out"), tmp_path / "again", info)
    assert directory.file_sha256(tmp_path / "again" / "model.skops") == (
        info.files["model.skops"].sha256
    )


def test_pickle_needs_permission(cancer: Dataset, tmp_path: Path):
    import joblib

    file = tmp_path / "m.joblib"
    joblib.dump(fitted(cancer), file)
    assert "model.allow_pickle = False" in refused(file, cancer)
    info = import_model(ModelSource(path=file, allow_pickle=True), cancer, tmp_path / "ok")
    assert list(info.files) == ["model.skops"]


def test_pickle_is_not_opened_without_permission(cancer: Dataset, tmp_path: Path):
    import pickle

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    file = tmp_path / "m.pkl"
    file.write_bytes(pickle.dumps(Trap()))
    refused(file, cancer)
    assert not (tmp_path / "sprung").exists()


def test_skops_with_foreign_types_names_them(cancer: Dataset, tmp_path: Path):
    import os

    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    skops.io.dump(FunctionTransformer(os.system), tmp_path / "m.skops")
    assert "system" in refused(tmp_path / "m.skops", cancer)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".skops", b"no zip"),
        (".json", b"{}"),
        (".ubj", b"\x00\x01"),
        (".txt", b"hello"),
        (".txt", b"tree\nversion=v4\n"),
        (".onnx", b"hello"),
        (".pkl", b"hello"),
        (".skops", b""),
    ],
)
def test_damaged_files(suffix: str, content: bytes, cancer: Dataset, tmp_path: Path):
    file = tmp_path / f"m{suffix}"
    file.write_bytes(content)
    message = refused(file, cancer, allow_pickle=True)
    assert str(file) in message


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "skops", "onnx"])
def test_files_that_are_cut_off(kind: str, cancer: Dataset, tmp_path: Path):
    x = np.stack(list(cancer.features.values()), axis=1)
    if kind == "xgboost":
        import xgboost

        file = tmp_path / "m.ubj"
        parameters = {"objective": "binary:logistic", "nthread": 1}
        xgboost.train(parameters, xgboost.DMatrix(x, cancer.labels), 3).save_model(file)
    elif kind == "lightgbm":
        import lightgbm

        file = tmp_path / "m.txt"
        parameters = {"objective": "binary", "verbose": -1, "num_threads": 1}
        lightgbm.train(parameters, lightgbm.Dataset(x, cancer.labels), 3).save_model(file)
    elif kind == "skops":
        file = saved(cancer, tmp_path)
    else:
        from skl2onnx import to_onnx

        file = tmp_path / "m.onnx"
        file.write_bytes(to_onnx(fitted(cancer), x[:1].astype(np.float32)).SerializeToString())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "read" in refused(file, cancer)


def test_missing_file_and_unknown_kind(cancer: Dataset, tmp_path: Path):
    assert "missing" in refused(tmp_path / "no.skops", cancer)
    (tmp_path / "m.h5").write_text("x")
    assert ".safetensors" in refused(tmp_path / "m.h5", cancer)


def test_feature_count_differs(cancer: Dataset, tmp_path: Path):
    fewer = Dataset(dict(list(cancer.features.items())[:5]), cancer.labels)
    assert "takes 30, and the data has 5" in refused(saved(cancer, tmp_path), fewer)


def test_feature_names_differ(cancer: Dataset, tmp_path: Path):
    import skops.io
    from sklearn.tree import DecisionTreeClassifier

    skops.io.dump(DecisionTreeClassifier().fit(cancer.frame(), cancer.labels), tmp_path / "m.skops")
    renamed = {("y0" if n == "x0" else n): v for n, v in cancer.features.items()}
    message = refused(tmp_path / "m.skops", Dataset(renamed, cancer.labels))
    assert "lacks x0" in message
    assert "does not know y0" in message


def test_columns_in_another_order_are_put_right(cancer: Dataset, tmp_path: Path):
    import skops.io
    from sklearn.tree import DecisionTreeClassifier

    skops.io.dump(DecisionTreeClassifier().fit(cancer.frame(), cancer.labels), tmp_path / "m.skops")
    turned = Dataset(dict(reversed(cancer.features.items())), cancer.labels)
    info = import_model(ModelSource(path=tmp_path / "m.skops"), turned, tmp_path / "out")
    assert info.inputs[0].features == tuple(cancer.features)
    assert info.features == tuple(turned.features)


def test_labels_that_the_model_does_not_know(cancer: Dataset, tmp_path: Path):
    data = Dataset(cancer.features, np.array(["no", "yes"], dtype=object)[cancer.labels])
    assert "does not know (no, yes)" in refused(saved(cancer, tmp_path), data)


def test_task_that_disagrees(cancer: Dataset, tmp_path: Path):
    assert "made for binary" in refused(saved(cancer, tmp_path), cancer, task="regression")


def test_missing_values_that_the_model_cannot_take(cancer: Dataset, gappy: Dataset, tmp_path: Path):
    message = refused(saved(cancer, tmp_path), gappy)
    assert "NaN" in message
    assert "x0" in message


def test_not_fitted_and_no_predictor(cancer: Dataset, tmp_path: Path):
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    skops.io.dump(LogisticRegression(), tmp_path / "m.skops")
    assert "not fitted" in refused(tmp_path / "m.skops", cancer)
    x = np.stack(list(cancer.features.values()), axis=1)
    skops.io.dump(StandardScaler().fit(x), tmp_path / "m.skops")
    assert "neither a classifier" in refused(tmp_path / "m.skops", cancer)


@pytest.mark.parametrize("suffix", [".ubj", ".txt"])
def test_damage_that_ends_the_process_of_the_library(suffix: str, cancer: Dataset, tmp_path: Path):
    """Whole in its outline, wrong inside: one line, and this process lives on."""
    x = np.stack(list(cancer.features.values()), axis=1)
    file = tmp_path / f"m{suffix}"
    if suffix == ".ubj":
        import xgboost

        parameters = {"objective": "binary:logistic", "nthread": 1}
        xgboost.train(parameters, xgboost.DMatrix(x, cancer.labels), 3).save_model(file)
        content = file.read_bytes()
        place = content.index(b"left_children") + len(b"left_children") + 12
        damaged = content[:place] + b"\x7f" * 12 + content[place + 12 :]
    else:
        import lightgbm

        parameters = {"objective": "binary", "verbose": -1, "num_threads": 1}
        lightgbm.train(parameters, lightgbm.Dataset(x, cancer.labels), 3).save_model(file)
        damaged = file.read_bytes().replace(b"threshold=", b"thresholx=", 1)
    file.write_bytes(damaged)
    assert "read" in refused(file, cancer)


def test_a_model_directory_is_taken_as_it_is(cancer: Dataset, tmp_path: Path):
    info = import_model(ModelSource(path=saved(cancer, tmp_path)), cancer, tmp_path / "first")
    (tmp_path / "first" / "signature.json").write_text("{}")  # as it is published
    again = import_model(ModelSource(path=tmp_path / "first"), cancer, tmp_path / "again")
    assert again == info
    assert directory.read(tmp_path / "again", verify=True) == info
    assert sorted(f.name for f in (tmp_path / "again").iterdir()) == ["model.json", "model.skops"]
    named = import_model(
        ModelSource(path=tmp_path / "first", name="other"), cancer, tmp_path / "named"
    )
    assert named.name == "other"
    # what cannot be trained any more is as an ONNX file
    exported = export_onnx(
        load_trainable(tmp_path / "first"), info, cancer, tmp_path / "first" / "model.onnx"
    )
    (tmp_path / "first" / "model.skops").unlink()
    (tmp_path / "first" / "signature.json").unlink()
    directory.seal(tmp_path / "first", info.model_copy(update=exported))
    only = import_model(ModelSource(path=tmp_path / "first"), cancer, tmp_path / "only")
    assert (only.framework, only.has_onnx) == ("onnx", True)


def test_a_model_directory_that_is_not_right(cancer: Dataset, tmp_path: Path):
    import_model(ModelSource(path=saved(cancer, tmp_path)), cancer, tmp_path / "made")
    made = tmp_path / "made"
    odd = Dataset(cancer.features, cancer.labels + 1)
    assert "does not know the classes 2 of the data" in refused(made, odd)
    fewer = Dataset({n: v for n, v in cancer.features.items() if n != "x3"}, cancer.labels)
    assert "the data lacks x3" in refused(made, fewer)
    assert "the model is for binary" in refused(made, cancer, task="regression")
    (made / "more.pkl").write_bytes(b"\x80\x04K\x01.")
    assert "pickle" in refused(made, cancer)
    (made / "more.pkl").unlink()
    (made / "model.skops").write_bytes((made / "model.skops").read_bytes() + b"\0")
    assert "altered" in refused(made, cancer)
