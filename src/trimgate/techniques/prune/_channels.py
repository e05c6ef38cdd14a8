"""Structured channels of torch modules: which to remove, and removing them."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimgate.errors import MissingExtra, NotApplicable
from trimgate.techniques.prune._cut import Cut, Order, Part, output_of, rounded
from trimgate.techniques.prune._rebuild import make_stage

if TYPE_CHECKING:
    import torch

# Layers that torch-pruning cuts and that `rebuild` can make again.
_KNOWN = (
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Linear",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "GroupNorm",
    "PReLU",
)


@dataclass(frozen=True)
class _Group:
    """Layers that must lose the same channels."""

    root: "torch.nn.Module"
    function: Any
    names: tuple[str, ...]
    blocks: int
    importance: "torch.Tensor"

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def channels(self) -> int:
        return len(self.importance) * self.blocks


def cut_channels(module: "torch.nn.Module", order: Order) -> Cut:
    """Removes whole channels from a copy of a module; its output keeps its shape.

    Importance is measured over the whole group of layers that lose a channel together:
    `magnitude` and `l1` (Fang et al., 2023, arXiv:2301.12900), `taylor` (Molchanov et al., 2019,
    arXiv:1906.10771), `fpgm` (He et al., 2019, arXiv:1811.00250) and `batch_norm` (Liu et al.,
    2017, arXiv:1708.06519).

    Args:
        module: In evaluation mode.
        order: How much, and by which importance.

    Raises:
        NotApplicable: The module has layers or a forward function that cannot be pruned.
    """
    import torch

    _check_layers(module)
    pruning = _torch_pruning()
    example, config = order.example, order.config
    if order.importance == "taylor":
        order.loss().accumulate(module)
    small = _copy_with_gradients(module)
    module.zero_grad()
    expected = output_of(module, example).shape
    try:
        graph = pruning.DependencyGraph().build_dependency(
            small, example_inputs=tuple(example), verbose=False
        )
        groups = list(_groups(pruning, graph, small, order))
    # the tracer fails in as many ways as there are ways to write forward
    except Exception as error:
        raise NotApplicable(
            "the module's channels cannot be followed through its forward function "
            f"({_first_line(error)})",
            mend="prune layers or weights instead",
        ) from error
    if not groups and order.importance == "batch_norm":
        raise NotApplicable(
            "no channels of the module have a batch norm to rank them by",
            key="prune.importance",
            mend="use magnitude",
        )
    in_order = [name for name, _ in module.named_modules()]
    order.check_names(sorted((n for group in groups for n in group.names), key=in_order.index))
    share = order.left_of(sum(group.channels for group in groups)) if groups else 1.0
    threshold = _threshold(groups, 1 - share) if config.scope == "global" else None
    parts = []
    for group in groups:
        named = next((name for name in group.names if name in config.ratios), group.name)
        wanted = order.sizes.get(group.name, group.channels) * (1 - order.share_of(named))
        if threshold is not None:
            wanted = float((_normalized(group.importance) > threshold).sum()) * group.blocks
        kept, multiple = rounded(group.channels, wanted, config.round_to, group.blocks)
        parts.append(Part(group.name, group.channels, kept, multiple))
        removed = (group.channels - kept) // group.blocks
        if not removed:
            continue
        index = torch.argsort(group.importance, stable=True)[:removed]
        size = len(group.importance)
        indices = [int(i) + block * size for block in range(group.blocks) for i in index]
        graph.get_pruning_group(group.root, group.function, sorted(indices)).prune()
    for parameter in small.parameters():
        parameter.grad = None
    parts.sort(key=lambda part: in_order.index(part.layer))
    try:
        shape = output_of(small, example).shape
    except RuntimeError as error:
        raise NotApplicable(
            "the module's forward function relies on the sizes of its layers "
            f"({_first_line(error)})",
            mend="use flatten or view(len(x), -1) there instead of fixed sizes, or prune layers "
            "or weights instead",
        ) from error
    if shape != expected:
        raise NotApplicable(
            f"pruning would change the output from {tuple(expected)} to {tuple(shape)}",
            mend="prune layers or weights instead",
        )
    return Cut(small, parts, [make_stage(module, small)])


def macs(module: "torch.nn.Module", example: "Sequence[torch.Tensor]") -> int:
    """Multiply-accumulates of the convolutions and dense layers in one forward call."""
    import torch

    total = 0

    def count(layer: Any, inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(layer, torch.nn.Linear):
            total += output.numel() * layer.in_features
        elif layer.transposed:
            total += inputs[0].numel() * math.prod(layer.weight.shape[1:])
        else:
            total += output.numel() * math.prod(layer.weight.shape[1:])

    hooks = [
        layer.register_forward_hook(count)
        for layer in module.modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.modules.conv._ConvNd))
    ]
    with torch.inference_mode():
        module(*example)
    for hook in hooks:
        hook.remove()
    return total


def parameters(module: "torch.nn.Module") -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _groups(pruning: Any, graph: Any, module: "torch.nn.Module", order: Order) -> Iterator[_Group]:
    """The groups of layers that may lose channels, with the importance of each channel."""
    import torch

    measures = {
        "magnitude": lambda: pruning.importance.GroupMagnitudeImportance(p=2),
        "l1": lambda: pruning.importance.GroupMagnitudeImportance(p=1),
        "taylor": pruning.importance.GroupTaylorImportance,
        "fpgm": pruning.importance.FPGMImportance,
        "batch_norm": pruning.importance.BNScaleImportance,
        # only to learn which channels there are
        "random": lambda: pruning.importance.GroupMagnitudeImportance(p=2),
    }
    measure = measures[order.importance]()
    generator = torch.Generator().manual_seed(order.seed)
    names = {layer: name for name, layer in module.named_modules()}
    roots = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    outputs = _output_layers(graph, roots)
    for group in graph.get_all_groups(ignored_layers=outputs, root_module_types=list(roots)):
        touched = [item.dep.target.module for item in group]
        if any(layer in outputs for layer in touched if _loses_outputs(graph, group, layer)):
            continue
        scores = measure(group)
        if scores is None:
            continue
        if order.importance == "random":
            scores = torch.rand(len(scores), generator=generator)
        blocks = max((_blocks(layer) for layer in touched), default=1)
        root = group[0].dep.target.module
        if len(scores) % blocks:
            continue
        losing = [layer for layer in touched if _loses_outputs(graph, group, layer)]
        yield _Group(
            root,
            group[0].dep.handler,
            tuple(dict.fromkeys(names[layer] for layer in [root, *losing] if layer in names)),
            blocks,
            scores.detach().view(blocks, -1).mean(dim=0).cpu(),
        )


def _loses_outputs(graph: Any, group: Any, layer: Any) -> bool:
    return any(
        item.dep.target.module is layer and graph.is_out_channel_pruning_fn(item.dep.handler)
        for item in group
    )


def _blocks(layer: Any) -> int:
    """In how many blocks of equal size a layer divides its channels."""
    groups = int(getattr(layer, "groups", getattr(layer, "num_groups", 1)))
    depthwise = groups == getattr(layer, "out_channels", None) == getattr(layer, "in_channels", 0)
    return 1 if depthwise else groups


def _output_layers(graph: Any, kinds: tuple[type, ...]) -> list[Any]:
    """Layers from which a path leads to the output without another such layer on it."""

    def reaches_output(node: Any, seen: set[int]) -> bool:
        if id(node) in seen:
            return False
        seen.add(id(node))
        if not node.outputs:
            return True
        return any(
            not isinstance(after.module, kinds) and reaches_output(after, seen)
            for after in node.outputs
        )

    return [
        layer
        for layer, node in graph.module2node.items()
        if isinstance(layer, kinds) and reaches_output(node, set())
    ]


def _normalized(importance: "torch.Tensor") -> "torch.Tensor":
    """Importance that can be compared between layers of different sizes."""
    return importance / importance.mean().clamp_min(1e-12)


def _threshold(groups: Sequence[_Group], amount: float) -> float:
    """The importance below which the given share of all channels lies."""
    import torch

    if amount <= 0:
        return -math.inf
    everything = torch.cat([_normalized(g.importance).repeat(g.blocks) for g in groups])
    rank = min(len(everything) - 1, max(0, round(len(everything) * amount) - 1))
    return float(everything.sort().values[rank])


def _check_layers(module: "torch.nn.Module") -> None:
    """Refuses layers that torch-pruning does not cut; what is made from those it does may pass."""
    import torch

    known = tuple(getattr(torch.nn, name) for name in _KNOWN)
    for name, layer in module.named_modules():
        # a scale for each channel is cut with its channels
        own = [p for p in layer.parameters(recurse=False) if p.numel() > max(p.shape, default=1)]
        ours = type(layer).__module__.startswith("torch.nn.")
        own += list(layer.parameters(recurse=False)) if ours else []
        if own and not isinstance(layer, known):
            raise NotApplicable(
                f"channels cannot be removed from the layer {name or 'module'!r} of the type "
                f"{type(layer).__name__}, only from convolutional and dense ones",
                mend="prune layers or weights instead",
            )


def _copy_with_gradients(module: "torch.nn.Module") -> "torch.nn.Module":
    small = copy.deepcopy(module)
    for new, old in zip(small.parameters(), module.parameters(), strict=True):
        new.requires_grad_(True)
        new.grad = None if old.grad is None else old.grad.clone()
    return small


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingExtra("torch_pruning", "torch") from error
    return torch_pruning


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
