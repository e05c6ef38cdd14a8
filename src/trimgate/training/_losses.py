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


def hidden_loss(
    student: "torch.Tensor", teacher: "torch.Tensor", mask: "torch.Tensor | None" = None
) -> "torch.Tensor":
    """Squared error of features, as a share of what the teacher's vary by.

    The hints of FitNets (Romero et al., 2015, arXiv:1412.6550) and the hidden states of TinyBERT
    (Jiao et al., 2020, arXiv:1909.10351); divided by the teacher's variance, so that layers of
    any scale weigh the same.

    Args:
        student: Features, projected to the teacher's width.
        teacher: Of the same shape, features last.
        mask: `(rows, length)`, 0 where a position of `(rows, length, width)` only fills up.

    Returns:
        0 where they are equal, 1 where the student only knows the mean.
    """
    if mask is not None:
        held = mask.bool()
        student, teacher = student[held], teacher[held]
    student, teacher = (t.reshape(-1, t.shape[-1]) for t in (student, teacher))
    variance = (teacher - teacher.mean(dim=0)).square().mean()
    return (student - teacher).square().mean() / variance.clamp_min(1e-8)


def attention_loss(
    student: "torch.Tensor", teacher: "torch.Tensor", mask: "torch.Tensor"
) -> "torch.Tensor":
    """Squared distance of the attention distributions of two transformer layers.

    As in TinyBERT (Jiao et al., 2020, arXiv:1909.10351), on the probabilities: a logarithm, as in
    MiniLM, would be infinite where dropout took one away. Layers with different numbers of
    heads are compared by their mean over the heads.

    Args:
        student: `(rows, heads, length, length)` attention weights.
        teacher: The same, of any number of heads.
        mask: `(rows, length)`, 0 where a position only fills up.

    Returns:
        The sum over the positions looked at, its mean over those that look and the heads.
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = (t.mean(dim=1, keepdim=True) for t in (student, teacher))
    distance = (student - teacher).square().sum(dim=3).mean(dim=1)
    weight = mask.to(distance.dtype)
    return (distance * weight).sum() / weight.sum().clamp_min(1)


def attention_transfer_loss(student: "torch.Tensor", teacher: "torch.Tensor") -> "torch.Tensor":
    """Squared distance of the places that two convolutional layers look at.

    Zagoruyko and Komodakis, 2017, arXiv:1612.03928: the mean of the squared channels, as a
    vector of length 1. It needs no projection where the widths differ; the larger map is
    averaged to the smaller one's size.

    Args:
        student: `(rows, channels, height, width)` feature maps.
        teacher: The same, of any number of channels.

    Returns:
        From 0 (the same places) to 2.
    """
    from torch.nn import functional

    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    first, second = (
        functional.normalize(
            functional.adaptive_avg_pool2d(t.square().mean(dim=1, keepdim=True), size).flatten(1)
        )
        for t in (student, teacher)
    )
    return (first - second).square().sum(dim=1).mean()
