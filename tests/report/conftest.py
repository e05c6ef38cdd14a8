"""The sample cards as fixtures."""

from collections.abc import Callable

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
