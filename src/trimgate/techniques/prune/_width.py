"""Narrower encoders: fewer attention heads, and fewer neurons of the feed-forward parts."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trimgate.errors import NotApplicable
from trimgate.techniques.prune._cut import Cut, Order, Part, output_of, rounded
from trimgate.techniques.prune._encoders import (
    Projection,
    Units,
    find_heads,
    find_neurons,
    head_attributes,
)
from trimgate.techniques.prune._rebuild import make_stage

if TYPE_CHECKING:
    import torch

# Rounding of sums in another order; what is wrongly cut differs by far more.
_TOLERANCE = 1e-3


def cut_heads(module: "torch.nn.Module", order: Order) -> Cut:
    """Removes attention heads from a copy of an encoder; at least one is left in each layer.

    By `taylor` a head is worth the mean size of the change of the loss that its gate would make
    (Michel, Levy and Neubig, 2019, arXiv:1905.10650).

    Args:
        module: In evaluation mode.
        order: How much, and by which importance.

    Raises:
        NotApplicable: Heads are not found, or the module does not work without some.
    """
    return _cut(module, order, find_heads(module), round_to=1)


def cut_neurons(module: "torch.nn.Module", order: Order) -> Cut:
    """Removes neurons of the feed-forward parts from a copy of an encoder.

    Args:
        module: In evaluation mode.
        order: How much, and by which importance.

    Raises:
        NotApplicable: Neurons are not found, or the module does not work without some.
    """
    return _cut(module, order, find_neurons(module), round_to=order.config.round_to)


def cut_heads_and_neurons(module: "torch.nn.Module", order: Order) -> Cut:
    """Does both."""
    names = [units.name for units in (*find_heads(module), *find_neurons(module))]
    order.check_names(names)
    heads = _cut(module, order, find_heads(module), round_to=1, named=names)
    both = _cut(
        heads.module, order, find_neurons(heads.module), round_to=order.config.round_to,
        named=names,
    )  # fmt: skip
    parts = [*heads.parts, *both.parts]
    return Cut(both.module, parts, [make_stage(module, both.module)])


def _cut(
    module: "torch.nn.Module",
    order: Order,
    found: Sequence[Units],
    *,
    round_to: int,
    named: Sequence[str] | None = None,
) -> Cut:
    import torch

    order.check_names(named or [units.name for units in found])
    scores = _importance(module, order, found)
    if found[0].bias is not None:
        # the layers look at one bias by head, so they lose the same ones
        scores = [torch.stack(scores).mean(dim=0)] * len(found)
    parts, kept = [], []
    for units, size, multiple, ranked in _sizes(order, found, scores, round_to):
        parts.append(Part(units.name, units.count, size, multiple))
        kept.append(ranked[:size].sort().values)
    if found[0].bias is not None and len({len(index) for index in kept}) > 1:
        raise NotApplicable(
            "all layers share one bias for each head, and must lose the same heads",
            key="prune.ratios",
            mend="give an amount",
        )
    small = copy.deepcopy(module)
    for units, index in zip(found, kept, strict=True):
        _silence(small, units, index)
    expected = output_of(small, order.example)
    _remember(small, found, kept)
    for units, index in zip(found, kept, strict=True):
        for projection in units.inputs:
            _keep_rows(small, projection, units, index)
        _keep_columns(small, units, index)
    if found[0].bias is not None:
        embedding: Any = small.get_submodule(found[0].bias)
        embedding.weight = torch.nn.Parameter(embedding.weight.detach()[:, kept[0]].clone())
        embedding.embedding_dim = len(kept[0])
    _check(small, order, expected)
    return Cut(small, parts, [make_stage(module, small)])


def _importance(
    module: "torch.nn.Module", order: Order, found: Sequence[Units]
) -> "list[torch.Tensor]":
    """The importance of each unit, in each part."""
    import torch

    outputs: list[Any] = [module.get_submodule(units.output).weight for units in found]
    totals = [torch.zeros(units.count) for units in found]
    if order.importance == "random":
        generator = torch.Generator().manual_seed(order.seed)
        return [torch.rand(units.count, generator=generator) for units in found]
    if order.importance == "taylor":
        for gradients in order.loss().gradients(module, outputs):
            for total, units, weight, gradient in zip(
                totals, found, outputs, gradients, strict=True
            ):
                # the change of the loss with the unit's gate is that with all of its columns
                effect = (weight.detach() * gradient).sum(dim=0).view(units.count, units.size)
                total += effect.sum(dim=1).abs()
        return totals
    power = 1 if order.importance == "l1" else 2
    for total, units, weight in zip(totals, found, outputs, strict=True):
        total += weight.detach().abs().pow(power).sum(dim=0).view(units.count, -1).sum(dim=1)
        for projection in units.inputs:
            made: Any = module.get_submodule(projection.name)
            rows = made.weight.detach().abs().pow(power).sum(dim=1)
            total += rows.view(projection.blocks, units.count, -1).sum(dim=(0, 2))
    return totals


def _sizes(
    order: Order, found: Sequence[Units], scores: "Sequence[torch.Tensor]", round_to: int
) -> "list[tuple[Units, int, int, torch.Tensor]]":
    """For each part: how many units to keep, of which multiple, and the units, best first."""
    import torch

    wanted = [order.wanted(units.name, units.count) for units in found]
    if order.config.scope == "global":
        ranked = torch.cat([score / score.mean().clamp_min(1e-12) for score in scores])
        whole = [order.sizes.get(units.name, units.count) for units in found]
        keep = max(1, min(len(ranked), round(sum(whole) * (1 - order.share))))
        threshold = ranked.sort(descending=True).values[keep - 1]
        start, wanted = 0, []
        for units in found:
            wanted.append(float((ranked[start : start + units.count] >= threshold).sum()))
            start += units.count
    made = []
    for units, score, number in zip(found, scores, wanted, strict=True):
        size, multiple = rounded(units.count, number, round_to)
        made.append((units, size, multiple, score.argsort(descending=True, stable=True)))
    return made


def _positions(units: Units, index: "torch.Tensor", blocks: int) -> "torch.Tensor":
    """The columns of the units that are kept, in each block."""
    import torch

    within = (index[:, None] * units.size + torch.arange(units.size)).flatten()
    width = units.count * units.size
    return torch.cat([within + block * width for block in range(blocks)])


def _silence(module: "torch.nn.Module", units: Units, index: "torch.Tensor") -> None:
    """Makes the output deaf to the units that are to go."""
    import torch

    output: Any = module.get_submodule(units.output)
    with torch.no_grad():
        gone = torch.ones(output.in_features, dtype=torch.bool)
        gone[_positions(units, index, 1)] = False
        output.weight[:, gone] = 0


def _keep_rows(
    module: "torch.nn.Module", projection: Projection, units: Units, index: "torch.Tensor"
) -> None:
    import torch

    layer: Any = module.get_submodule(projection.name)
    rows = _positions(units, index, projection.blocks)
    layer.weight = torch.nn.Parameter(layer.weight.detach()[rows].clone())
    if layer.bias is not None:
        layer.bias = torch.nn.Parameter(layer.bias.detach()[rows].clone())
    layer.out_features = len(rows)


def _keep_columns(module: "torch.nn.Module", units: Units, index: "torch.Tensor") -> None:
    import torch

    layer: Any = module.get_submodule(units.output)
    columns = _positions(units, index, 1)
    layer.weight = torch.nn.Parameter(layer.weight.detach()[:, columns].clone())
    layer.in_features = len(columns)


def _remember(
    module: "torch.nn.Module", found: Sequence[Units], kept: "Sequence[torch.Tensor]"
) -> None:
    """Sets the attributes by which attentions know their number of heads and width."""
    sizes = {units.name: len(index) for units, index in zip(found, kept, strict=True)}
    for owner, units, attribute in head_attributes(module, found):
        setattr(owner, attribute, sizes[units.name])
    for units in found:
        owner = module.get_submodule(units.name)
        if getattr(owner, "all_head_size", None) == units.count * units.size:
            owner.all_head_size = sizes[units.name] * units.size  # type: ignore[assignment]


def _check(small: "torch.nn.Module", order: Order, expected: "torch.Tensor") -> None:
    """The smaller module gives what the whole one gives when it is deaf to what is gone."""
    import torch

    reason = "its output is another than without them"
    try:
        output = output_of(small, order.example)
    # whatever a forward function raises on sizes that it does not expect
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    else:
        if torch.allclose(output, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            return
    raise NotApplicable(
        f"{order.config.method.replace('_', ' ')} cannot be removed from this module ({reason})",
        mend="prune layers instead",
    )
