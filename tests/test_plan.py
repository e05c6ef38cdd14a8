"""What a plan settles from the target and the model."""

import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression

from trimgate.config import parse_config
from trimgate.errors import InvalidInput
from trimgate.models.directory import Tokenizer
from trimgate.plan import _check_server, make_plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table and a linear model of it; images and an ONNX model of them."""
    from onnx import TensorProto, helper, numpy_helper

    place = tmp_path_factory.mktemp("plan")
    iris = load_iris(as_frame=True)
    rows = iris.data.add(np.random.default_rng(0).normal(0, 1e-3, iris.data.shape))
    pd.DataFrame({**rows, "label": iris.target}).to_parquet(place / "iris.parquet")
    linear = LogisticRegression(max_iter=500).fit(iris.data.to_numpy(), iris.target)
    onnx = to_onnx(linear, np.zeros((1, 4), np.float32), options={"zipmap": False})
    (place / "iris.onnx").write_bytes(onnx.SerializeToString())
    digits = load_digits()
    np.savez(place / "digits.npz", image=digits.images[:400].astype(np.float32) / 16,
             label=digits.target[:400])  # fmt: skip
    weight = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])],
        "flat",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 10])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (place / "digits.onnx").write_bytes(model.SerializeToString())
    return place


def plan(folder, name, data, **more):
    config = {
        "name": name,
        "model": {"path": str(folder / f"{name}.onnx")},
        "data": {"path": str(folder / data), "label": "label"},
        "recipes": [{"steps": [{"technique": "optimize_graph"}]}],
        **more,
    }
    return make_plan(parse_config(config))


@pytest.mark.parametrize(
    ("name", "data", "target", "sizes"),
    [
        ("iris", "iris.parquet", "cloud-cpu", (1, 1000)),
        ("digits", "digits.npz", "cloud-cpu", (1, 32)),
        ("digits", "digits.npz", {"profile": "cloud-cpu", "threads": 2}, (1, 32)),
        ("digits", "digits.npz", {"profile": "cloud-cpu", "batch_sizes": [1, 1000]}, (1, 1000)),
        ("digits", "digits.npz", "edge-cpu", (1,)),
    ],
)
def test_images_come_in_smaller_batches(folder, name, data, target, sizes):
    settled = plan(folder, name, data, target=target).config.target
    assert settled.batch_sizes == sizes
    if isinstance(target, dict) and "threads" in target:
        assert settled.threads == 2


@pytest.mark.parametrize(
    ("target", "gate", "limit"),
    [
        ("cloud-cpu", None, None),
        ("edge-cpu", None, 512),
        ("edge-cpu", {"min_speedup": 1.05}, 512),
        ("edge-cpu", {"max_peak_rss_mb": 100}, 100),
        ({"profile": "edge-cpu", "memory_limit_mb": 64}, {"max_peak_rss_mb": 100}, 64),
    ],
)
def test_memory_of_the_target_is_a_rule(folder, target, gate, limit):
    more = {} if gate is None else {"gate": gate}
    policy = plan(folder, "iris", "iris.parquet", target=target, **more).policy
    assert policy.max_peak_rss_mb == limit


def test_a_step_without_an_onnx_form_is_named_before_the_run(tmp_path):
    """A model that nothing can be done for ends in one line; trees are left with daal4py."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from skops import io

    rows = load_iris(as_frame=True).frame.rename(columns={"target": "label"})
    rows += np.random.default_rng(0).normal(0, 1e-3, rows.shape) * (rows.columns != "label")
    rows.astype({"label": "int64"}).to_parquet(tmp_path / "rows.parquet")
    features, labels = rows.drop(columns="label"), rows["label"].astype(int)

    def planned(estimator):
        model = make_pipeline(FunctionTransformer(np.arctan), estimator).fit(features, labels)
        io.dump(model, tmp_path / "m.skops")
        return make_plan(
            parse_config(
                {
                    "name": "m",
                    "model": {"path": str(tmp_path / "m.skops")},
                    "data": {"path": str(tmp_path / "rows.parquet"), "label": "label"},
                }
            )
        )

    with pytest.raises(InvalidInput, match=r"no recipe is left.*FunctionTransformer\(arctan\)"):
        planned(LogisticRegression())
    forest = planned(RandomForestClassifier(5))
    assert forest.recipes[0].name == "daal4py"
    assert all("daal4py" in recipe.name for recipe in forest.recipes)
    assert "FunctionTransformer(arctan)" in forest.refused["ONNX"]


def test_a_hidden_column_that_does_not_exist_is_refused(folder):
    report = {"example_rows": 3, "hide": ["sepal length (cm)"]}
    assert plan(folder, "iris", "iris.parquet", report=report).config.report.example_rows == 3
    with pytest.raises(InvalidInput, match="there is no such column") as error:
        plan(folder, "iris", "iris.parquet", report={**report, "hide": ["sepal lenght (cm)"]})
    assert error.value.key == "report.hide"
    assert "did you mean 'sepal length (cm)'?" in str(error.value)
    with pytest.raises(InvalidInput, match="none are asked for"):
        plan(folder, "iris", "iris.parquet", report={"hide": ["petal width (cm)"]})


def test_files_that_a_target_names_are_read_before_any_work(folder):
    (folder / "prices.yaml").write_text(
        "name: ours\nsource: the invoice\ndate: 2026-10\ncurrency: CHF\n"
        "machines: {box: {per_hour: 0.8, cores: 8}}\n"
    )
    (folder / "build.config").write_text('ai.onnx;12;Add{"inputs": {"0": ["float"]}},Gemm\n')
    mine = {"profile": "mobile", "price": "box", "price_table": str(folder / "prices.yaml"),
            "operators": str(folder / "build.config")}  # fmt: skip
    settled = plan(folder, "iris", "iris.parquet", target=mine)
    target = settled.config.target
    assert target.price.per_core_hour == pytest.approx(0.1)
    assert target.price_table is None
    assert target.operators == ('ai.onnx;12;Add{"inputs": {"0": ["float"]}},Gemm',)
    assert settled.policy.min_speedup is None, "speed is not measured for it"
    assert settled.policy.max_size_ratio == 1.0
    with pytest.raises(InvalidInput, match="no such machine"):
        plan(folder, "iris", "iris.parquet", target={**mine, "price": "rack"})
    (folder / "build.config").write_text("???\n")
    with pytest.raises(InvalidInput, match="not a required-operators config"):
        plan(folder, "iris", "iris.parquet", target=mine)


def test_limits_in_place_of_a_gain_do_not_ask_for_speed(folder):
    settled = plan(
        folder, "iris", "iris.parquet",
        objective={"minimize": "size", "subject_to": {"drop": 0.02}},
    )  # fmt: skip
    assert settled.policy.min_speedup is None
    assert settled.policy.max_drop[settled.metric] == 0.02
    assert settled.config.target.price.name == "c7i.large"


@pytest.mark.parametrize(
    ("target", "benchmark", "key"),
    [
        ("cloud-cpu", {}, "gate.load.rate"),
        ({"profile": "cloud-cpu", "rates": [10, 40]}, {}, "gate.load.rate"),
        (
            {"profile": "cloud-cpu", "rates": [50]},
            {"served_load_seconds": 0},
            "served_load_seconds",
        ),
    ],
)
def test_a_rule_on_a_load_that_is_not_measured_is_refused(folder, target, benchmark, key):
    gate = {"load": {"rate": 50, "max_p99_ms": 20}}
    with pytest.raises(InvalidInput, match=key.replace(".", r"\.")):
        plan(folder, "iris", "iris.parquet", target=target, gate=gate, benchmark=benchmark)


def test_another_model_server_is_for_models_that_it_can_serve(folder, monkeypatch):
    more = {"target": {"profile": "cloud-cpu", "runtimes": ["onnxruntime"]},
            "serving": {"runtime": "triton"}}  # fmt: skip
    settled = plan(folder, "iris", "iris.parquet", **more)
    assert settled.config.layout == "triton"
    text = settled.model.model_copy(update={"tokenizer": Tokenizer(feature="a", max_length=8)})
    with pytest.raises(InvalidInput, match="tokenizes nothing, and the model takes text"):
        _check_server(settled.config, text, None)
    monkeypatch.setattr("trimgate.plan.onnx_refusal", lambda *given: "it has a loop")
    with pytest.raises(InvalidInput, match=r"^serving\.runtime = 'triton': reads ONNX, .* a loop"):
        plan(folder, "iris", "iris.parquet", **more)


def test_a_file_of_many_batches_is_checked_as_a_small_one(folder):
    """Rows beyond the first 65,536 are looked at too."""
    pick = np.random.default_rng(0)
    count = 150_000
    columns = {f"x{i}": pick.normal(size=count) for i in range(4)}
    rows = pd.DataFrame({**columns, "label": pick.integers(0, 3, count)})
    rows["hour"] = pick.integers(0, 24, count)
    more = {"data": {"path": str(folder / "many.parquet"), "label": "label", "drop": ["hour"]},
            "evaluation": {"slices": [{"column": "hour"}]}}  # fmt: skip

    def planned(changed):
        changed.to_parquet(folder / "many.parquet", index=False, row_group_size=60_000)
        return make_plan(
            parse_config(
                {"name": "many", "model": {"path": str(folder / "iris.onnx")},
                 "recipes": [{"steps": [{"technique": "optimize_graph"}]}], **more}
            )
        )  # fmt: skip

    assert planned(rows).metric == "accuracy"
    with pytest.raises(InvalidInput, match=r"\d of \d{5} \w+ rows also stand in"):
        planned(pd.concat([rows.iloc[:-20], rows.iloc[:20]]))
    with pytest.raises(InvalidInput, match="1 of 150000 labels are missing"):
        planned(rows.assign(label=rows["label"].where(rows.index < count - 1)))
    rows.loc[rows.index[-33:-30], "x2"] = np.nan
    with pytest.raises(InvalidInput, match="missing or infinite values in the column 'x2'"):
        planned(rows)
