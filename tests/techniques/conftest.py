"""Gives every technique's tests the conformance suite."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from trimgate.models import ModelSource, import_model
from trimgate.targets import Target
from trimgate.techniques import Context

pytest.register_assert_rewrite("trimgate_conformance")


@pytest.fixture(scope="session")
def conformance() -> ModuleType:
    """The module tests/techniques/conformance.py."""
    file = Path(__file__).with_name("conformance.py")
    spec = importlib.util.spec_from_file_location("trimgate_conformance", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def text_context() -> Context:
    """300 sentences to learn from and 200 to choose on; the metric is accuracy."""
    from text_models import sentences

    target = Target(name="test", threads=1)
    return Context(sentences(300, 1), sentences(200, 2), "accuracy", target, seed=0)


@pytest.fixture(scope="session")
def text_model(text_context: Context, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model directory of a tiny trained BERT: 3 layers, 2 heads, 32 wide, right in 95 %."""
    from text_models import write_folder

    folder = tmp_path_factory.mktemp("text")
    path = write_folder(folder / "bert", epochs=6)
    import_model(ModelSource(path=path, name="tiny-bert"), text_context.train, folder / "model")
    return folder / "model"
