"""The sample cards as fixtures."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from report.sample_edge_cards import SAMPLES

from trimgate.report import CardInput


@pytest.fixture(params=SAMPLES)
def card(request: pytest.FixtureRequest) -> CardInput:
    """Each sample card in turn."""
    return SAMPLES[request.param]()


@pytest.fixture
def samples() -> dict[str, Callable[[], CardInput]]:
    """Makers of the sample cards by name."""
    return SAMPLES


@pytest.fixture
def golden() -> Callable[[Path, str], None]:
    """Compares a text with a file; UPDATE_GOLDEN=1 writes the file."""

    def compare(file: Path, text: str) -> None:
        if os.environ.get("UPDATE_GOLDEN"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        assert text == file.read_text(), "changed on purpose? UPDATE_GOLDEN=1 pytest tests/report"

    return compare
