"""Where the attention heads and the feed-forward neurons of an encoder are.

Found by the names and shapes of linear layers, so that it holds for BERT, DistilBERT, RoBERTa,
ELECTRA, MPNet, DeBERTa, ModernBERT, ViT and what is made like them. That the findings are right
is checked when heads or neurons are removed.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimgate.errors import NotApplicable

if TYPE_CHECKING:
    import torch

_QUERY = ("query", "query_proj", "q", "q_lin", "q_proj", "wq", "to_q")
_KEY = ("key", "key_proj", "k", "k_lin", "k_proj", "wk", "to_k")
_VALUE = ("value", "value_proj", "v", "v_lin", "v_proj", "wv", "to_v")
_FUSED = ("Wqkv", "qkv", "qkv_proj", "in_proj")
_OUTPUT = ("out_lin", "o", "o_proj", "out_proj", "proj", "dense", "Wo", "wo", "to_out")
_HEADS = ("num_attention_heads", "num_heads", "n_heads")
_INSTEAD = "prune ffn or layers instead"
_HEAD_SIZE = ("attention_head_size", "head_dim", "head_size")


@dataclass(frozen=True)
class Projection:
    """A linear layer whose outputs are the units, one after the other.

    Attributes:
        name: Of the layer.
        blocks: How often the units come (3 where query, key and value are one layer).
    """

    name: str
    blocks: int = 1


@dataclass(frozen=True)
class Units:
    """Heads of one attention, or neurons of one feed-forward part.

    Attributes:
        name: Of the attention, or of the layer that takes the neurons.
        inputs: Layers that make the units.
        output: The linear layer that takes them.
        count: How many there are.
        size: Columns of `output` that belong to one.
        bias: Name of an embedding with a column for each head that all layers share; these
            must lose the same heads.
    """

    name: str
    inputs: Sequence[Projection]
    output: str
    count: int
    size: int = 1
    bias: str | None = None


def find_heads(module: "torch.nn.Module") -> list[Units]:
    """The attentions of a module, in order.

    Raises:
        NotApplicable: There are none, or their heads cannot be told apart.
    """
    import torch

    found = []
    for name, part in module.named_modules():
        layers = _linears(part)
        fused = next((layers[n] for n in _FUSED if n in layers), None)
        query, key, value = (
            next((layers[n] for n in names if n in layers), None)
            for names in (_QUERY, _KEY, _VALUE)
        )
        if fused is not None:
            width = fused.out_features // 3
        elif query is not None and key is not None and value is not None:
            width = value.out_features
            if not query.out_features == key.out_features == width:
                raise NotApplicable(
                    f"the heads of {name!r} share their keys, so none can be removed alone",
                    mend=_INSTEAD,
                )
        else:
            continue
        count, size = _head_count(part, name, width)
        output = _output(module, name, layers, width)
        inputs = [
            Projection(_join(name, child), 3 if layer is fused else 1)
            for child, layer in layers.items()
            if layer is fused or (layer.out_features == width and _join(name, child) != output)
        ]
        found.append(Units(name, inputs, output, count, size, _shared_bias(module, count)))
    if not found:
        if any(isinstance(part, torch.nn.MultiheadAttention) for part in module.modules()):
            raise NotApplicable(
                "torch.nn.MultiheadAttention fixes the size of its heads to their number, so that "
                "none can be removed",
                mend=_INSTEAD,
            )
        raise NotApplicable(
            "the module has no attention with layers for query, key and value", mend=_INSTEAD
        )
    return found


def find_neurons(module: "torch.nn.Module") -> list[Units]:
    """The feed-forward parts in the repeated layers of a module, in order.

    Raises:
        NotApplicable: There are none.
    """
    taken = _attention_linears(module)
    linears = [
        (name, layer)
        for name, layer in module.named_modules()
        if _is_linear(layer) and name not in taken
    ]
    found: list[Units] = []
    # from the end on, so that what comes last in a part is what takes its neurons
    for position in range(len(linears) - 1, 0, -1):
        name, down = linears[position]
        inputs: list[Projection] = []
        if name not in taken:
            inputs = _makers(linears[:position], down.in_features, down.out_features, taken)
        if inputs and _is_repeated(module, _common([name, *(p.name for p in inputs)])):
            found.insert(0, Units(name, inputs, name, down.in_features))
            taken |= {name, *(p.name for p in inputs)}
    if not found:
        raise NotApplicable(
            "the module has no layers with a feed-forward part of two linear layers",
            mend="prune heads or layers instead",
        )
    return found


def _makers(
    before: Sequence[tuple[str, Any]], width: int, hidden: int, taken: set[str]
) -> list[Projection]:
    """The one or two layers just before a layer, of which it takes `width` neurons.

    Where one half of the neurons gates the other, they are two layers side by side, or one of
    twice the width.
    """
    made: list[Projection] = []
    for name, layer in reversed(before[-2:]):
        blocks = layer.out_features // width
        beside = not made or name.rpartition(".")[0] == made[0].name.rpartition(".")[0]
        fits = layer.in_features == hidden and layer.out_features in (width, 2 * width)
        if name in taken or not fits or not beside or (made and blocks == 2):
            break
        made.insert(0, Projection(name, blocks))
        if blocks == 2:
            break
    return made


def _attention_linears(module: "torch.nn.Module") -> set[str]:
    """The linear layers of all attentions, with those that take what the heads give."""
    found = set[str]()
    for name, part in module.named_modules():
        if not _is_attention(part):
            continue
        layers = _linears(part)
        found |= {_join(name, child) for child in layers}
        value = next((layers[n] for n in _VALUE if n in layers), None)
        if value is not None:
            with contextlib.suppress(NotApplicable):
                found.add(_output(module, name, layers, value.out_features))
    return found


def head_attributes(
    module: "torch.nn.Module", units: Sequence[Units]
) -> "list[tuple[torch.nn.Module, Units, str]]":
    """Modules that remember how many heads they have, with the attribute that says so.

    Those are the attentions, and what shares a bias among them.
    """
    found = []
    for unit in units:
        owners = [module.get_submodule(unit.name)]
        if unit.bias is not None:
            owners.append(module.get_submodule(unit.bias.rpartition(".")[0]))
        found += [
            (owner, unit, attribute)
            for owner in owners
            for attribute in _HEADS
            if getattr(owner, attribute, None) == unit.count
        ]
    return found


def _linears(part: "torch.nn.Module") -> dict[str, Any]:
    return {name: child for name, child in part.named_children() if _is_linear(child)}


def _is_linear(layer: Any) -> bool:
    import torch

    return isinstance(layer, torch.nn.Linear)


def _is_attention(part: "torch.nn.Module") -> bool:
    import torch

    names = set(_linears(part))
    split = all(names & set(wanted) for wanted in (_QUERY, _KEY, _VALUE))
    return split or bool(names & set(_FUSED)) or isinstance(part, torch.nn.MultiheadAttention)


def _head_count(part: Any, name: str, width: int) -> tuple[int, int]:
    count, size = _attribute(part, _HEADS), _attribute(part, _HEAD_SIZE)
    if not size and count:
        size = width // count
    if not size or width % size:
        raise NotApplicable(
            f"{name!r} does not tell how many heads its {width} columns are", mend=_INSTEAD
        )
    return width // size, size


def _attribute(part: Any, names: Sequence[str]) -> int:
    """The first of the attributes that is there and a number, or 0."""
    values = [getattr(part, name, None) for name in names]
    return next((value for value in values if isinstance(value, int) and value), 0)


def _output(module: "torch.nn.Module", name: str, layers: dict[str, Any], width: int) -> str:
    """The linear layer that takes what the heads give: in the attention, or next to it."""
    for child in _OUTPUT:
        if child in layers and layers[child].in_features == width:
            return _join(name, child)
    parent = name.rpartition(".")[0]
    for below, layer in module.get_submodule(parent).named_modules():
        full = _join(parent, below)
        if not full.startswith(f"{name}.") and _is_linear(layer) and layer.in_features == width:
            return full
    raise NotApplicable(
        f"no layer is found that takes the output of the attention {name!r}", mend=_INSTEAD
    )


def _shared_bias(module: "torch.nn.Module", heads: int) -> str | None:
    import torch

    embeddings = {n: p for n, p in module.named_modules() if isinstance(p, torch.nn.Embedding)}
    return next(
        (n for n, p in embeddings.items() if "bias" in n and p.embedding_dim == heads), None
    )


def _is_repeated(module: "torch.nn.Module", place: str) -> bool:
    """Whether a place is, or is in, an element of a list of layers."""
    import torch

    while place:
        place, _, child = place.rpartition(".")
        parent = module.get_submodule(place)
        if child and isinstance(parent, torch.nn.ModuleList | torch.nn.Sequential):
            return True
    return False


def _common(names: Sequence[str]) -> str:
    """The innermost module that has all of them."""
    parts = [name.split(".")[:-1] for name in names]
    shared = []
    for steps in zip(*parts, strict=False):
        if len(set(steps)) > 1:
            break
        shared.append(steps[0])
    return ".".join(shared)


def _join(parent: str, child: str) -> str:
    return f"{parent}.{child}" if parent and child else parent or child
