"""Losses by what a module puts out, each also against a teacher's output."""

from typing import TYPE_CHECKING

from trimgate.models.directory import ScoreKind

if TYPE_CHECKING:
    import torch


def label_loss(output: "torch.Tensor", target: "torch.Tensor", kind: ScoreKind) -> "torch.Tensor":
    """Mean loss of a batch against its labels.

    Args:
        output: `(rows, classes)`, `(rows, 1)` or `(rows,)`, what the module put out.
        target: `(rows,)`: `int64` class positions, or `float32` values.
        kind: What the output is: cross entropy for `logit` and `probability` (one column is
            the positive class), squared error for `value`.
    """
    from torch.nn import functional

    flat = output.reshape(len(output), -1)
    if kind == "value":
        return functional.mse_loss(flat[:, 0], target)
    if flat.shape[1] == 1:
        wanted = target.to(flat.dtype)
        if kind == "logit":
            return functional.binary_cross_entropy_with_logits(flat[:, 0], wanted)
        return functional.binary_cross_entropy(flat[:, 0].clamp(1e-7, 1 - 1e-7), wanted)
    if kind == "logit":
        return functional.cross_entropy(flat, target)
    return functional.nll_loss(flat.clamp_min(1e-7).log(), target)


def distillation_loss(
    output: "torch.Tensor", teacher: "torch.Tensor", kind: ScoreKind, temperature: float
) -> "torch.Tensor":
    """Mean loss of a batch against the teacher's output on the same rows.

    Args:
        output: What the module put out.
        teacher: What the teacher put out, of the same shape.
        kind: What both are; `value` gives the squared error.
        temperature: Softens both distributions; 1 leaves them.

    Returns:
        Kullback-Leibler divergence times the squared temperature, which keeps its gradients
        as large as those of the label loss (Hinton et al., 2015, arXiv:1503.02531).
    """
    import torch
    from torch.nn import functional

    student = output.reshape(len(output), -1)
    teacher = teacher.reshape(len(teacher), -1)
    if kind == "value":
        return functional.mse_loss(student, teacher)
    if kind == "probability":
        student, teacher = (t.clamp(1e-7, 1 - 1e-7) for t in (student, teacher))
        if student.shape[1] == 1:
            student, teacher = torch.logit(student), torch.logit(teacher)
        else:
            student, teacher = student.log(), teacher.log()
    if student.shape[1] == 1:
        student = torch.cat([torch.zeros_like(student), student], dim=1)
        teacher = torch.cat([torch.zeros_like(teacher), teacher], dim=1)
    divergence = functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2
