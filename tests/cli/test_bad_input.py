"""Bad input: one clear line that names file, key, value and mend; exit code 2; nothing written."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import yaml
from onnx import TensorProto, helper
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeRegressor
from skops import io

from trimgate.cli import main

COLUMNS = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A linear model that takes no missing values, its rows, and a regressor."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(600, 4)), columns=COLUMNS)
    rows["y"] = (rows["a"] + rng.normal(size=600) > 0).astype(int)
    rows["value"] = rows["a"] * 2.5
    rows.drop(columns="value").to_parquet(folder / "rows.parquet", index=False)
    rows.drop(columns="y").to_parquet(folder / "values.parquet", index=False)
    io.dump(LogisticRegression().fit(rows[COLUMNS], rows["y"]), folder / "model.skops")
    tree = DecisionTreeRegressor(max_depth=4).fit(rows[COLUMNS], rows["value"])
    io.dump(tree, folder / "tree.skops")
    return folder


@pytest.fixture
def place(files, tmp_path, monkeypatch):
    """A project folder, in which the command is called."""
    folder = tmp_path / "project"
    folder.mkdir()
    for file in files.iterdir():
        os.link(file, folder / file.name)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    return folder


def config(**changes):
    """The text of a good config, with some keys changed; `section.key` reaches inside."""
    whole = {
        "name": "fraud",
        "model": {"path": "model.skops"},
        "data": {"path": "rows.parquet", "label": "y", "split": {"method": "random"}},
        "recipes": [{"steps": [{"technique": "optimize_graph"}]}],
        "mlflow": {"enabled": False},
    }
    for key, value in changes.items():
        *sections, last = key.split("__")
        section = whole
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return yaml.safe_dump(whole)


def rows_with(place: Path, change) -> None:
    frame = pd.read_parquet(place / "rows.parquet")
    change(frame)
    (place / "rows.parquet").unlink()
    frame.to_parquet(place / "rows.parquet", index=False)


def listing(folder: Path) -> dict[str, int]:
    return {str(f.relative_to(folder)): f.lstat().st_mtime_ns for f in folder.rglob("*")}


def refused(capsys, place, text: str | bytes | None, *arguments: str) -> str:
    """Runs with a bad config; returns the one line that says so."""
    if text is not None:
        content = text.encode() if isinstance(text, str) else text
        (place / "optimize.yaml").write_bytes(content)
    before = listing(place)
    capsys.readouterr()
    assert main(list(arguments or ("run", "optimize.yaml"))) == 2
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("trimgate: ")
    assert "Traceback" not in shown.out + shown.err
    assert listing(place) == before
    return lines[0].removeprefix("trimgate: ")


# ------------------------------------------------------------------------------- the config file

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{n}: &{n} [{','.join(['*' + p] * 10)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)

TEXTS = {
    "no mapping": ("- a\n", "must be a mapping with `name`, `model` and `data`, and it is a list"),
    "empty": ("", "and it is empty; `trimgate init --model M --data D` writes one"),
    "not YAML": ("name: [a\ndata: {", "is not YAML at line 2"),
    "tab": ("name:\n\tpath: x", "is not YAML at line 2, column 1"),
    "not text": (
        b"name: caf\xe9\n",
        "is not YAML: line 1 is not UTF-8 text; save it in the encoding UTF-8",
    ),
    "bomb": (BOMB, "more than 100000 values once its aliases are written out"),
    "self": ("name: &a [*a]", "an anchor holds itself"),
    "deep": ("a: " + "[" * 5000, "is nested too deeply"),
    "huge": ("# " + "x" * 2**20, "is larger than 1 MiB"),
    "twice": ("name: a\nname: b\n", "name: the key stands twice (again at line 2)"),
    "object": ("name: !!python/object/apply:os.system [ls]", "is not YAML at line 1"),
    "number as key": ("1: 2\n", "optimize.yaml: "),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_of_the_config(capsys, place, case):
    text, expected = TEXTS[case]
    line = refused(capsys, place, text)
    assert line.startswith("optimize.yaml: ")
    assert expected in line


CHANGES = {
    "unknown key": ({"modle": {}}, "modle: unknown key; did you mean 'model'?"),
    "unknown inner key": ({"data__lable": "y"}, "data.lable = 'y': unknown key"),
    "wrong type": ({"seed": "many"}, "seed = 'many': "),
    "wrong inner type": (
        {"benchmark": {"seconds": "long"}},
        "benchmark.seconds = 'long': ",
    ),
    "share": (
        {"data__split__test": 1.5},
        "data.split.test = 1.5: ",
    ),
    "name": ({"name": "My Model"}, "name = 'My Model': "),
    "technique": (
        {"recipes": [{"steps": [{"technique": "shrink"}]}]},
        "technique = 'shrink': is not a technique; use one of",
    ),
    "technique parameter": (
        {"recipes": [{"steps": [{"technique": "quantize", "shceme": "static-int8"}]}]},
        "quantize takes ",
    ),
    "profile": ({"target": "gpux"}, "target = 'gpux': no target profile 'gpux'; there are"),
    "no recipes": ({"recipes": []}, "recipes: give at least one recipe, or `default`"),
    "unknown metric": ({"metric": "acuracy"}, "metric = 'acuracy': "),
    "metric of another task": (
        {"metric": "rmse"},
        "metric = 'rmse': this metric is not for a binary task; use one of accuracy",
    ),
    "rule of another task": (
        {"gate": {"max_drop": {"r2": 0.1}}},
        "gate.max_drop.r2 = 'r2': this metric is not for a binary task",
    ),
    "no rules": (
        {"gate": {}},
        "gate: has no rules, and without rules nothing passes; add max_drop",
    ),
    "label": (
        {"data__label": "fraud"},
        "data.label = 'fraud': {place}/rows.parquet: there is no such column; "
        "the columns are a, b, c, d, y",
    ),
    "drop": ({"data__drop": ["e"]}, "data.drop = 'e': {place}/rows.parquet: there is no such"),
    "split column": (
        {"data__split": {"method": "temporal", "by": "t"}},
        "data.split.by = 't': {place}/rows.parquet: there is no such column",
    ),
    "fewer features": (
        {"data__drop": ["d"]},
        "model.path: {place}/model.skops: model and data have different features: the data lacks d",
    ),
    "no data": (
        {"data__path": "nope.parquet"},
        "data.path: {place}/nope.parquet: the file is missing",
    ),
    "data folder": ({"data__path": ".."}, "data.path: {outside}: is a folder; name a file in it"),
    "data kind": ({"data__path": "model.skops"}, "the file's kind '.skops' is not known"),
    "no model": (
        {"model__path": "nope.skops"},
        "model.path: {place}/nope.skops: the file is missing",
    ),
    "model folder": ({"model__path": "."}, "model.path: {place}: is a folder"),
    "model kind": ({"model__path": "rows.parquet"}, "is not a model file that trimgate reads"),
    "remote": ({"data__path": "s3://b/rows.parquet"}, "lies in remote storage"),
    "same name": (
        {
            "recipes": [
                {"name": "x", "steps": [{"technique": "optimize_graph"}]},
                {"name": "x", "steps": [{"technique": "select_features"}]},
            ]
        },
        "recipes.name = 'x': two different recipes have this name; give each a name of its own",
    ),
    "no builder": (
        {"model__path": "w.safetensors"},
        "model.path: {place}/w.safetensors: the file is missing",
    ),
    "store": ({"promote": {"store": "rows.parquet/store"}}, "rows.parquet is not a folder; name"),
    "tracking": (
        {"mlflow": {"tracking_uri": "sqlite:///rows.parquet/m.db"}},
        "mlflow.tracking_uri = ",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_value_of_the_config(capsys, place, case):
    changes, expected = CHANGES[case]
    line = refused(capsys, place, config(**changes))
    assert line.startswith("optimize.yaml: ")
    assert expected.format(place=place, outside=place.parent) in line


def test_metric_of_a_regression(capsys, place):
    text = config(
        model__path="tree.skops", data__path="values.parquet", data__label="value",
        metric="accuracy",
    )  # fmt: skip
    line = refused(capsys, place, text)
    assert "metric = 'accuracy': this metric is not for a regression task; use one of" in line


def test_only_quantize_on_trees(capsys, place):
    text = config(
        model__path="tree.skops", data__path="values.parquet", data__label="value",
        recipes=[{"steps": [{"technique": "quantize"}]}],
    )  # fmt: skip
    line = refused(capsys, place, text)
    assert "recipes: no recipe is left that cloud-cpu can run (" in line
    assert "give other recipes or another target" in line


def test_config_is_a_folder(capsys, place):
    assert refused(capsys, place, None, "run", ".") == ".: is a folder; name the config file in it"


# -------------------------------------------------------------------------------------- the rows


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_the_model_cannot_take(capsys, place, value):
    def change(frame):
        frame.loc[5:9, "b"] = value

    rows_with(place, change)
    line = refused(capsys, place, config())
    assert line.startswith("optimize.yaml: data: ")
    assert "the column 'b'" in line
    assert "cannot take them; " in line
    assert "imputer" in line


def test_missing_labels(capsys, place):
    def change(frame):
        frame["y"] = frame["y"].astype(float)
        frame.loc[:2, "y"] = np.nan

    rows_with(place, change)
    line = refused(capsys, place, config())
    assert "data.label = 'y': " in line
    assert "3 of 600 labels are missing or infinite; remove those rows" in line


def test_one_class(capsys, place):
    rows_with(place, lambda frame: frame.__setitem__("y", 1))
    line = refused(capsys, place, config())
    assert "data.label" in line
    assert "the train split has one class only (1 in all of its" in line


def test_rows_in_two_splits(capsys, place):
    frame = pd.read_parquet(place / "rows.parquet")
    frame[:400].to_parquet(place / "train.parquet")
    frame[400:500].to_parquet(place / "validation.parquet")
    frame[393:600].to_parquet(place / "test.parquet")
    parts = {name: f"{name}.parquet" for name in ("train", "validation", "test")}
    text = config(data={**parts, "label": "y"})
    line = refused(capsys, place, text)
    assert line.startswith("optimize.yaml: data.test: ")
    assert "107 of 207 test rows also stand in train or validation" in line
    assert "set data.overlap to drop" in line


def test_empty_split(capsys, place):
    rows_with(place, lambda frame: frame.drop(index=frame.index[3:], inplace=True))
    line = refused(capsys, place, config(data__split={"method": "random", "test": 0.1}))
    assert line.startswith("optimize.yaml: data.path: ")
    assert "the test split is empty; bring more rows or larger shares" in line


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.npz"])
def test_damaged_rows(capsys, place, name):
    content = (place / "rows.parquet").read_bytes()[:-200]
    (place / name).unlink(missing_ok=True)
    (place / name).write_bytes(content)
    line = refused(capsys, place, config(data__path=name))
    assert f"{place}/{name}: " in line
    assert line.startswith("optimize.yaml: data.path: ")


# ------------------------------------------------------------------------------------- the model


@pytest.mark.parametrize("name", ["m.onnx", "m.skops", "m.json", "m.ubj", "m.txt", "m.joblib"])
@pytest.mark.parametrize("content", [b"", b"\x00\x01 not a model" * 20])
def test_damaged_model(capsys, place, name, content):
    (place / name).write_bytes(content)
    line = refused(capsys, place, config(model__path=name, model__allow_pickle=True))
    assert line.startswith(f"optimize.yaml: model.path: {place}/{name}: ")


def test_cut_off_model(capsys, place):
    for name in ("model.skops", "m.onnx"):
        content = (place / name).read_bytes() if name == "model.skops" else _onnx()
        (place / name).unlink(missing_ok=True)
        (place / name).write_bytes(content[: len(content) // 2])
        line = refused(capsys, place, config(model__path=name))
        assert line.startswith(f"optimize.yaml: model.path: {place}/{name}: ")


def _onnx() -> bytes:
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [rows], [out])
    return helper.make_model(graph).SerializeToString()


def test_onnx_with_other_inputs(capsys, place):
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 7])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 7])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [rows], [out])
    onnx.save(helper.make_model(graph), place / "m.onnx")
    line = refused(capsys, place, config(model__path="m.onnx"))
    assert f"model.path: {place}/m.onnx: x: model and data have different features" in line


def test_pickle_without_permission(capsys, place):
    (place / "m.joblib").write_bytes(b"cposix\nsystem\n(S'touch hacked'\ntR.")
    line = refused(capsys, place, config(model__path="m.joblib"))
    assert "model.allow_pickle = False: " in line
    assert "a pickle runs code when it is loaded" in line


BUILDERS = {
    "no module": ("nowhere:make", "cannot be imported (No module named 'nowhere')"),
    "no function": ("nets:nope", "cannot be imported (module 'nets"),
    "raises": ("nets:raises", "the builder failed (ValueError: no such width)"),
    "exits": ("nets:leaves", "the builder failed (SystemExit: 7)"),
    "no builder": (None, "torch weights need a builder"),
    "module that raises": ("broken:make", "cannot be imported (ZeroDivisionError"),
    "module with a typo": ("typo:make", "cannot be imported (SyntaxError"),
}


@pytest.mark.parametrize("case", BUILDERS)
def test_builder(capsys, place, case):
    pytest.importorskip("torch", reason="the extra torch is not installed")
    save_file({"weight": np.zeros((2, 4), np.float32)}, place / "w.safetensors")
    (place / "nets.py").write_text(
        "import sys\ndef raises(): raise ValueError('no such\\nwidth')\ndef leaves(): sys.exit(7)\n"
    )
    (place / "broken.py").write_text("1 / 0\n")
    (place / "typo.py").write_text("def make(:\n")
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    for name in ("nets", "broken", "typo"):
        sys.modules.pop(name, None)
    builder, expected = BUILDERS[case]
    try:
        changes = {} if builder is None else {"model__builder": builder}
        line = refused(capsys, place, config(model__path="w.safetensors", **changes))
    finally:
        sys.dont_write_bytecode = before
    assert expected in line
    assert line.startswith("optimize.yaml: model.builder")


# ------------------------------------------------------------------------------- ports and places


@pytest.fixture
def taken():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def test_port_of_run_in_use(capsys, place, taken):
    line = refused(capsys, place, config(), "run", "optimize.yaml", "--serve", "--port", str(taken))
    assert line.startswith(f"--port = {taken}: ")
    assert "or give another port (0 chooses a free one)" in line


def test_port_of_serve_in_use(place, files, taken, cancer_model):
    done = subprocess.run(
        [sys.executable, "-m", "trimgate", "serve", str(cancer_model), "--port", str(taken)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"trimgate: --port = {taken}: ")


@pytest.fixture(scope="module")
def cancer_model(files, tmp_path_factory):
    from trimgate.data import load_splits
    from trimgate.models import ModelSource, import_model

    out = tmp_path_factory.mktemp("served") / "model"
    rows = load_splits(files / "rows.parquet", label="y").train
    import_model(ModelSource(path=files / "model.skops", name="m"), rows, out)
    return out


@pytest.mark.parametrize("command", ["serve", "report"])
def test_no_such_folder(capsys, place, command):
    line = refused(capsys, place, None, command, "nowhere")
    assert line.startswith("nowhere: ")


@pytest.mark.parametrize("output", ["rows.parquet", "rows.parquet/runs", "/proc/nowhere/runs"])
def test_output_that_cannot_be_written(capsys, place, output):
    line = refused(capsys, place, config(), "run", "optimize.yaml", "--output", output)
    assert line.startswith(f"--output = '{output}': ")


def test_output_of_compile(capsys, place):
    line = refused(capsys, place, config(), "compile", "optimize.yaml", "-o", "no/where.yaml")
    assert line == "--output = 'no/where.yaml': the folder no is missing"
    line = refused(capsys, place, config(), "compile", "optimize.yaml", "-o", ".")
    assert line == "--output = '.': is a folder; name a file in it"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "nope.skops", "--data", "rows.parquet"], "nope.skops: model.path: the file"),
        (["--model", "model.skops", "--data", "nope.csv"], "nope.csv: the file is missing"),
        (["--model", "model.skops", "--data", "."], ".: is a folder"),
        (
            ["--model", "model.skops", "--data", "rows.parquet", "--target", "moon"],
            "target = 'moon': no target profile 'moon'",
        ),
        (
            ["--model", "model.skops", "--data", "rows.parquet", "--time", "when"],
            "--time = 'when': there is no such column",
        ),
    ],
)
def test_init(capsys, place, arguments, expected):
    assert expected in refused(capsys, place, None, "init", *arguments)


# ----------------------------------------------------------------------------- target and builder


def test_a_gpu_that_is_not_there(capsys, place):

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has a CUDA provider")
    line = refused(capsys, place, config(target="gpu"))
    assert line.startswith("optimize.yaml: target = 'gpu': the target asks for a GPU")
    assert "onnxruntime-gpu" in line


@pytest.mark.parametrize("pair", ["classes", "=3", "a b=3", "classes=[1"])
def test_builder_arguments(capsys, place, pair):
    save_file({"w": np.zeros(1, np.float32)}, place / "w.safetensors")
    line = refused(
        capsys, place, None, "init", "--model", "w.safetensors", "--data", "rows.parquet",
        "--builder", "nets:build", "--builder-argument", pair,
    )  # fmt: skip
    assert line.startswith(f"--builder-argument = {pair!r}: is not ")
