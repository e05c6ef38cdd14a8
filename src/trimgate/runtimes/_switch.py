"""Two engines for one model: one for few rows, another for many."""

from collections.abc import Mapping

from trimgate.models.directory import ModelInfo
from trimgate.runtimes._base import Array, Session


class SwitchingSession(Session):
    """Answers a call with the engine that was measured to be the faster for so many rows.

    Args:
        info: The model's record.
        small: For calls with fewer rows than `rows`.
        large: For the others.
        rows: Where it switches.
    """

    def __init__(self, info: ModelInfo, small: Session, large: Session, rows: int) -> None:
        self.info = info
        self._small, self._large, self._rows = small, large, rows
        self._first = info.inputs[0].name

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        """See `Session.predict`."""
        few = len(inputs[self._first]) < self._rows
        return (self._small if few else self._large).predict(inputs)

    def close(self) -> None:
        """Frees both."""
        self._small.close()
        self._large.close()
