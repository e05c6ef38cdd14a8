"""Students of transformer encoders: fewer layers, narrower layers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimgate.errors import NotApplicable
from trimgate.techniques.distill._config import Student

if TYPE_CHECKING:
    import torch

    from trimgate.models.transformers import TextClassifier

# What the classes of transformers call these; the first one that a config has counts.
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer")
_HIDDEN = ("hidden_size", "dim", "d_model", "n_embd")
_FFN = ("intermediate_size", "hidden_dim", "n_inner", "d_inner")
_HEADS = ("num_attention_heads", "n_heads", "n_head")
_BLOCK = 16  # widths are multiples of it where the teacher's allow


@dataclass(frozen=True)
class Plan:
    """A student's config, and where its layers come from.

    Attributes:
        config: As `trimgate.models.transformers.build` takes it.
        kept: The teacher's layer that each of the student's begins as.
        layers: How many the teacher has.
    """

    config: dict[str, Any]
    kept: tuple[int, ...]
    layers: int

    @property
    def targets(self) -> tuple[int, ...]:
        """After which of the teacher's layers the student's are compared, counted from 1.

        A layer stands for all the teacher's layers up to the next one that was kept.
        """
        return (*self.kept[1:], self.layers)


def layer_count(config: Mapping[str, Any]) -> int | None:
    """How many layers an encoder has, by its config; None where it does not say."""
    name = next((n for n in _LAYERS if isinstance(config.get(n), int)), None)
    return None if name is None else int(config[name])


def problem(config: Mapping[str, Any], student: Student) -> str | None:
    """Why no such student can be made of an encoder with this config, or None."""
    total = layer_count(config)
    if total is None:
        return "the encoder's config does not say how many layers it has"
    if student.layers is not None:
        count = student.layers if isinstance(student.layers, int) else len(student.layers)
        highest = student.layers - 1 if isinstance(student.layers, int) else student.layers[-1]
        if highest >= total:
            return f"the teacher has {total} layers, and the student wants layer {highest + 1}"
        if count == total and student.width is None and student.ffn is None:
            return f"the student would have all {total} layers of the teacher"
    sizes = [*(_HIDDEN, _HEADS) * (student.width is not None)]
    sizes += [_FFN] * (student.ffn is not None or student.width is not None)
    missing = [names[0] for names in sizes if _name(config, names) is None]
    if missing:
        return f"the encoder's config has no {missing[0]} to make narrower"
    if student.width is not None and config[str(_name(config, _HEADS))] < 2:
        return "the teacher has one attention head, and cannot be made narrower by heads"
    return None


def plan(config: Mapping[str, Any], student: Student) -> Plan:
    """The student's config, made from the teacher's.

    Heads keep their size; the hidden size shrinks with their number.

    Args:
        config: The teacher's, for which `problem` says nothing.
        student: What is asked for.
    """
    total = layer_count(config) or 0
    wanted = total if student.layers is None else student.layers
    kept = (
        wanted if isinstance(wanted, tuple) else tuple(i * total // wanted for i in range(wanted))
    )
    made = dict(config)
    for name in _LAYERS:
        if name in made:
            made[name] = len(kept)
    for name, value in config.items():
        # one entry for each layer, such as the kinds of attention that alternate
        if "layer" in name and isinstance(value, list | tuple) and len(value) == total:
            made[name] = [value[i] for i in kept]
    if student.width is not None:
        heads, hidden = str(_name(config, _HEADS)), str(_name(config, _HIDDEN))
        made[heads] = max(1, round(config[heads] * student.width))
        made[hidden] = config[hidden] // config[heads] * made[heads]
        for name in ("embedding_size", "pooler_hidden_size"):
            if config.get(name) == config[hidden]:
                made[name] = made[hidden]
        if isinstance(config.get("num_key_value_heads"), int):
            groups = config[heads] // config["num_key_value_heads"]
            made["num_key_value_heads"] = max(1, made[heads] // groups)
    share = student.ffn or student.width
    if share is not None:
        ffn = str(_name(config, _FFN))
        block = _BLOCK if config[ffn] * share >= _BLOCK else 1
        made[ffn] = max(1, round(config[ffn] * share / block)) * block
    return Plan(made, kept, total)


def begin(
    student: "TextClassifier",
    teacher: "TextClassifier",
    made: Plan,
    example: "Sequence[torch.Tensor]",
) -> int:
    """Copies the teacher's weights to a student, as far as they fit.

    Where the student is narrower it gets the hidden dimensions with the largest mean activation
    on the example, and the heads and neurons with the largest weights.

    Args:
        student: With random weights; they stay where the teacher has nothing that fits.
        teacher: In evaluation mode.
        made: How the student's config came about.
        example: Some rows as the teacher takes them.

    Returns:
        How many of the student's tensors were copied.
    """
    import torch

    before, after = teacher.state_dict(), student.state_dict()
    where = _Layers(teacher, made)
    # only what is narrower is cut, and only then must the teacher's sizes be known
    cuts: _Cuts | None = None
    copied = 0
    with torch.no_grad():
        for name, tensor in after.items():
            origin = where.origin(name)
            value = before.get(origin)
            if value is not None and value.shape != tensor.shape:
                cuts = cuts or _Cuts(teacher, student, example)
                value = cuts.narrowed(origin, value, tensor.shape)
            if value is not None:
                tensor.copy_(value)
                copied += 1
    return copied


class _Layers:
    """Names of the student's tensors as the teacher has them."""

    def __init__(self, teacher: "torch.nn.Module", made: Plan) -> None:
        import torch

        # an encoder whose layers share their weights (ALBERT) has no such list
        names = (
            name
            for name, module in teacher.named_modules()
            if isinstance(module, torch.nn.ModuleList) and len(module) == made.layers
        )
        self.prefix = next(names, None)
        self.kept = made.kept

    def origin(self, name: str) -> str:
        if self.prefix is None or not name.startswith(f"{self.prefix}."):
            return name
        position, _, rest = name.removeprefix(f"{self.prefix}.").partition(".")
        return f"{self.prefix}.{self.kept[int(position)]}.{rest}"


class _Cuts:
    """Which part of a wide tensor a narrow one gets."""

    def __init__(
        self,
        teacher: "TextClassifier",
        student: "TextClassifier",
        example: "Sequence[torch.Tensor]",
    ) -> None:
        import torch

        self.weights = teacher.state_dict()
        wide, narrow = (_sizes(m.model.config) for m in (teacher, student))
        self.hidden, self.few = wide["hidden"], narrow["hidden"]
        self.ffn, self.few_ffn = wide["ffn"], narrow["ffn"]
        self.head = self.hidden // wide["heads"]
        with torch.no_grad():
            states = teacher.detailed(*example)[1]
        # an encoder with a smaller embedding (ELECTRA) has a first state of another width
        activity = sum(s.abs().mean(dim=(0, 1)) for s in states if s.shape[-1] == self.hidden)
        self.dimensions = _largest(activity, self.few)
        self.into, self.out_of = _attention_layers(teacher, example, self.hidden)

    def narrowed(
        self, name: str, value: "torch.Tensor", shape: "torch.Size"
    ) -> "torch.Tensor | None":
        """The part of a tensor for a smaller shape, or None where it cannot be said."""
        module = name.rpartition(".")[0]
        for axis, (many, few) in enumerate(zip(value.shape, shape, strict=True)):
            if many == few:
                continue
            index = self._index(module, axis, many, few)
            if index is None:
                return None
            value = value.index_select(axis, index)
        return value

    def _index(self, module: str, axis: int, many: int, few: int) -> "torch.Tensor | None":
        import torch

        blocks = many // self.hidden if many % self.hidden == 0 else 0
        if 1 <= blocks <= 3 and few == blocks * self.few:
            heads = (axis == 0 and module in self.into) or (axis == 1 and module in self.out_of)
            chosen = self._heads(module) if heads else self.dimensions
            return torch.cat([chosen + block * self.hidden for block in range(blocks)])
        blocks = many // self.ffn if many % self.ffn == 0 else 0
        if 1 <= blocks <= 2 and few == blocks * self.few_ffn:
            chosen = self._neurons(module)
            return torch.cat([chosen + block * self.ffn for block in range(blocks)])
        return None

    def _heads(self, module: str) -> "torch.Tensor":
        """Columns of the attention's output of the heads that it weighs most."""
        import torch

        output = self.into.get(module, module)
        weight = self.weights[f"{output}.weight"]
        norms = weight.square().sum(dim=0).view(-1, self.head).sum(dim=1)
        heads = _largest(norms, self.few // self.head)
        return (heads[:, None] * self.head + torch.arange(self.head)).flatten()

    def _neurons(self, module: str) -> "torch.Tensor":
        """Neurons of the FFN by the norm of the column that reads them; the same in a layer."""
        stem = re.match(r"(.*?\.\d+)\.", f"{module}.")
        prefix = stem.group(1) if stem else module
        readers = [
            weight
            for name, weight in self.weights.items()
            if name.startswith(f"{prefix}.") and weight.dim() == 2 and weight.shape[1] == self.ffn
        ]
        return _largest(readers[-1].square().sum(dim=0), self.few_ffn)


def _attention_layers(
    teacher: "torch.nn.Module", example: "Sequence[torch.Tensor]", hidden: int
) -> tuple[dict[str, str], set[str]]:
    """Linear layers whose outputs, and those whose inputs, are made of heads.

    They are the layers of the hidden width within one attention, in the order in which they are
    called: the last one takes together what queries, keys and values have made.

    Returns:
        By the name of each that makes queries, keys or values, the one that takes the heads
        together; and the names of the latter.
    """
    import torch

    called: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, module in teacher.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module.in_features == hidden
        and module.out_features % hidden == 0
    ]
    with torch.no_grad():
        teacher(*example)
    for hook in hooks:
        hook.remove()
    by_layer: dict[str, list[str]] = {}
    for name in dict.fromkeys(called):
        layer = re.match(r".*?\.\d+(?=\.)", name)
        linear: Any = teacher.get_submodule(name)
        if layer is None or re.search(r"ffn|mlp|intermediate", name.removeprefix(layer.group())):
            continue
        if linear.out_features in (hidden, 2 * hidden, 3 * hidden):
            by_layer.setdefault(layer.group(), []).append(name)
    into = {name: names[-1] for names in by_layer.values() for name in names[:-1]}
    return into, {names[-1] for names in by_layer.values() if len(names) > 1}


def _sizes(config: Any) -> dict[str, int]:
    found = {}
    for key, names in (("hidden", _HIDDEN), ("ffn", _FFN), ("heads", _HEADS)):
        values = config.to_dict()
        name = _name(values, names)
        if name is None:
            raise NotApplicable(f"the encoder's config has no {names[0]}")
        found[key] = int(values[name])
    return found


def _largest(scores: Any, count: int) -> "torch.Tensor":
    """Positions of the largest scores, in rising order."""
    import torch

    chosen: torch.Tensor = torch.topk(scores, count).indices.sort().values
    return chosen


def _name(config: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((n for n in names if isinstance(config.get(n), int)), None)
