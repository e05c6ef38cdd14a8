"""A torch module that looks at some columns of its matrix only."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trimgate.data.dataset import Array
from trimgate.models._trainable import build_module
from trimgate.models.directory import ModelInfo

if TYPE_CHECKING:
    import torch

BUILDER = "trimgate.techniques.select_features:build_masked"


def build_masked(
    builder: str, arguments: Mapping[str, Any], columns: int, keep: Sequence[int]
) -> "torch.nn.Module":
    """Calls the user's builder, and puts constants in place of the columns that are not kept.

    Args:
        builder: The user's builder, `package.module:function`.
        arguments: Its keyword arguments.
        columns: How many columns the matrix has.
        keep: Positions of those that are looked at.

    Returns:
        A module in evaluation mode. Its buffer `constants` `(columns,)` float32 is 0 until
        weights are loaded.
    """
    inner = build_module(builder, dict(arguments))
    return _wrap(inner, np.zeros(columns, dtype=np.float32), keep)


def masked(module: "torch.nn.Module", keep: Sequence[int], constants: Array) -> "torch.nn.Module":
    """A copy of a module that puts constants in place of the columns that are not kept.

    Whatever stands in those columns, NaN included, makes no difference.

    Args:
        module: On one matrix `(rows, columns)`; one that `build_masked` made is narrowed.
        keep: Positions of the columns that are looked at.
        constants: `(columns,)`, in place of the others.
    """
    import copy

    inner: Any = copy.deepcopy(module)
    values = np.asarray(constants, dtype=np.float32).copy()
    if getattr(inner, "trimgate_masked", False):
        # what an earlier step replaced keeps the constant that the weights were tuned to
        gone = ~inner.kept.numpy()
        values[gone] = inner.constants.numpy()[gone]
        inner = inner.inner
    return _wrap(inner, values, keep)


def masked_arguments(info: ModelInfo, keep: Sequence[int]) -> dict[str, Any]:
    """Builder and arguments with which `build_masked` makes the module of `masked` again."""
    builder, arguments = info.builder, dict(info.builder_arguments)
    if builder == BUILDER:
        builder, arguments = arguments["builder"], arguments["arguments"]
    columns = sum(len(spec.features) for spec in info.inputs)
    made = {"builder": builder, "arguments": arguments, "columns": columns, "keep": list(keep)}
    return {"builder": BUILDER, "builder_arguments": made}


def _wrap(inner: "torch.nn.Module", constants: Array, keep: Sequence[int]) -> "torch.nn.Module":
    import torch

    class Masked(torch.nn.Module):
        """Constants in place of columns, then the inner module."""

        trimgate_masked = True
        constants: torch.Tensor
        kept: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner
            self.register_buffer("constants", torch.from_numpy(constants))
            chosen = torch.zeros(len(constants), dtype=torch.bool)
            chosen[list(keep)] = True
            self.register_buffer("kept", chosen, persistent=False)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            # a choice and not a product, in which NaN would survive a factor of 0
            result: torch.Tensor = self.inner(torch.where(self.kept, rows, self.constants))
            return result

    return Masked().eval()
