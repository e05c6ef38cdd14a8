"""Engines on a text model: rows of any length, and the same scores in any company."""

from pathlib import Path

import numpy as np
import pytest

from trimgate import runtimes
from trimgate.models import ModelSource, build_inputs, import_model
from trimgate.models.directory import ModelInfo, RuntimeChoice, read, seal
from trimgate.targets import Target
from trimgate.techniques import Context, get, parse_step

pytest.importorskip("transformers")
from text_models import sentences, write_folder

ROWS = sentences(100)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model directory with its ONNX form."""
    folder = tmp_path_factory.mktemp("text")
    import_model(ModelSource(path=write_folder(folder / "user")), ROWS, folder / "native")
    step = parse_step({"technique": "optimize_graph"})
    context = Context(ROWS, ROWS, "accuracy", Target(name="test"))
    get(step.technique).apply(folder / "native", folder / "onnx", step, context)
    return folder / "onnx"


def served(directory: Path, name: str) -> ModelInfo:
    choice = RuntimeChoice.model_validate({"name": name})
    return seal(directory, read(directory).model_copy(update={"runtime": choice}))


@pytest.mark.parametrize("name", ["native", "onnxruntime", "openvino"])
def test_rows_alone_and_together(name: str, text: Path):
    pytest.importorskip("openvino" if name == "openvino" else "onnxruntime")
    info = served(text, name)
    session = runtimes.load(text)
    alone = [
        session.predict(build_inputs(info, ROWS.take([row]).features))[0] for row in range(12)
    ]
    together = session.predict(build_inputs(info, ROWS.take(slice(12)).features))
    everything = runtimes.predict(session, ROWS)
    session.close()
    lengths = {build_inputs(info, ROWS.take([i]).features)["input_ids"].shape for i in range(12)}
    assert len(lengths) > 4
    np.testing.assert_allclose(np.stack(alone), together, atol=1e-5)
    np.testing.assert_allclose(everything[:12], together, atol=1e-5)
    assert everything.shape == (100, 2)
