"""What happens inside teacher and student, as pairs that a loss compares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from trimgate.errors import InvalidInput, NotApplicable
from trimgate.techniques.distill._encoders import Plan

if TYPE_CHECKING:
    import torch

_KEY = "distill.pairs"


@dataclass(frozen=True)
class Seen:
    """One call of a module, watched.

    Attributes:
        output: What it put out.
        hidden: Features, one tensor for each pair.
        attention: Attention weights or feature maps, one for each pair.
    """

    output: "torch.Tensor"
    hidden: "tuple[torch.Tensor, ...]"
    attention: "tuple[torch.Tensor, ...]"


class View(Protocol):
    """A way to look into a module while it is called."""

    def __call__(self, module: Any, tensors: "Sequence[torch.Tensor]") -> Seen:
        """Calls the module on one batch."""


@dataclass(frozen=True)
class EncoderView:
    """Hidden states and attention weights of an encoder.

    Attributes:
        states: Which hidden states; 0 stands before the first layer.
        layers: Whose attention weights.
    """

    states: tuple[int, ...]
    layers: tuple[int, ...]

    def __call__(self, module: Any, tensors: "Sequence[torch.Tensor]") -> Seen:
        output, states, maps = module.detailed(*tensors)
        if self.layers and (not maps or any(found is None for found in maps)):
            raise NotApplicable(
                "this kind of encoder does not give its attention weights",
                key="distill.loss.attention",
                mend="leave it at 0, and learn from loss.hidden",
            )
        return Seen(
            output,
            tuple(states[i] for i in self.states),
            tuple(maps[i] for i in self.layers),
        )


@dataclass(frozen=True)
class LayerView:
    """Outputs of named layers of any module.

    Attributes:
        layers: Their names; of those that end in `<` the input is taken instead.
        maps: Whether the attention of feature maps is compared too.
    """

    layers: tuple[str, ...]
    maps: bool

    def __call__(self, module: Any, tensors: "Sequence[torch.Tensor]") -> Seen:
        caught: dict[str, Any] = {}
        hooks = [_hook(module, name, caught) for name in self.layers]
        try:
            output = module(*tensors)
        finally:
            for hook in hooks:
                hook.remove()
        found = tuple(_tensor(name, caught) for name in self.layers)
        return Seen(output, found, found if self.maps else ())


@dataclass(frozen=True)
class Views:
    """How to look into both; what the one and the other see belongs together in order."""

    student: View
    teacher: View


def of_encoders(made: Plan, *, attention: bool) -> Views:
    """A student's layers beside those of the teacher that they stand for, embeddings included."""
    count = len(made.kept)
    last = tuple(target - 1 for target in made.targets)
    return Views(
        EncoderView(tuple(range(count + 1)), tuple(range(count)) if attention else ()),
        EncoderView((0, *made.targets), last if attention else ()),
    )


def of_layers(
    student: "torch.nn.Module",
    teacher: "torch.nn.Module",
    pairs: Sequence[tuple[str, str]],
    example: "Sequence[torch.Tensor]",
    *,
    attention: bool,
) -> Views:
    """Layers of two modules that are given by name, or found.

    Args:
        student: In evaluation mode.
        teacher: In evaluation mode.
        pairs: Names in the student and in the teacher; empty finds the last feature map of each
            resolution that both have, or else what enters the last dense layer.
        example: Some rows.
        attention: Whether feature maps are compared by where they look.

    Raises:
        InvalidInput: There is no layer of that name.
        NotApplicable: The layers cannot be compared.
    """
    for position, module in enumerate((student, teacher)):
        for pair in pairs:
            if pair[position] not in dict(module.named_modules()):
                who = "teacher" if position else "student"
                raise InvalidInput(
                    f"the {who} has no such layer", key=_KEY, value=pair[position],
                    mend=f"its layers are {', '.join(n for n, _ in module.named_children())}, ...",
                )  # fmt: skip
    found = list(pairs) or _common(student, teacher, example)
    views = Views(
        LayerView(tuple(first for first, _ in found), attention),
        LayerView(tuple(second for _, second in found), attention),
    )
    import torch

    with torch.no_grad():
        seen = [views.student(student, example), views.teacher(teacher, example)]
    for (first, second), a, b in zip(found, seen[0].hidden, seen[1].hidden, strict=True):
        if a.dim() != b.dim() or (a.dim() == 3 and a.shape[1] != b.shape[1]):
            raise NotApplicable(
                f"{first} gives {tuple(a.shape[1:])} a row and {second} gives "
                f"{tuple(b.shape[1:])}, which cannot be compared",
                key=_KEY,
            )
        if attention and a.dim() != 4:
            raise NotApplicable(
                f"{first} gives no feature map, so it has no places to look at",
                key="distill.loss.attention",
                mend="leave it at 0, or name pairs of convolutional layers",
            )
    return views


def comparable(
    student: "torch.Tensor", teacher: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Two features with the width last; the larger feature map is averaged to the smaller."""
    from torch.nn import functional

    if student.dim() != 4:
        return student, teacher
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    first, second = (functional.adaptive_avg_pool2d(t, size) for t in (student, teacher))
    return first.permute(0, 2, 3, 1), second.permute(0, 2, 3, 1)


def _common(
    student: "torch.nn.Module", teacher: "torch.nn.Module", example: "Sequence[torch.Tensor]"
) -> list[tuple[str, str]]:
    """The last feature map of each resolution that both have, or the input of the last layer."""
    first, second = (_outline(module, example) for module in (student, teacher))
    shared = [size for size in second.maps if size in first.maps]
    if shared:
        return [(first.maps[size], second.maps[size]) for size in shared]
    if first.last is None or second.last is None:
        raise NotApplicable(
            "no layers of student and teacher were found that can be compared",
            key=_KEY,
            mend="name them",
        )
    return [(f"{first.last}<", f"{second.last}<")]


@dataclass
class _Outline:
    """The last layer that gives a feature map of each size, and the last dense layer."""

    maps: dict[tuple[int, ...], str]
    last: str | None = None


def _outline(module: "torch.nn.Module", example: "Sequence[torch.Tensor]") -> _Outline:
    import torch

    found = _Outline({})

    def seen(layer: Any, inputs: Any, output: Any, name: str) -> None:
        if isinstance(output, torch.Tensor) and output.dim() == 4:
            found.maps[tuple(output.shape[2:])] = name
        if isinstance(layer, torch.nn.Linear):
            found.last = name

    hooks = [
        layer.register_forward_hook(lambda a, b, c, name=name: seen(a, b, c, name))
        for name, layer in module.named_modules()
        if name
    ]
    with torch.no_grad():
        module(*example)
    for hook in hooks:
        hook.remove()
    return found


def _hook(module: Any, name: str, caught: dict[str, Any]) -> Any:
    layer = module.get_submodule(name.removesuffix("<"))

    def keep(_: Any, inputs: Any, output: Any) -> None:
        caught[name] = inputs[0] if name.endswith("<") else output

    return layer.register_forward_hook(keep)


def _tensor(name: str, caught: dict[str, Any]) -> "torch.Tensor":
    import torch

    found = caught.get(name)
    if not isinstance(found, torch.Tensor) or found.dim() < 2 or found.dim() > 4:
        raise NotApplicable(
            "the layer gives no tensor of features when the module is called", key=_KEY, value=name
        )
    return found
