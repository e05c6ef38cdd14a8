"""Makes a pruned module again: the user's builder, with its layers removed and shrunk."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trimgate.models._trainable import build_module
from trimgate.models.directory import ModelInfo

if TYPE_CHECKING:
    import torch

BUILDER = "trimgate.techniques.prune:rebuild"

# What was done to a module, as JSON values, in the order in which it was done.
Stage = dict[str, Any]

# Attributes by which layers remember their sizes: those of torch, then those of attention.
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
    "embedding_dim",
    "num_attention_heads",
    "num_heads",
    "n_heads",
    "all_head_size",
)


def rebuild(builder: str, arguments: Mapping[str, Any], plan: Sequence[Stage]) -> "torch.nn.Module":
    """Calls the user's builder, and removes and shrinks the module's layers.

    The values of the shrunk parameters are undefined until weights are loaded.

    Args:
        builder: The user's builder, `package.module:function`.
        arguments: Its keyword arguments.
        plan: What was done, in order: stages of `make_stage`, and `{"removed": {<name of a
            list of layers>: [<positions>]}}`.

    Returns:
        The module, in evaluation mode.
    """
    import torch

    module: torch.nn.Module = build_module(builder, dict(arguments))
    for stage in plan:
        for name, positions in stage.get("removed", {}).items():
            remove_layers(module, name, positions)
        for name, changes in stage.get("layers", {}).items():
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


def remove_layers(module: "torch.nn.Module", name: str, positions: Sequence[int]) -> None:
    """Takes layers out of a `ModuleList` or `Sequential`; those after them move up.

    Args:
        module: What holds the list.
        name: The list's name in the module.
        positions: Which of its layers.
    """
    container: Any = module.get_submodule(name)
    for position in sorted(positions, reverse=True):
        del container[position]


def make_stage(original: "torch.nn.Module", pruned: "torch.nn.Module") -> Stage:
    """What differs between a module and its copy with smaller layers, as JSON values.

    Returns:
        `layers`: by the name of each changed layer `sizes`, attributes such as `out_channels`,
        and `shapes`, of its own parameters and buffers.
    """
    plan = {}
    layers = dict(pruned.named_modules())
    for name, before in original.named_modules():
        after = layers[name]
        sizes = {
            attribute: getattr(after, attribute)
            for attribute in _SIZES
            # a module may have a method of that name
            if isinstance(getattr(before, attribute, None), int | tuple)
            and getattr(before, attribute) != getattr(after, attribute)
        }
        old, new = _own_tensors(before), _own_tensors(after)
        shapes = {key: list(t.shape) for key, t in new.items() if t.shape != old[key].shape}
        if sizes or shapes:
            plan[name] = {
                "sizes": {k: list(v) if isinstance(v, tuple) else v for k, v in sizes.items()},
                "shapes": shapes,
            }
    return {"layers": plan}


def builder_arguments(info: ModelInfo, stages: Sequence[Stage]) -> dict[str, Any]:
    """What `rebuild` needs; a module that was pruned before goes back to the user's builder.

    Args:
        info: The record of the module before these stages.
        stages: What was done to it now.
    """
    if info.builder != BUILDER:
        return {
            "builder": info.builder,
            "arguments": copy.deepcopy(info.builder_arguments),
            "plan": list(stages),
        }
    before = copy.deepcopy(info.builder_arguments)
    return {**before, "plan": [*before["plan"], *stages]}


def _own_tensors(layer: "torch.nn.Module") -> "dict[str, torch.Tensor]":
    return {
        **dict(layer.named_parameters(recurse=False)),
        **dict(layer.named_buffers(recurse=False)),
    }
