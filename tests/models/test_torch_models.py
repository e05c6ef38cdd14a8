"""torch weights with a builder: import, and export with equal scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

Trip = Callable[..., Any]


def weights(builder: str, suffix: str, **arguments: Any) -> Callable[[Path], None]:
    import importlib

    module_name, function = builder.split(":")
    torch.manual_seed(0)
    module = getattr(importlib.import_module(module_name), function)(**arguments)

    def save(file: Path) -> None:
        if suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(module.state_dict(), str(file))
        else:
            torch.save(module.state_dict(), file)

    return save


@pytest.fixture(scope="module")
def scaled() -> Dataset:
    from sklearn.datasets import load_breast_cancer
    from sklearn.preprocessing import StandardScaler

    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    return Dataset({f"x{i}": x[:, i] for i in range(30)}, y)


@pytest.mark.parametrize(("sigmoid", "kind"), [(False, "logit"), (True, "probability")])
def test_mlp_on_a_table(sigmoid: bool, kind: str, round_trip: Trip, scaled: Dataset, nets: str):
    save = weights(f"{nets}:mlp", ".pt", sigmoid=sigmoid)
    info, onnx, difference = round_trip(
        save, ".pt", scaled, builder=f"{nets}:mlp", builder_arguments={"sigmoid": sigmoid}
    )
    assert (info.framework, info.family, info.score_kind) == ("torch", "mlp", kind)
    assert list(info.files) == ["weights.safetensors"]
    assert info.inputs[0].no_nan == tuple(scaled.features)
    assert onnx.outputs[0].shape == (-1, 1)
    assert difference < 1e-6


def test_cnn_on_images(round_trip: Trip, nets: str):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    data = Dataset({"image": x.reshape(-1, 1, 8, 8).astype(np.float32)}, y)
    save = weights(f"{nets}:cnn", ".safetensors")
    info, onnx, difference = round_trip(save, ".safetensors", data, builder=f"{nets}:cnn")
    assert (info.family, info.task, len(info.labels)) == ("cnn", "multiclass", 10)
    assert onnx.inputs[0].shape == (-1, 1, 8, 8)
    assert difference < 1e-5


@pytest.mark.parametrize(
    ("builder", "arguments", "message"),
    [
        (None, {}, "model.builder"),
        ("mlp", {"inputs": 20}, "do not fit"),
        ("number", {}, "does not make a torch.nn.Module"),
        ("nothing", {}, "cannot be imported"),
        ("fails", {}, "no such width"),
    ],
)
def test_wrong_builders(
    builder: str | None,
    arguments: dict[str, Any],
    message: str,
    round_trip: Trip,
    scaled: Dataset,
    nets: str,
):
    save = weights(f"{nets}:mlp", ".pt")
    named = None if builder is None else f"{nets}:{builder}"
    with pytest.raises(InvalidInput, match=message):
        round_trip(save, ".pt", scaled, builder=named, builder_arguments=arguments)


def test_pickled_module_is_not_loaded(round_trip: Trip, scaled: Dataset, nets: str):
    def save(file: Path) -> None:
        torch.save(torch.nn.Linear(30, 1), file)

    with pytest.raises(InvalidInput, match="only weights are loaded"):
        round_trip(save, ".pth", scaled, builder=f"{nets}:mlp")


def test_classes_that_do_not_fit(round_trip: Trip, iris: Dataset, nets: str):
    arguments = {"inputs": 4, "outputs": 5}
    save = weights(f"{nets}:mlp", ".pt", **arguments)
    with pytest.raises(InvalidInput, match="5 scores a row, and the data has 3 classes"):
        round_trip(save, ".pt", iris, builder=f"{nets}:mlp", builder_arguments=arguments)
