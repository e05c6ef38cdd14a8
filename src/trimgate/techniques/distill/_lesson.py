"""The loss from which a torch student learns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trimgate.data.dataset import Array
from trimgate.models.directory import ScoreKind
from trimgate.techniques.distill._config import LossWeights
from trimgate.techniques.distill._inside import Views, comparable
from trimgate.training import (
    attention_loss,
    attention_transfer_loss,
    distillation_loss,
    hidden_loss,
    label_loss,
)

if TYPE_CHECKING:
    import torch

_SOLVED = 4096  # positions from which a projection is found at first


@dataclass(frozen=True)
class Lesson:
    """What a batch teaches.

    Attributes:
        weights: Of the parts of the loss.
        kind: What student and teacher put out.
        targets: `(labelled rows,)`; further rows have no label.
        answers: What the teacher puts out, `(rows, ...)`; found once.
        temperature: Softens both outputs.
        teacher: In evaluation mode; called where its inside counts.
        views: How to look inside; None where only outputs count.
        mask: The position of the input that says which tokens fill up; None without one.
    """

    weights: LossWeights
    kind: ScoreKind
    targets: Array
    answers: Array
    temperature: float
    teacher: "torch.nn.Module"
    views: Views | None = None
    mask: int | None = None

    def __call__(
        self, pupil: Any, tensors: "Sequence[torch.Tensor]", rows: Array
    ) -> "torch.Tensor":
        """The loss of a batch.

        Args:
            pupil: What `pupil_of` made.
            tensors: The inputs of the rows, without tokens that fill up other rows only.
            rows: Their positions.
        """
        import torch

        losses = []
        if self.views is None:
            output = pupil(*tensors)
        else:
            seen = self.views.student(pupil.student, tensors)
            output = seen.output
            with torch.no_grad():
                wanted = self.views.teacher(self.teacher, tensors)
            held = None if self.mask is None else tensors[self.mask]
            losses += self._inside(pupil, seen, wanted, held)
        if self.weights.logits:
            answers = torch.from_numpy(np.array(self.answers[rows]))
            soft = distillation_loss(output, answers, self.kind, self.temperature)
            losses.append(self.weights.logits * soft)
        labelled = rows < len(self.targets)
        if self.weights.labels and labelled.any():
            known = torch.from_numpy(self.targets[rows[labelled]])
            hard = label_loss(output[torch.from_numpy(labelled)], known, self.kind)
            losses.append(self.weights.labels * float(labelled.mean()) * hard)
        return torch.stack(losses).sum() if losses else output.sum() * 0

    def _inside(self, pupil: Any, seen: Any, wanted: Any, held: Any) -> "list[torch.Tensor]":
        import torch

        losses = []
        if self.weights.hidden:
            parts = []
            for project, mine, theirs in zip(
                pupil.projections, seen.hidden, wanted.hidden, strict=True
            ):
                first, second = comparable(mine, theirs)
                parts.append(hidden_loss(project(first), second, held))
            losses.append(self.weights.hidden * torch.stack(parts).mean())
        if self.weights.attention:
            pairs = list(zip(seen.attention, wanted.attention, strict=True))
            if held is not None:
                parts = [attention_loss(mine, theirs, held) for mine, theirs in pairs]
            else:
                parts = [attention_transfer_loss(mine, theirs) for mine, theirs in pairs]
            losses.append(self.weights.attention * torch.stack(parts).mean())
        return losses


def pupil_of(
    student: "torch.nn.Module", lesson: Lesson, example: "Sequence[torch.Tensor]"
) -> "torch.nn.Module":
    """The student with what is learnt beside it and thrown away afterwards.

    Where its features are narrower than the teacher's, a linear projection makes them alike. It
    begins as the one that fits best on the example, as training would take long to find it.

    Args:
        student: In evaluation mode; called as it is by the module that is made.
        lesson: Says what is compared.
        example: Some rows.
    """
    import torch

    class Pupil(torch.nn.Module):
        def __init__(self, projections: list[torch.nn.Module]) -> None:
            super().__init__()
            self.student = student
            self.projections = torch.nn.ModuleList(projections)

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.student(*tensors)
            return output

    if lesson.views is None or not lesson.weights.hidden:
        return Pupil([])
    with torch.no_grad():
        seen = lesson.views.student(student, example)
        wanted = lesson.views.teacher(lesson.teacher, example)
    pairs = [comparable(a, b) for a, b in zip(seen.hidden, wanted.hidden, strict=True)]
    return Pupil([_projection(first, second) for first, second in pairs])


def _projection(student: "torch.Tensor", teacher: "torch.Tensor") -> "torch.nn.Module":
    """Nothing where the widths agree, else the least-squares fit with a little ridge."""
    import torch

    few, many = student.shape[-1], teacher.shape[-1]
    if few == many:
        return torch.nn.Identity()
    x = student.reshape(-1, few)[:_SOLVED]
    y = teacher.reshape(-1, many)[:_SOLVED]
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1).double()
    gram = x.T @ x
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(few + 1, dtype=torch.float64)
    solved = torch.linalg.solve(gram, x.T @ y.double()).float()
    with torch.random.fork_rng(devices=[]):
        projection = torch.nn.Linear(few, many)
    with torch.no_grad():
        projection.weight.copy_(solved[:-1].T)
        projection.bias.copy_(solved[-1])
    return projection
