"""A seeded fine-tuning loop for torch modules."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trimgate.data.dataset import Array
from trimgate.models import to_scores
from trimgate.models.directory import ModelInfo, ScoreKind
from trimgate.training._losses import distillation_loss, label_loss

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("trimgate.training")


class FinetuneConfig(BaseModel):
    """How to fine-tune.

    Attributes:
        epochs: At most so many passes over the training rows; 0 trains nothing.
        learning_rate: Of AdamW at the start; falls to 0 along a cosine.
        batch_size: Rows per step.
        weight_decay: Of AdamW.
        patience: Stops after so many epochs without a better validation score.
        distill: Weight of the teacher's output in the loss, from 0 (labels only) to 1.
        temperature: Softens both distributions of the distillation loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=8, ge=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=64, ge=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    patience: int = Field(default=4, ge=1)
    distill: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=2.0, gt=0)


@dataclass(frozen=True)
class FinetuneReport:
    """What happened.

    Attributes:
        losses: Mean training loss by epoch.
        scores: Validation score by epoch; the first is that of the untrained module.
        best_epoch: The epoch whose weights the module holds now; 0 is before training.
    """

    losses: tuple[float, ...]
    scores: tuple[float, ...]
    best_epoch: int


def finetune(
    module: "torch.nn.Module",
    train_inputs: Sequence[Array],
    train_targets: Array,
    config: FinetuneConfig,
    *,
    kind: ScoreKind,
    validate: Callable[["torch.nn.Module"], float],
    higher_is_better: bool = True,
    teacher: "torch.nn.Module | None" = None,
    seed: int = 0,
    threads: int = 1,
) -> FinetuneReport:
    """Trains a module in place and leaves it in evaluation mode with the best epoch's weights.

    Deterministic on CPU for equal arguments and an equal number of threads.

    Args:
        module: What is trained.
        train_inputs: Its positional arguments, each with the rows first.
        train_targets: `(rows,)`: `int64` class positions, or `float32` values.
        config: Epochs, learning rate and so on.
        kind: What the module puts out.
        validate: Gives the validation score of the module (in evaluation mode).
        higher_is_better: Whether more of that score is better.
        teacher: Its output is learnt from too, by `config.distill`; None uses labels only.
        seed: Of the order of the rows and of random layers.
        threads: Threads that torch may use.

    Returns:
        Losses and scores by epoch.
    """
    import torch

    with _reproducible(seed, threads):
        scores = [validate(module.eval())]
        losses: list[float] = []
        best, best_state = 0, copy.deepcopy(module.state_dict())
        steps = config.epochs * len(_batches(len(train_targets), config.batch_size))
        optimizer = torch.optim.AdamW(
            module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
        generator = np.random.default_rng(seed)
        for epoch in range(1, config.epochs + 1):
            order = generator.permutation(len(train_targets))
            losses.append(
                _epoch(module, train_inputs, train_targets, order, config, kind, teacher,
                       optimizer, schedule)
            )  # fmt: skip
            scores.append(validate(module.eval()))
            _log.info(
                "epoch %d of %d: loss %.4f, validation %.4f",
                epoch, config.epochs, losses[-1], scores[-1],
            )  # fmt: skip
            gain = scores[-1] - scores[best]
            if (gain if higher_is_better else -gain) > 0:
                best, best_state = epoch, copy.deepcopy(module.state_dict())
            elif epoch - best >= config.patience:
                break
        module.load_state_dict(best_state)
    module.eval()
    return FinetuneReport(tuple(losses), tuple(scores), best)


def module_scores(
    module: "torch.nn.Module",
    inputs: Mapping[str, Array],
    info: ModelInfo,
    *,
    batch_size: int = 256,
    threads: int = 1,
) -> Array:
    """Scores of a module as a session gives them.

    Args:
        module: In evaluation mode.
        inputs: The tensors that `info.inputs` name.
        info: Says the order of the inputs and what the output is.
        batch_size: Rows per call.
        threads: Threads that torch may use.

    Returns:
        `(rows, classes)` probabilities or `(rows,)` values.
    """
    import torch

    columns = [inputs[spec.name] for spec in info.inputs]
    parts = []
    with _threads(threads), torch.inference_mode():
        for start in range(0, len(columns[0]), batch_size):
            rows = slice(start, start + batch_size)
            parts.append(module(*_tensors(columns, rows)).numpy())
    return to_scores(np.concatenate(parts), info)


def _epoch(
    module: "torch.nn.Module",
    inputs: Sequence[Array],
    targets: Array,
    order: Array,
    config: FinetuneConfig,
    kind: ScoreKind,
    teacher: "torch.nn.Module | None",
    optimizer: "torch.optim.Optimizer",
    schedule: "torch.optim.lr_scheduler.LRScheduler",
) -> float:
    """One pass over the rows; gives the mean loss."""
    import torch

    module.train()
    total = 0.0
    batches = _batches(len(order), config.batch_size)
    for batch in batches:
        rows = order[batch]
        tensors = _tensors(inputs, rows)
        output = module(*tensors)
        loss = label_loss(output, torch.from_numpy(targets[rows]), kind)
        if teacher is not None and config.distill > 0:
            with torch.no_grad():
                wanted = teacher(*tensors)
            soft = distillation_loss(output, wanted, kind, config.temperature)
            loss = (1 - config.distill) * loss + config.distill * soft
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total += loss.item()
    return total / len(batches)


def _batches(rows: int, size: int) -> list[slice]:
    """Slices of the rows; a single last row joins none, as batch norm cannot train on it."""
    slices = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    if len(slices) > 1 and slices[-1].stop - slices[-1].start == 1:
        slices.pop()
    return slices


def _tensors(columns: Sequence[Array], rows: Any) -> "list[torch.Tensor]":
    import torch

    # Copied, because memory-mapped rows are read-only and torch would warn of that.
    return [torch.from_numpy(np.array(column[rows])) for column in columns]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _reproducible(seed: int, threads: int) -> Iterator[None]:
    """Seeds torch and sets its threads for the block; the caller's state comes back after it."""
    import torch

    with _threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
