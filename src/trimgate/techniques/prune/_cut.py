"""What every way to make a torch module smaller is given, and what it gives."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs, sample_rows
from trimgate.models.directory import ModelInfo, ScoreKind
from trimgate.techniques._base import Context
from trimgate.techniques.prune._config import IMPORTANCES, PruneConfig
from trimgate.techniques.prune._rebuild import Stage
from trimgate.training import label_loss, training_labels

if TYPE_CHECKING:
    import torch

_ROWS = 512
_BATCH = 16
_NORM_BATCH = 64


@dataclass(frozen=True)
class TrainingLoss:
    """The loss on some of the training rows, by which importance is measured.

    Attributes:
        batches: The module's positional arguments and the targets of each batch.
        kind: What the module puts out.
    """

    batches: "Sequence[tuple[list[torch.Tensor], torch.Tensor]]"
    kind: ScoreKind

    @classmethod
    def of(cls, info: ModelInfo, context: Context) -> "TrainingLoss":
        """On up to 512 training rows, evenly spread."""
        import torch

        rows: Dataset = sample_rows(context.train, _ROWS)
        inputs = build_inputs(info, rows.features)
        targets = torch.from_numpy(training_labels(info, rows.labels))
        tensors = [torch.from_numpy(np.array(inputs[spec.name])) for spec in info.inputs]
        batches = [
            ([t[start : start + _BATCH] for t in tensors], targets[start : start + _BATCH])
            for start in range(0, len(rows), _BATCH)
        ]
        return cls(batches, "value" if info.task == "regression" else info.score_kind)

    def mean(self, module: "torch.nn.Module", *, batches: int = 8) -> float:
        """The mean loss of the first batches."""
        import torch

        with torch.inference_mode():
            losses = [
                label_loss(module(*tensors), targets, self.kind).item()
                for tensors, targets in self.batches[:batches]
            ]
        return sum(losses) / len(losses)

    def accumulate(self, module: "torch.nn.Module") -> None:
        """Leaves the gradients of the mean loss in the module's parameters."""
        module.zero_grad()
        for tensors, targets in self.batches:
            loss = label_loss(module(*tensors), targets, self.kind) / len(self.batches)
            loss.backward()  # type: ignore[no-untyped-call]

    def gradients(
        self, module: "torch.nn.Module", weights: "Sequence[torch.Tensor]"
    ) -> "Iterator[Sequence[torch.Tensor]]":
        """The gradients of some of the module's parameters, for one batch after the other."""
        import torch

        for tensors, targets in self.batches:
            loss = label_loss(module(*tensors), targets, self.kind)
            yield torch.autograd.grad(
                loss, list(weights), allow_unused=True, materialize_grads=True
            )


def settle_norms(module: "torch.nn.Module", loss: TrainingLoss) -> None:
    """Measures again what batch normalizations expect, on some training rows, in place.

    What a cut module feeds them differs so much from what they saw in training that it answers
    by chance, and their running averages follow within hundreds of steps only (Li et al., 2020,
    arXiv:2007.02491).

    Args:
        module: In evaluation mode, as it is left.
        loss: Has the rows.
    """
    import torch

    norms: list[Any] = [
        part
        for part in module.modules()
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.track_running_stats
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
        norm.train()
    inputs = [torch.cat(parts) for parts in zip(*(t for t, _ in loss.batches), strict=True)]
    with torch.no_grad():
        for batch in zip(*(torch.split(tensor, _NORM_BATCH) for tensor in inputs), strict=True):
            # a last row alone has no deviation
            if len(batch[0]) > 1:
                module(*batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@dataclass(frozen=True)
class Order:
    """What to remove from a module.

    Attributes:
        amount: The share to remove in the end, but for the layers in `ratios`.
        config: The parameters of the step.
        example: Positional arguments of a forward call, of one row.
        loss: Gives the loss by whose change importance is measured.
        seed: Of random importance.
        progress: How much of the amount is to be gone now, up to 1.
        sizes: By the name of each part: how many channels, heads, ... it had before the first
            step of a schedule; empty in that first step.
    """

    amount: float
    config: PruneConfig
    example: "Sequence[torch.Tensor]"
    loss: Callable[[], TrainingLoss]
    seed: int = 0
    progress: float = 1.0
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def importance(self) -> str:
        """The criterion, with `auto` resolved."""
        chosen: str = self.config.importance
        return IMPORTANCES[self.config.method][0] if chosen == "auto" else chosen

    @property
    def share(self) -> float:
        """The share that is to be gone now."""
        return self.amount * self.progress

    def share_of(self, name: str) -> float:
        """The share of one layer that is to be gone now, where layers are not ranked together."""
        return self.config.ratios.get(name, self.amount) * self.progress

    def wanted(self, name: str, size: int) -> float:
        """How much of a layer, which has `size` now, to keep."""
        return self.sizes.get(name, size) * (1 - self.share_of(name))

    def left_of(self, total: int) -> float:
        """The share of `total` parts of all layers that is to be kept, ranked together."""
        return (sum(self.sizes.values()) or total) * (1 - self.share) / total

    def check_names(self, names: Sequence[str]) -> None:
        """Raises NotApplicable if `ratios` names a layer that there is not."""
        wrong = next((name for name in self.config.ratios if name not in names), None)
        if wrong is not None:
            raise NotApplicable(
                f"there is no layer {wrong!r} to prune by {self.config.method}",
                key="prune.ratios",
                mend=f"its layers are {', '.join(list(names)[:40])}",
            )


@dataclass(frozen=True)
class Part:
    """What was kept of a layer, or of a group of layers that share their channels.

    Attributes:
        layer: Its name; of a group, that of its first layer.
        before: Its channels, heads, neurons, weights or layers.
        after: How many are left.
        round_to: The multiple that could be kept.
    """

    layer: str
    before: int
    after: int
    round_to: int = 1

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Cut:
    """A smaller module.

    Attributes:
        module: A changed copy.
        parts: What was kept of each layer.
        stages: How `rebuild` makes it from the module before.
        masks: By the name of a parameter: which of its elements may differ from zero.
    """

    module: "torch.nn.Module"
    parts: Sequence[Part]
    stages: Sequence[Stage] = ()
    masks: "Mapping[str, torch.Tensor]" = field(default_factory=dict)


def rounded(size: int, wanted: float, round_to: int, blocks: int = 1) -> tuple[int, int]:
    """How many channels to keep, and the multiple that this is of.

    The largest multiple is taken with which some, but not all, channels can be removed.
    """
    if wanted >= size:
        return size, 1
    for multiple in (16, 8, 4, 1):
        step = math.lcm(multiple, blocks)
        if multiple > round_to:
            continue
        kept = max(step, math.floor(wanted / step + 0.5) * step)
        if kept < size:
            return kept, multiple
    return size, 1


def output_of(module: "torch.nn.Module", example: "Sequence[torch.Tensor]") -> "torch.Tensor":
    """What the module gives for the example."""
    import torch

    with torch.inference_mode():
        output: torch.Tensor = module(*example)
    return output
