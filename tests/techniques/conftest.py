"""Gives every technique's tests the conformance suite."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

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
