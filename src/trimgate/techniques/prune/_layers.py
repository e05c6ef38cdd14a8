"""Shallower networks: whole layers of encoders, and residual blocks that keep their shape."""

import copy
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimgate.errors import NotApplicable
from trimgate.techniques.prune._cut import Cut, Order, Part, output_of
from trimgate.techniques.prune._rebuild import Stage, remove_layers

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Call:
    """What a layer was called with, and the first tensor that it gave."""

    inputs: tuple[Any, ...]
    named: dict[str, Any]
    made: Any

    @property
    def given(self) -> Any:
        """The first tensor that it was given."""
        return _first_tensor([*self.inputs, *self.named.values()])

    def again(self, layer: Any, tensor: Any) -> Any:
        """Calls a layer with another tensor in place of the first."""
        first = self.given
        inputs = [tensor if value is first else value for value in self.inputs]
        named = {n: tensor if value is first else value for n, value in self.named.items()}
        return layer(*inputs, **named)


def cut_layers(module: "torch.nn.Module", order: Order) -> Cut:
    """Removes whole layers from a copy of a module, one after the other.

    Each time that layer goes without which the loss on some training rows is the lowest. At
    least one layer is left in each list of layers.

    Args:
        module: In evaluation mode.
        order: How much, and by which importance.

    Raises:
        NotApplicable: No layers can be removed.
    """
    import torch

    small = copy.deepcopy(module)
    shape = output_of(small, order.example).shape
    stacks = _stacks(small, order.example)
    before = {name: len(positions) for name, positions in stacks.items()}
    whole = sum(order.sizes.values()) or sum(before.values())
    goal = round(whole * order.share) - (whole - sum(before.values()))
    generator = torch.Generator().manual_seed(order.seed)
    stages: list[Stage] = []
    for _ in range(goal):
        choices = [
            (name, position)
            for name, positions in stacks.items()
            for position in positions
            if len(list(small.get_submodule(name).children())) > 1
        ]
        if not choices:
            break
        if order.importance == "random":
            name, position = choices[int(torch.randint(len(choices), (1,), generator=generator))]
        else:
            name, position = min(choices, key=lambda c: _loss_without(small, order, *c))
        remove_layers(small, name, [position])
        stages.append({"removed": {name: [position]}})
        stacks[name] = [p - (p > position) for p in stacks[name] if p != position]
    if output_of(small, order.example).shape != shape:
        raise NotApplicable(
            "without some of its layers the module's output has another shape",
            mend="prune something else, or distill it",
        )
    parts = [Part(name, size, len(stacks[name])) for name, size in before.items()]
    return Cut(small, parts, stages)


def _loss_without(module: "torch.nn.Module", order: Order, name: str, position: int) -> float:
    with _without(module.get_submodule(name), position):
        return order.loss().mean(module)


@contextmanager
def _without(container: Any, position: int) -> Iterator[None]:
    """The list of layers without one of them, for the block."""
    before = container._modules
    left = [layer for place, layer in enumerate(before.values()) if place != position]
    container._modules = OrderedDict((str(i), layer) for i, layer in enumerate(left))
    try:
        yield
    finally:
        container._modules = before


def _stacks(module: "torch.nn.Module", example: "Sequence[torch.Tensor]") -> "dict[str, list[int]]":
    """The lists of layers of which some can be removed, by name, and which.

    Raises:
        NotApplicable: There are none.
    """
    import torch

    containers: dict[str, Any] = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.ModuleList | torch.nn.Sequential)
    }
    calls = _watch(module, containers, example)
    if any(len(made) > 1 for made in calls.values()):
        raise NotApplicable(
            "the module's layers share their weights, so that none can be left out",
            mend="prune weights, or distill it",
        )
    found: dict[str, list[int]] = {}
    for name, container in containers.items():
        if any(name.startswith(f"{outer}.") for outer in found):
            continue  # it goes with the layer that it is in
        kinds = Counter(type(layer) for layer in container)
        positions = [
            position
            for position, layer in enumerate(container)
            if kinds[type(layer)] > 1
            and id(layer) in calls
            and _can_go(layer, calls[id(layer)][0])
            and _runs_without(module, container, position, example)
        ]
        if positions:
            found[name] = positions
    if not found:
        raise NotApplicable(
            "the module has no layers that can be left out: layers with attention, or residual "
            "blocks, in a ModuleList or Sequential, that keep the shape of what they are given",
            mend="prune something else, or distill it",
        )
    return found


def _watch(
    module: "torch.nn.Module", containers: Mapping[str, Any], example: "Sequence[torch.Tensor]"
) -> dict[int, list[_Call]]:
    """What the blocks among the layers are given and give, by their identity."""
    import torch

    calls: dict[int, list[_Call]] = {}

    def note(layer: Any, inputs: Any, named: Any, output: Any) -> None:
        calls.setdefault(id(layer), []).append(_Call(inputs, named, _first_tensor(output)))

    layers = {
        id(layer): layer
        for container in containers.values()
        for layer in container
        # a list in a list is a stage, of which the layers are looked at one by one
        if list(layer.children()) and type(layer) not in (torch.nn.Sequential, torch.nn.ModuleList)
    }
    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers.values()]
    output_of(module, example)
    for hook in hooks:
        hook.remove()
    return calls


def _first_tensor(value: Any) -> Any:
    import torch

    if isinstance(value, tuple | list):
        return next((tensor for tensor in map(_first_tensor, value) if tensor is not None), None)
    return value if isinstance(value, torch.Tensor) else None


def _can_go(layer: "torch.nn.Module", call: _Call) -> bool:
    """Whether what comes after the layer can be fed with what was given to it."""
    import torch

    given, made = call.given, call.made
    if given is None or made is None or given.shape != made.shape or given.dtype != made.dtype:
        return False
    if any("Attention" in type(part).__name__ for part in layer.modules()):
        return True
    # a residual block of which all products are zero still hands on what it was given
    silent = copy.deepcopy(layer)
    products = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    with torch.inference_mode():
        for part in silent.modules():
            if isinstance(part, products):
                for parameter in part.parameters():
                    parameter.zero_()
        outputs = [_first_tensor(call.again(silent, tensor)) for tensor in (given, given.flip(-1))]
    return not torch.equal(*outputs)


def _runs_without(
    module: "torch.nn.Module", container: Any, position: int, example: "Sequence[torch.Tensor]"
) -> bool:
    with _without(container, position):
        try:
            output_of(module, example)
        # forward functions that count their layers fail in their own ways
        except Exception:
            return False
    return True
