"""Single weights set to zero: sparse, but of the same shape."""

import copy
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trimgate.errors import NotApplicable
from trimgate.techniques.prune._cut import Cut, Order, Part

if TYPE_CHECKING:
    import torch


def cut_weights(module: "torch.nn.Module", order: Order) -> Cut:
    """Sets the least important weights of the dense and convolutional layers to zero.

    By magnitude (Han et al., 2015, arXiv:1506.02626), within each layer, over all of them, or
    within groups of M neighbours along a layer's inputs (N:M; Zhou et al., 2021,
    arXiv:2102.04010). Biases, norms and embeddings stay.

    Args:
        module: In evaluation mode.
        order: How much, and by which importance.

    Raises:
        NotApplicable: No layer has weights that can go, or none fits the pattern.
    """
    small = copy.deepcopy(module)
    weights = _weights(small)
    if not weights:
        raise NotApplicable("the module has no dense or convolutional layer")
    order.check_names(list(weights))
    scores = _scores(module, order, weights)
    if order.config.pattern:
        masks = _by_pattern(scores, order)
    elif order.config.scope == "global":
        masks = _by_rank(scores, order.share)
    else:
        masks = {
            name: _by_rank({name: score}, order.share_of(name))[name]
            for name, score in scores.items()
        }
    parts = []
    for name, mask in masks.items():
        weights[name].data.masked_fill_(~mask, 0.0)
        parts.append(Part(name, mask.numel(), int(mask.sum())))
    named = {id(parameter): name for name, parameter in small.named_parameters()}
    return Cut(small, parts, masks={named[id(weights[name])]: mask for name, mask in masks.items()})


def hold(module: "torch.nn.Module", masks: "Mapping[str, torch.Tensor]") -> None:
    """Sets to zero again what training moved.

    Args:
        module: What is trained.
        masks: By the name of a parameter: which of its elements may differ from zero.
    """
    parameters = dict(module.named_parameters())
    for name, mask in masks.items():
        parameters[name].data.masked_fill_(~mask, 0.0)


def compressed_size(module: "torch.nn.Module") -> int:
    """Bytes of all parameters and buffers after zlib (which zip and gzip use)."""
    return sum(
        len(zlib.compress(tensor.detach().contiguous().numpy().tobytes()))
        for tensor in module.state_dict().values()
    )


def sparsity_notes(module: "torch.nn.Module", small: "torch.nn.Module", cut: Cut) -> dict[str, Any]:
    """What became of the weights, in numbers and in words.

    Args:
        module: Before.
        small: After the training.
        cut: What was cut.
    """
    zeros = sum(int((weight == 0).sum()) for weight in _weights(small).values())
    total = sum(weight.numel() for weight in _weights(small).values())
    before, after = compressed_size(module), compressed_size(small)
    says = (
        f"{zeros / total:.0%} of the weights are zero. Compressed (zip), the weights take "
        f"{after / before:.0%} of what they took; the file itself stays as large, and a runtime "
        "that computes densely, as ONNX Runtime and OpenVINO do, is no faster by it."
    )
    whole = [part.layer for part in cut.parts if part.after == part.before]
    return {
        "sparsity": zeros / total,
        "compressed_bytes_before": before,
        "compressed_bytes_after": after,
        "left_dense": whole,
        "says": says,
    }


def _weights(module: "torch.nn.Module") -> dict[str, Any]:
    """The weights of dense and convolutional layers by layer; shared ones once."""
    import torch

    kinds = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    found: dict[int, tuple[str, Any]] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, kinds):
            found.setdefault(id(layer.weight), (name, layer.weight))
    return dict(found.values())


def _scores(
    module: "torch.nn.Module", order: Order, weights: Mapping[str, Any]
) -> "dict[str, torch.Tensor]":
    """The importance of each weight; that of a weight which is zero already is 0."""
    import torch

    if order.importance == "taylor":
        order.loss().accumulate(module)
        found: dict[str, Any] = {n: module.get_submodule(n).weight for n in weights}
        scores = {
            name: torch.zeros_like(w) if w.grad is None else (w.detach() * w.grad).abs()
            for name, w in found.items()
        }
        module.zero_grad()
        return scores
    if order.importance == "random":
        generator = torch.Generator().manual_seed(order.seed)
        return {
            name: torch.rand(weight.shape, generator=generator).add(1e-6) * (weight != 0)
            for name, weight in weights.items()
        }
    return {name: weight.detach().abs() for name, weight in weights.items()}


def _by_rank(scores: "Mapping[str, torch.Tensor]", share: float) -> "dict[str, torch.Tensor]":
    """Masks without the lowest share of all the scores together."""
    import torch

    flat = torch.cat([score.flatten() for score in scores.values()])
    kept = torch.ones(len(flat), dtype=torch.bool)
    kept[flat.argsort(stable=True)[: round(len(flat) * share)]] = False
    parts = torch.split(kept, [score.numel() for score in scores.values()])
    return {
        name: part.view(score.shape)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def _by_pattern(scores: "Mapping[str, torch.Tensor]", order: Order) -> "dict[str, torch.Tensor]":
    """Masks with N of each M along the inputs; a layer whose inputs M does not divide stays."""
    import torch

    kept, group = order.config.kept_of
    # a schedule comes to N by way of more of the M
    kept = group - round((group - kept) * order.progress)
    masks, fits = {}, False
    for name, score in scores.items():
        masks[name] = torch.ones_like(score, dtype=torch.bool)
        if score.shape[1] % group:
            continue
        fits = True
        groups = score.movedim(1, -1)
        flat = groups.reshape(-1, group)
        mask = torch.zeros_like(flat, dtype=torch.bool)
        mask.scatter_(1, flat.topk(kept, dim=1).indices, True)
        masks[name] = mask.view(groups.shape).movedim(-1, 1).contiguous()
    if not fits:
        raise NotApplicable(
            f"no layer has inputs in groups of {group}", key="prune.pattern",
            value=order.config.pattern, mend="use an amount",
        )  # fmt: skip
    return masks
