"""A fine-tuning that was killed goes on after its last whole epoch."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("trimgate.training")


@dataclass(frozen=True)
class Checkpoint:
    """One file that holds the state after the last whole epoch of one fine-tuning.

    Attributes:
        file: Where; None keeps nothing.
        key: Tells the fine-tuning that the file belongs to; a file of another one is not read.
    """

    file: Path | None
    key: str

    @classmethod
    def of(cls, file: Path | None, module: "torch.nn.Module", *facts: Any) -> "Checkpoint":
        """The checkpoint of a fine-tuning.

        Args:
            file: Where it is kept; its folder is made when it is written.
            module: As it is before training.
            *facts: Whatever else decides the result; arrays by their content, all else by
                its `repr`.
        """
        if file is None:
            return cls(None, "")
        digest = hashlib.sha256()
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(np.ascontiguousarray(tensor.detach().float().numpy()).data)
        for fact in facts:
            if isinstance(fact, np.ndarray):
                digest.update(np.ascontiguousarray(fact).tobytes())
            else:
                digest.update(repr(fact).encode())
        return cls(file, digest.hexdigest())

    def read(self) -> dict[str, Any] | None:
        """What was last written for this very fine-tuning, or None."""
        import torch

        if self.file is None or not self.file.is_file():
            return None
        try:
            # the file is our own, yet nothing but tensors and numbers is ever loaded
            found: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
        # what torch raises on a damaged file depends on where the damage is
        except Exception as error:
            _log.warning("%s cannot be read (%s): training begins anew", self.file, error)
            return None
        if found.get("key") != self.key:
            _log.info("%s is of another training, which is done anew", self.file)
            return None
        state: dict[str, Any] = found["state"]
        return state

    def write(self, state: Mapping[str, Any]) -> None:
        """Replaces the file at once, so that a kill leaves the old or the new one.

        Args:
            state: Tensors, numbers, texts, and lists and dicts of such.
        """
        import torch

        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_name(f".{self.file.name}.partial")
        torch.save({"key": self.key, "state": dict(state)}, partial)
        partial.replace(self.file)


def dump_generator(generator: np.random.Generator) -> str:
    """The state of a random generator as JSON (its integers have 128 bits)."""
    return json.dumps(generator.bit_generator.state)


def load_generator(generator: np.random.Generator, text: str) -> None:
    """Puts a generator into the state that `dump_generator` gave."""
    generator.bit_generator.state = json.loads(text)
