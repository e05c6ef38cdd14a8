"""What an engine must do to serve a model directory."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from trimgate.models.directory import ModelInfo

Array = NDArray[Any]


class Session(ABC):
    """A loaded model that answers; safe to call from one thread at a time."""

    info: ModelInfo

    @abstractmethod
    def predict(self, inputs: Mapping[str, Array]) -> Array:
        """Scores of a batch.

        Args:
            inputs: The tensors that `info.inputs` name, each with the batch first
                (`trimgate.models.build_inputs` makes them from rows).

        Returns:
            `float32` or `float64`: `(rows, classes)` probabilities for a classifier (both
            columns for a binary one), `(rows,)` values for a regressor.
        """

    def close(self) -> None:  # noqa: B027  # most engines have nothing to give back
        """Frees what the session holds."""


class Runtime(ABC):
    """An engine. One instance per module in `trimgate.runtimes`, found by its name."""

    name: ClassVar[str]

    @abstractmethod
    def missing(self) -> str | None:
        """Why this machine cannot run it (a package that is not installed, ...), or None."""

    @abstractmethod
    def refusal(self, info: ModelInfo) -> str | None:
        """Why it cannot run this model, or None."""

    @abstractmethod
    def load(self, directory: Path, info: ModelInfo, *, threads: int) -> Session:
        """Loads the model.

        Args:
            directory: The model directory.
            info: Its record; `info.runtime` holds precision and options.
            threads: Number of intra-op threads.
        """
