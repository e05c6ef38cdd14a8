"""Small trained models as model directories with an ONNX form, and the data they know."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.models.directory import ModelInfo, RuntimeChoice, TensorSpec, seal, writing
from trimgate.targets import PROFILES
from trimgate.techniques import Context, get, parse_step


@pytest.fixture(scope="session")
def digits_data() -> tuple[Dataset, Dataset]:
    """Images of digits, `(rows, 1, 8, 8)` from 0 to 1: 1,200 to learn from and 597 to judge by."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images / 16).astype(np.float32)[:, None][order]
    rows = Dataset({"image": images}, digits.target[order])
    return rows.take(slice(0, 1200)), rows.take(slice(1200, None))


@pytest.fixture(scope="session")
def cnn(digits_data: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolutional network on the digits."""
    import torch

    train, _ = digits_data
    torch.manual_seed(0)
    torch.set_num_threads(1)
    layers = torch.nn
    net = layers.Sequential(
        layers.Conv2d(1, 16, 3, padding=1),
        layers.BatchNorm2d(16),
        layers.ReLU(),
        layers.MaxPool2d(2),
        layers.Conv2d(16, 32, 3, padding=1),
        layers.ReLU(),
        layers.AdaptiveAvgPool2d(1),
        layers.Flatten(),
        layers.Linear(32, 10),
    )
    images = torch.from_numpy(train.features["image"])
    labels = torch.from_numpy(train.labels)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(16):  # enough on any CPU: rounding differs, and so does what is learned
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
    out = tmp_path_factory.mktemp("cnn") / "model"
    with writing(out) as partial:
        torch.onnx.export(
            net.eval(),
            (images[:2],),
            str(partial / "model.onnx"),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "rows"}, "logits": {0: "rows"}},
            dynamo=False,
        )
        seal(partial, _record("cnn", "logits", "logit", (_IMAGE,), family="cnn"))
    return out


_IMAGE = TensorSpec(name="image", dtype="float32", shape=(-1, 1, 8, 8), features=("image",))


def _record(
    name: str, output: str, kind: str, inputs: tuple[TensorSpec, ...], **changes: Any
) -> ModelInfo:
    record: dict[str, Any] = {
        "name": name,
        "task": "multiclass",
        "family": "mlp",
        "framework": "onnx",
        "inputs": inputs,
        "outputs": (TensorSpec(name=output, dtype="float32", shape=(-1, 10)),),
        "score_output": output,
        "score_kind": kind,
        "labels": tuple(range(10)),
        "features": tuple(f for tensor in inputs for f in tensor.features),
        "runtime": RuntimeChoice(name="onnxruntime"),
    }
    return ModelInfo.model_validate({**record, **changes})


@pytest.fixture(scope="session")
def table_data() -> tuple[Dataset, Dataset]:
    """The digits as a table of 64 numeric columns."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    rows = Dataset({f"p{i}": pixels[order, i] for i in range(64)}, labels[order])
    return rows.take(slice(0, 1200)), rows.take(slice(1200, None))


@pytest.fixture(scope="session")
def mlp(table_data: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scaler and a network of scikit-learn on the table, with the trained form beside it."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, _ = table_data
    rows = np.stack([*train.features.values()], axis=1).astype(np.float32)
    network = MLPClassifier((64, 32), max_iter=30, random_state=0, tol=1e-2)
    model = make_pipeline(StandardScaler(), network).fit(rows, train.labels)
    return _sklearn_directory(
        tmp_path_factory.mktemp("mlp") / "model", model, tuple(train.features), "mlp"
    )


@pytest.fixture(scope="session")
def trees(table_data: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A forest of scikit-learn."""
    from sklearn.ensemble import RandomForestClassifier

    train, _ = table_data
    rows = np.stack([*train.features.values()], axis=1).astype(np.float32)
    model = RandomForestClassifier(8, max_depth=6, random_state=0).fit(rows, train.labels)
    return _sklearn_directory(
        tmp_path_factory.mktemp("trees") / "model", model, tuple(train.features), "trees"
    )


def _sklearn_directory(out: Path, model: Any, features: tuple[str, ...], family: str) -> Path:
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    from trimgate.models import save_trainable

    tensor = TensorSpec(name="input", dtype="float32", shape=(-1, len(features)), features=features)
    graph = skl2onnx.convert_sklearn(
        model,
        initial_types=[("input", FloatTensorType([None, len(features)]))],
        options={id(model): {"zipmap": False}},
        target_opset=17,
    )
    output = graph.graph.output[-1].name
    info = _record("table", output, "probability", (tensor,), family=family, framework="sklearn")
    with writing(out) as partial:
        save_trainable(model, partial, info)
        (partial / "model.onnx").write_bytes(graph.SerializeToString())
        seal(partial, info)
    return out


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Dataset, Dataset]]:
    """Numbers and text: a column transformer and a network, one input for each column."""
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    generator = np.random.default_rng(0)
    towns = np.array(["Rome", "Oslo", "Lima"], dtype=object)
    # Of very different size, so that rounding them together to 8 bits would show.
    income, age = generator.normal(50_000, 9_000, 1500), generator.normal(40, 9, 1500)
    town = towns[generator.integers(0, 3, 1500)]
    likely = (income - 50_000) / 9_000 + (age - 40) / 9 + 2 * (town == "Oslo")
    rows = Dataset({"income": income, "age": age, "town": town}, likely > 0.7)
    train, validation = rows.take(slice(0, 1000)), rows.take(slice(1000, None))
    columns = ColumnTransformer(
        [("n", StandardScaler(), ["income", "age"]), ("t", OneHotEncoder(), ["town"])]
    )
    network = MLPClassifier((32,), max_iter=150, random_state=0, tol=1e-3)
    model = make_pipeline(columns, network).fit(train.frame(), train.labels)
    kinds = {"income": FloatTensorType, "age": FloatTensorType, "town": StringTensorType}
    graph = skl2onnx.convert_sklearn(
        model,
        initial_types=[(name, kind([None, 1])) for name, kind in kinds.items()],
        options={id(model): {"zipmap": False}},
        target_opset=17,
    )
    inputs = tuple(
        TensorSpec(
            name=name,
            dtype="string" if name == "town" else "float32",
            shape=(-1, 1),
            features=(name,),
            missing="" if name == "town" else None,
        )
        for name in kinds
    )
    info = _record(
        "mixed",
        graph.graph.output[-1].name,
        "probability",
        inputs,
        task="binary",
        labels=(False, True),
    )
    out = tmp_path_factory.mktemp("mixed") / "model"
    with writing(out) as partial:
        (partial / "model.onnx").write_bytes(graph.SerializeToString())
        seal(partial, info)
    return out, (train, validation)


@pytest.fixture(scope="session")
def context() -> Any:
    """Makes a context from (train, validation)."""

    def make(data: tuple[Dataset, Dataset], target: str = "cloud-cpu") -> Context:
        return Context(data[0], data[1], "accuracy", PROFILES[target], seed=0)

    return make


@pytest.fixture(scope="session")
def torch_net(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trains a module of `quantized_nets` for a moment and imports it."""
    import torch
    from safetensors.torch import save_file

    from trimgate.models import ModelSource, import_model
    from trimgate.models._trainable import build_module

    made: dict[str, Path] = {}

    def make(name: str, rows: Dataset, epochs: int = 6, **arguments: Any) -> Path:
        if name in made:
            return made[name]
        torch.manual_seed(0)
        torch.set_num_threads(1)
        builder = f"techniques.quantize.quantized_nets:{name}"
        module = build_module(builder, arguments).train()
        values = list(rows.features.values())
        stacked = values[0] if len(values) == 1 else np.stack(values, axis=1)
        features = torch.from_numpy(stacked.astype(np.float32))
        labels = torch.from_numpy(rows.labels)
        optimizer = torch.optim.Adam(module.parameters(), 5e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(labels)).split(64):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(module(features[batch]), labels[batch])
                loss.backward()
                optimizer.step()
        folder = tmp_path_factory.mktemp(name)
        save_file(module.state_dict(), folder / "net.safetensors")
        source = ModelSource(
            path=folder / "net.safetensors", builder=builder, builder_arguments=arguments, name=name
        )
        import_model(source, rows, folder / "model")
        made[name] = folder / "model"
        return made[name]

    return make


@pytest.fixture(scope="session")
def text_onnx(
    text_model: Path, text_context: Context, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny BERT with its ONNX form, not fused."""
    out = tmp_path_factory.mktemp("text_onnx") / "model"
    step = parse_step({"technique": "optimize_graph"})
    get("optimize_graph").apply(text_model, out, step, text_context)
    return out
