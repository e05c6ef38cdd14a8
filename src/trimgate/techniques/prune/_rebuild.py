"""Makes a pruned module again: the user's builder, with its layers shrunk to what was kept."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trimgate.models._trainable import build_module

if TYPE_CHECKING:
    import torch

BUILDER = "trimgate.techniques.prune:rebuild"

# Attributes by which layers of torch remember their sizes.
_SIZES = (
    "in_channels",
    "out_channels",
    "groups",
    "num_features",
    "in_features",
    "out_features",
    "normalized_shape",
    "num_channels",
    "num_groups",
    "num_parameters",
)


def rebuild(
    builder: str, arguments: Mapping[str, Any], plan: Mapping[str, Mapping[str, Any]]
) -> "torch.nn.Module":
    """Calls the user's builder and shrinks the module's layers.

    The values of the shrunk parameters are undefined until weights are loaded.

    Args:
        builder: The user's builder, `package.module:function`.
        arguments: Its keyword arguments.
        plan: What `make_plan` recorded.

    Returns:
        The module, in evaluation mode.
    """
    import torch

    module: torch.nn.Module = build_module(builder, dict(arguments))
    for name, changes in plan.items():
        layer = module.get_submodule(name)
        for attribute, value in changes["sizes"].items():
            setattr(layer, attribute, tuple(value) if isinstance(value, list) else value)
        for attribute, shape in changes["shapes"].items():
            old = getattr(layer, attribute)
            new = torch.zeros(shape, dtype=old.dtype)
            if isinstance(old, torch.nn.Parameter):
                new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
            setattr(layer, attribute, new)
    return module.eval()


def make_plan(
    original: "torch.nn.Module", pruned: "torch.nn.Module"
) -> dict[str, dict[str, dict[str, Any]]]:
    """What differs between a module and its pruned copy, as JSON values.

    Returns:
        By the name of each changed layer: `sizes`, attributes such as `out_channels`, and
        `shapes`, of its own parameters and buffers.
    """
    plan = {}
    layers = dict(pruned.named_modules())
    for name, before in original.named_modules():
        after = layers[name]
        sizes = {
            attribute: getattr(after, attribute)
            for attribute in _SIZES
            if getattr(before, attribute, None) != getattr(after, attribute, None)
        }
        old, new = _own_tensors(before), _own_tensors(after)
        shapes = {key: list(t.shape) for key, t in new.items() if t.shape != old[key].shape}
        if sizes or shapes:
            plan[name] = {
                "sizes": {k: list(v) if isinstance(v, tuple) else v for k, v in sizes.items()},
                "shapes": shapes,
            }
    return plan


def _own_tensors(layer: "torch.nn.Module") -> "dict[str, torch.Tensor]":
    return {
        **dict(layer.named_parameters(recurse=False)),
        **dict(layer.named_buffers(recurse=False)),
    }
