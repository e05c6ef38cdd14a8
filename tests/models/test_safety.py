"""What is published is decided by content: each trap is planted under an innocent name."""

import io
import json
import pickle
import tarfile
import zipfile

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, external_data_helper, helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from skops import io as skops_io

from trimgate.errors import InvalidInput
from trimgate.models import safety

X, Y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2


class Evil:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def graph(domain="", nodes=()):
    node = helper.make_node("Mul", ["x", "w"], ["y"], domain=domain)
    return helper.make_graph(
        [node, *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [onnx.numpy_helper.from_array(np.ones(2000, np.float32), "w")],
    )


def onnx_model(**options):
    return helper.make_model(graph(**options)).SerializeToString()


def external(folder, location):
    model = helper.make_model(graph())
    external_data_helper.convert_model_to_external_data(model, location="weights.data")
    onnx.save(model, folder / "model.onnx")
    proto = onnx.load(folder / "model.onnx", load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (folder / "model.onnx").write_bytes(proto.SerializeToString())


def archive(kind, content=b"x"):
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as made:
            made.writestr("data.pkl", content)
    else:
        with tarfile.open(fileobj=stream, mode=kind) as made:
            entry = tarfile.TarInfo("data.pkl")
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def problem(folder):
    found = safety.problems(folder)
    assert len(found) <= 1
    return found[0][1] if found else None


TRAPS = {
    **{f"pickle {n}": (pickle.dumps(Evil(), n), "is a pickle") for n in range(6)},
    "harmless pickle": (pickle.dumps([1]), "is a pickle"),
    "zip": (archive("zip", pickle.dumps(Evil())), "is a zip archive"),
    "tar": (archive("w:"), "is a tar archive"),
    "tar.gz": (archive("w:gz"), "is a gzip archive"),
    "elf": (b"\x7fELF\x02\x01\x01" + bytes(60), "is an executable"),
    "exe": (b"MZ\x90\x00" + bytes(60), "is an executable"),
    "script": (b"#!/bin/sh\ntrue\n", "is a script"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
}


@pytest.mark.parametrize("suffix", ["onnx", "safetensors", "json", "txt", "ubj", "npy", "xml"])
@pytest.mark.parametrize("trap", TRAPS)
def test_traps_under_innocent_names(tmp_path, trap, suffix, capfd):
    content, says = TRAPS[trap]
    (tmp_path / f"model.{suffix}").write_bytes(content)
    assert says in problem(tmp_path)
    assert capfd.readouterr().out == ""


def test_check_names_the_file(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_bytes(pickle.dumps(1))
    (tmp_path / "c.so").write_bytes(b"\x7fELF")
    with pytest.raises(InvalidInput, match=r"b\.json: is a pickle.*and 1 more files"):
        safety.check(tmp_path)


@pytest.mark.parametrize("name", ["x.pkl", "x.pt", "x.joblib", "x.py", "x", ".hidden", "x.h5"])
def test_what_is_not_listed_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"harmless")
    assert problem(tmp_path) == "is of a kind that is not published"


def test_allowed(tmp_path):
    import lightgbm
    import torch
    import xgboost
    from safetensors.torch import save_file

    (tmp_path / "model.onnx").write_bytes(onnx_model())
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "README.md").write_text("Beware of\nthe dog\n(t.\nRb.")
    (tmp_path / "vocab.txt").write_text("cat\nsat\nbat\nihat\n")
    (tmp_path / "config.pbtxt").write_text('backend: "onnxruntime"')
    np.save(tmp_path / "a.npy", X)
    save_file({"w": torch.ones(3)}, str(tmp_path / "weights.safetensors"))
    skops_io.dump(RandomForestClassifier(3).fit(X, Y), tmp_path / "model.skops")
    booster = xgboost.train({}, xgboost.DMatrix(X, Y), 2)
    booster.save_model(tmp_path / "model.ubj")
    booster.save_model(tmp_path / "xgboost.json")
    lightgbm.train({"verbose": -1}, lightgbm.Dataset(X, Y), 2).save_model(tmp_path / "model.txt")
    (tmp_path / "ov.xml").write_text('<?xml version="1.0"?><net name="m" version="11"></net>')
    (tmp_path / "ov.bin").write_bytes(b"MZ and other numbers")
    assert safety.problems(tmp_path) == [("ov.bin", "is an executable (Windows)")]
    (tmp_path / "ov.bin").write_bytes(bytes(100))
    assert safety.problems(tmp_path) == []


class TestOnnx:
    def test_foreign_domain(self, tmp_path):
        (tmp_path / "model.onnx").write_bytes(onnx_model(domain="com.example.ops"))
        assert "'com.example.ops', Mul" in problem(tmp_path)

    def test_foreign_domain_in_a_branch(self, tmp_path):
        inner = graph(domain="evil")
        node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
        (tmp_path / "model.onnx").write_bytes(onnx_model(nodes=[node]))
        assert "'evil'" in problem(tmp_path)

    def test_domain_of_the_models_own_functions(self, tmp_path):
        own = helper.make_function(
            "mine", "Mul", ["a", "b"], ["c"], [helper.make_node("Add", ["a", "b"], ["c"])],
            [helper.make_opsetid("", 17)],
        )  # fmt: skip
        model = helper.make_model(graph(domain="mine"), functions=[own])
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        assert problem(tmp_path) is None
        own.node[0].domain = "evil"
        model = helper.make_model(graph(domain="mine"), functions=[own])
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        assert "'evil'" in problem(tmp_path)

    def test_external_data(self, tmp_path):
        external(tmp_path, "weights.data")
        assert problem(tmp_path) is None

    @pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../x", "..\\x"])
    def test_external_data_outside(self, tmp_path, location):
        external(tmp_path, location)
        (tmp_path / "weights.data").unlink()
        assert "from outside the model directory" in problem(tmp_path)

    def test_external_data_that_lacks(self, tmp_path):
        external(tmp_path, "other.data")
        (tmp_path / "weights.data").unlink()
        assert "lacks its weights ('other.data')" in problem(tmp_path)

    def test_data_that_no_model_names(self, tmp_path):
        (tmp_path / "model.onnx").write_bytes(onnx_model())
        (tmp_path / "weights.data").write_bytes(bytes(10))
        assert problem(tmp_path) == "is of a kind that is not published"


class TestSkops:
    def test_foreign_type(self, tmp_path):
        from sklearn.preprocessing import FunctionTransformer

        made = FunctionTransformer(func=problem)
        skops_io.dump(made, tmp_path / "model.skops")
        assert "not trusted" in problem(tmp_path)

    def test_pickle_inside(self, tmp_path):
        file = tmp_path / "model.skops"
        skops_io.dump(LogisticRegression().fit(X, Y), file)
        with zipfile.ZipFile(file, "a") as made:
            made.writestr("more.npy", pickle.dumps(Evil()))
        assert "holds 'more.npy'" in problem(tmp_path)
        with zipfile.ZipFile(file, "w") as made:
            made.writestr("schema.json", "{}")
            made.writestr("run.py", "print()")
        assert "holds 'run.py'" in problem(tmp_path)


def test_array_of_objects(tmp_path):
    np.save(tmp_path / "a.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    assert "is not what its name says" in problem(tmp_path)


@pytest.mark.parametrize(
    "header", [{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 99]}}, "nonsense", None]
)
def test_damaged_safetensors(tmp_path, header):
    content = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    assert problem(tmp_path).startswith("is not")


@pytest.mark.parametrize(
    "text", ['<!DOCTYPE x [<!ENTITY a "b">]><net>&a;</net>', "<other/>", "<net", ""]
)
def test_xml_that_is_no_model(tmp_path, text):
    (tmp_path / "model.xml").write_text(text)
    assert problem(tmp_path).startswith(("is not", "declares"))


def test_links_and_odd_files(tmp_path):
    (tmp_path / "a.json").symlink_to("/etc/hostname")
    with pytest.raises(InvalidInput, match="is a link"):
        safety.check(tmp_path)
    (tmp_path / "a.json").unlink()
    (tmp_path / "a\nb.json").write_text("{}")
    with pytest.raises(InvalidInput, match="not portable"):
        safety.check(tmp_path)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_every_pickle_with_a_mark_is_seen(value):
    for protocol in range(2, 6):
        assert safety._is_pickle(io.BytesIO(pickle.dumps(value, protocol)))


@given(st.text())
def test_json_is_no_pickle(text):
    assert not safety._is_pickle(io.BytesIO(json.dumps({"text": text}).encode()))
