"""Small real models of every kind, served in this process or in one of their own."""

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.models import ModelSource, import_model
from trimgate.models.directory import ModelInfo, RuntimeChoice, TensorSpec, seal, writing
from trimgate.serving import RunningServer, start
from trimgate.serving._client import HttpClient


class Example(NamedTuple):
    """A model directory with its rows."""

    directory: Path
    info: ModelInfo
    rows: Dataset


class Rest:
    """Requests to a REST application, without a socket."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def get(self, path: str) -> Any:
        return asyncio.run(self._send("GET", path))

    def post(self, path: str, **content: Any) -> Any:
        return asyncio.run(self._send("POST", path, **content))

    async def _send(self, method: str, path: str, **content: Any) -> Any:
        import httpx

        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **content)


def _example(folder: Path, onnx: bytes, rows: Dataset, **fields: Any) -> Example:
    directory = folder / "model"
    with writing(directory) as partial:
        (partial / "model.onnx").write_bytes(onnx)
        info = ModelInfo(
            framework="onnx",
            runtime=RuntimeChoice(name="onnxruntime"),
            features=tuple(rows.features),
            **fields,
        )
        info = seal(partial, info)
    return Example(directory, info, rows)


def _table(data: Any, kind: type, names: Iterable[Any], folder: Path, **fields: Any) -> Example:
    from skl2onnx import to_onnx
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), kind()).fit(data.data, data.target)
    classifier = "labels" in fields
    options = {id(model): {"zipmap": False}} if classifier else None
    written = to_onnx(model, data.data[:1].astype(np.float32), options=options, target_opset=17)
    names = tuple(str(name) for name in names)
    labels = data.target.astype(np.int64 if classifier else np.float64)
    rows = Dataset(dict(zip(names, data.data.T, strict=True)), labels)
    spec = TensorSpec(
        name="X",
        dtype="float32",
        shape=(-1, len(names)),
        features=names,
        no_nan=names,
        no_inf=names,
    )
    score = [output.name for output in written.graph.output][-1]
    return _example(
        folder,
        written.SerializeToString(),
        rows,
        inputs=(spec,),
        score_output=score,
        family="linear",
        **fields,
    )


@pytest.fixture(scope="session")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Binary, 30 numbers, no missing values."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression

    data = load_breast_cancer()
    folder = tmp_path_factory.mktemp("cancer")
    return _table(
        data,
        LogisticRegression,
        data.feature_names,
        folder,
        name="cancer",
        task="binary",
        labels=(0, 1),
    )


@pytest.fixture(scope="session")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A regressor."""
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge

    data = load_diabetes()
    folder = tmp_path_factory.mktemp("diabetes")
    return _table(
        data,
        Ridge,
        data.feature_names,
        folder,
        name="diabetes",
        task="regression",
        score_kind="value",
    )


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A scikit-learn pipeline with text columns, missing values and text labels."""
    import pandas as pd
    import skops.io
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rng = np.random.default_rng(0)
    size = 300
    age = rng.integers(18, 80, size).astype(np.float64)
    age[::7] = np.nan
    city = rng.choice(np.array(["Bern", "Oslo", "Køln's"], dtype=object), size)
    city[::11] = None
    label = np.where(np.nan_to_num(age, nan=30) > 50, "senior", "junior").astype(object)
    label[city == "Oslo"] = "abroad"
    rows = Dataset({"age": age, "city": city}, label)
    text = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="?", missing_values=np.nan),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    model = make_pipeline(
        make_column_transformer((text, ["city"]), remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=8),
    )
    model.fit(pd.DataFrame(rows.frame()), label.astype(str))
    folder = tmp_path_factory.mktemp("people")
    skops.io.dump(model, folder / "people.skops")
    directory = folder / "model"
    source = ModelSource(path=folder / "people.skops", name="people")
    return Example(directory, import_model(source, rows, directory), rows)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """An image model, `(rows, 1, 8, 8)`, made of ONNX operators by hand."""
    from onnx import TensorProto, helper, numpy_helper
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    fitted = LogisticRegression(max_iter=200).fit(images.reshape(len(images), -1), data.target)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
        ],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [
            numpy_helper.from_array(fitted.coef_.T.astype(np.float32), "w"),
            numpy_helper.from_array(fitted.intercept_.astype(np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    rows = Dataset({"image": images}, data.target.astype(np.int64))
    spec = TensorSpec(name="image", dtype="float32", shape=(-1, 1, 8, 8), features=("image",))
    return _example(
        tmp_path_factory.mktemp("digits"),
        model.SerializeToString(),
        rows,
        inputs=(spec,),
        score_output="logits",
        score_kind="logit",
        labels=tuple(range(10)),
        name="digits",
        task="multiclass",
        family="linear",
    )


@pytest.fixture(scope="session")
def app():
    """Makes a client of the REST application of an example, without a process."""
    from trimgate.serving._kserve import prepare

    prepare()
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension

    from trimgate.serving._data_plane import Plane
    from trimgate.serving._model import Repository, ServedModel
    from trimgate.serving._rest import RestServer

    executor = ThreadPoolExecutor(1)

    def make(example: Example, max_rows: int = 1000) -> Rest:
        model = ServedModel(
            example.directory,
            name=example.info.name,
            executor=executor,
            threads=1,
            max_rows=max_rows,
            warm_up=True,
        )
        executor.submit(model.load).result()
        repository = Repository()
        repository.update(model)
        extension = ModelRepositoryExtension(repository)
        return Rest(RestServer(Plane(repository), extension, grace=1).app)

    yield make
    executor.shutdown()


@pytest.fixture(scope="session")
def server(cancer: Example, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of its own process for the cancer model."""
    with start(cancer.directory, log=tmp_path_factory.mktemp("log") / "server.log") as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[HttpClient]:
    """A connection to the server."""
    with HttpClient(server.url, "cancer") as connection:
        yield connection
