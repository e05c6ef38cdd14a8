"""Modules that round as INT8 does while torch trains.

The rounding passes gradients on as if it were not there (straight-through estimator), except
where a value lies outside its range. Weights: symmetric, one scale for each output channel.
Activations: one scale for a tensor, its range observed in training (Jacob et al. 2018,
arXiv:1712.05877).

This module imports torch and is imported only where a module is trained.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from trimgate.data.dataset import Array

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_INPUT = "trimgate_input"
# How fast observed ranges follow those of new batches.
_MOMENTUM = 0.02
_BATCH = 32


class FakeWeight(nn.Module):
    """Rounds a weight to signed integers and back.

    Args:
        largest: The largest integer: 127, or 64 where weights keep to 7 bits.
    """

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The rounded weight `(outputs, ...)`, at most half a step away from the given one."""
        flat = weight.detach().flatten(1)
        scale = (flat.abs().amax(1) / self.largest).clamp_min(1e-12)
        scale = scale.reshape(-1, *[1] * (weight.dim() - 1))
        rounded = (weight / scale).round().clamp(-self.largest, self.largest) * scale
        return weight + (rounded - weight).detach()


class FakeActivation(nn.Module):
    """Rounds an activation to 8 bits and back, and follows its range in training.

    Args:
        signed: Signed integers without a zero point, rather than unsigned ones with one.

    Attributes:
        low: Lowest value of the range, at most 0, so that 0 is exact.
        high: Highest value of the range, at least 0.
        seen: Whether a batch was seen; before, nothing is rounded.
        observing: Take the extremes of all batches, and do not round yet.
    """

    low: torch.Tensor
    high: torch.Tensor
    seen: torch.Tensor

    def __init__(self, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        self.observing = False
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The rounded values, of the same shape."""
        if self.observing:
            self._follow(values, widen=True)
            return values
        if self.training:
            self._follow(values, widen=False)
        if not self.seen:
            return values
        scale, zero, lowest, highest = self._grid()
        clipped = values.clamp((lowest - zero) * scale, (highest - zero) * scale)
        rounded = ((clipped / scale).round() + zero).clamp(lowest, highest)
        return clipped + ((rounded - zero) * scale - clipped).detach()

    def _grid(self) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        """Scale, zero point, lowest and highest integer."""
        if self.signed:
            scale = torch.maximum(-self.low, self.high) / 127
            return scale.clamp_min(1e-12), torch.zeros(()), -127, 127
        scale = ((self.high - self.low) / 255).clamp_min(1e-12)
        return scale, (-self.low / scale).round(), 0, 255

    def _follow(self, values: torch.Tensor, *, widen: bool) -> None:
        with torch.no_grad():
            low, high = values.amin().clamp_max(0), values.amax().clamp_min(0)
            if not self.seen:
                self.low.copy_(low)
                self.high.copy_(high)
                self.seen.fill_(True)
            elif widen:
                self.low.copy_(torch.minimum(self.low, low))
                self.high.copy_(torch.maximum(self.high, high))
            else:
                self.low.lerp_(low, _MOMENTUM)
                self.high.lerp_(high, _MOMENTUM)


class Frozen(nn.Module):
    """A batch norm that keeps its statistics in training."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in evaluation mode, whatever is asked for."""
        super().train(mode)
        self.norm.train(False)
        return self

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """What the batch norm gives."""
        found: torch.Tensor = self.norm(values)
        return found


def attach(
    module: nn.Module, *, exclude: Sequence[str], signed: bool, largest: int
) -> dict[str, FakeActivation]:
    """Makes linear layers and convolutions round their weights and inputs, in place.

    Args:
        module: With its batch norms folded or frozen.
        exclude: Names or types of layers that stay as they are.
        signed: See `FakeActivation`.
        largest: See `FakeWeight`.

    Returns:
        What rounds the input of each layer, by the layer's name.
    """
    attached = {}
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, LAYERS) or {name, type(layer).__name__}.intersection(exclude):
            continue
        if not isinstance(layer.weight, nn.Parameter):
            continue
        parametrize.register_parametrization(layer, "weight", FakeWeight(largest))
        attached[name] = FakeActivation(signed)
        layer.add_module(_INPUT, attached[name])
        layer.register_forward_pre_hook(_round_input)
    return attached


def observe(
    module: nn.Module, attached: Iterable[FakeActivation], columns: Sequence[Array]
) -> None:
    """Takes the first ranges from rows, without rounding.

    Args:
        module: In evaluation mode.
        attached: What `attach` gave.
        columns: The module's arguments, rows first.
    """
    for rounding in attached:
        rounding.observing = True
    with torch.no_grad():
        for start in range(0, len(columns[0]), _BATCH):
            rows = slice(start, start + _BATCH)
            module(*(torch.from_numpy(np.array(column[rows])) for column in columns))
    for rounding in attached:
        rounding.observing = False


def detach(module: nn.Module) -> None:
    """Undoes `attach`; the weights stay as they were trained, before rounding."""
    for layer in module.modules():
        if isinstance(getattr(layer, _INPUT, None), FakeActivation):
            layer._forward_pre_hooks.clear()
            delattr(layer, _INPUT)
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    for parent, name, child in list(_children(module)):
        if isinstance(child, Frozen):
            setattr(parent, name, child.norm)


def settle_norms(module: nn.Module, example: Sequence[torch.Tensor]) -> tuple[int, int]:
    """Folds batch norms into the convolution or linear layer before them, and freezes the rest.

    Which layer stands before is seen by running the module. The pairs are folded one by one, and
    what changes the output is taken back.

    Args:
        module: In evaluation mode; changed in place.
        example: Its arguments.

    Returns:
        How many were folded, and how many frozen.
    """
    with torch.no_grad():
        wanted = module(*example)
        folded = 0
        for layer, norm in _pairs(module, example):
            weight, bias = layer.weight, layer.bias
            places = [(p, n) for p, n, child in _children(module) if child is norm]
            _fold(layer, norm)
            for parent, name in places:
                setattr(parent, name, nn.Identity())
            if torch.allclose(module(*example), wanted, rtol=1e-3, atol=1e-4):
                folded += 1
                continue
            layer.weight, layer.bias = weight, bias
            for parent, name in places:
                setattr(parent, name, norm)
    frozen = 0
    for parent, name, child in list(_children(module)):
        if _is_norm(child) and not isinstance(parent, Frozen):
            setattr(parent, name, Frozen(child))
            frozen += 1
    return folded, frozen


def _round_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    if not inputs:  # called by keyword
        return inputs
    return (getattr(layer, _INPUT)(inputs[0]), *inputs[1:])


def _children(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in module.modules():
        for name, child in parent.named_children():
            yield parent, name, child


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)


def _pairs(module: nn.Module, example: Sequence[torch.Tensor]) -> list[tuple[Any, Any]]:
    """Layers and the batch norms that read their output, those only that are called once."""
    made: dict[int, tuple[nn.Module, torch.Tensor]] = {}
    pairs: list[tuple[Any, Any]] = []
    calls: list[nn.Module] = []

    def after(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls.append(layer)
        if isinstance(layer, LAYERS):
            # the tensor is kept, so that its id is not given to another one
            made[id(output)] = (layer, output)
        elif id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], layer))

    watched = [m for m in module.modules() if isinstance(m, LAYERS) or _is_norm(m)]
    handles = [m.register_forward_hook(after) for m in watched]
    module(*example)
    for handle in handles:
        handle.remove()
    return [(a, b) for a, b in pairs if calls.count(a) == calls.count(b) == 1]


def _fold(layer: Any, norm: Any) -> None:
    """Scales the weight and shifts the bias as the batch norm would the output."""
    factor = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight
    bias = torch.zeros_like(norm.running_mean) if layer.bias is None else layer.bias
    shift = (bias - norm.running_mean) * factor
    if norm.bias is not None:
        shift = shift + norm.bias
    shape = [-1, *[1] * (layer.weight.dim() - 1)]
    layer.weight = nn.Parameter(layer.weight * factor.reshape(shape))
    layer.bias = nn.Parameter(shift)
