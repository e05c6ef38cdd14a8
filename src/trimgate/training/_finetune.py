"""A seeded fine-tuning loop for torch modules."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trimgate.data.dataset import Array
from trimgate.models import to_scores
from trimgate.models._tokenizer import MASK, batches
from trimgate.models.directory import ModelInfo, ScoreKind
from trimgate.training._checkpoint import Checkpoint, dump_generator, load_generator
from trimgate.training._losses import distillation_loss, label_loss

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("trimgate.training")

Objective = Callable[["torch.nn.Module", "list[torch.Tensor]", Array], "torch.Tensor"]

_WINDOW = 32  # batches whose rows are sorted by length together


class FinetuneConfig(BaseModel):
    """How to fine-tune.

    Attributes:
        epochs: At most so many passes over the training rows; 0 trains nothing.
        learning_rate: Of AdamW at the start; falls to 0 along a cosine. None takes 5e-5 for a
            module with attention, which larger steps make forget, and else 1e-3.
        batch_size: Rows per step.
        weight_decay: Of AdamW.
        patience: Stops after so many epochs without a better validation score.
        distill: Weight of the teacher's output in the loss, from 0 (labels only) to 1.
        temperature: Softens both distributions of the distillation loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    epochs: int = Field(default=8, ge=0)
    learning_rate: float | None = Field(default=None, gt=0)
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
    after_step: Callable[[], None] | None = None,
    checkpoint: Path | None = None,
    objective: Objective | None = None,
    mask: int | None = None,
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
        after_step: Called after each step of the optimizer, as to hold weights at zero.
        checkpoint: A file of this fine-tuning alone, written after each epoch. Where it is
            there already, training goes on from it, and ends as if it had never stopped.
        objective: Gives the loss of a batch in place of that of labels and teacher: called with
            the module, its input tensors and the positions of the rows.
        mask: The position of the input that says which tokens fill a row up (`mask_position`).
            Rows of like length then share a batch, which is cut to the longest of them.

    Returns:
        Losses and scores by epoch.
    """
    import torch

    if objective is None:
        objective = _usual_objective(train_targets, config, kind, teacher)
    saved = Checkpoint.of(
        checkpoint, module, config, kind, seed, threads, train_targets, teacher is None
    )
    lengths = None if mask is None else _lengths(train_inputs[mask])
    with _reproducible(seed, threads):
        steps = config.epochs * len(_batches(len(train_targets), config.batch_size))
        optimizer = torch.optim.AdamW(
            module.parameters(),
            lr=config.learning_rate or _usual_rate(module),
            weight_decay=config.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
        generator = np.random.default_rng(seed)
        state = saved.read()
        if state is None:
            losses: list[float] = []
            scores = [validate(module.eval())]
            best, best_state = 0, copy.deepcopy(module.state_dict())
        else:
            module.load_state_dict(state["module"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            load_generator(generator, state["generator"])
            torch.set_rng_state(state["torch"])
            losses, scores, best = state["losses"], state["scores"], state["best"]
            best_state = state["best_state"] or copy.deepcopy(module.state_dict())
            _log.info("going on after epoch %d of %d", len(losses), config.epochs)
        while len(losses) < config.epochs and len(losses) - best < config.patience:
            parts = _parts(lengths, len(train_targets), config.batch_size, generator)
            losses.append(
                _epoch(module, train_inputs, parts, lengths, objective, optimizer, schedule,
                       after_step)
            )  # fmt: skip
            scores.append(validate(module.eval()))
            epoch = len(losses)
            _log.info(
                "epoch %d of %d: loss %.4f, validation %.4f",
                epoch, config.epochs, losses[-1], scores[-1],
            )  # fmt: skip
            gain = scores[-1] - scores[best]
            if (gain if higher_is_better else -gain) > 0:
                best, best_state = epoch, copy.deepcopy(module.state_dict())
            saved.write(
                {
                    "module": module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "generator": dump_generator(generator),
                    "torch": torch.get_rng_state(),
                    "losses": losses,
                    "scores": scores,
                    "best": best,
                    # those of the last epoch are there already
                    "best_state": None if best == epoch else best_state,
                }
            )
        module.load_state_dict(best_state)
    module.eval()
    return FinetuneReport(tuple(losses), tuple(scores), best)


def mask_position(info: ModelInfo) -> int | None:
    """Which input of a text model says which tokens fill a row up; None of another model."""
    if info.tokenizer is None:
        return None
    return [spec.name for spec in info.inputs].index(MASK)


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
        batch_size: Rows per call; fewer of a text model.
        threads: Threads that torch may use.

    Returns:
        `(rows, classes)` probabilities or `(rows,)` values.
    """
    raw = module_output(module, inputs, info, batch_size=batch_size, threads=threads)
    return to_scores(raw, info)


def module_output(
    module: "torch.nn.Module",
    inputs: Mapping[str, Array],
    info: ModelInfo,
    *,
    batch_size: int = 256,
    threads: int = 1,
) -> Array:
    """What a module puts out (such as logits), with the arguments of `module_scores`."""
    import torch

    parts = []
    count = len(inputs[info.inputs[0].name])
    # texts of like length together, so that little is filled up
    order = None if info.tokenizer is None else np.argsort(_lengths(inputs[MASK]), kind="stable")
    with _threads(threads), torch.inference_mode():
        for start in range(0, count, batch_size):
            end = start + batch_size
            rows = slice(start, end) if order is None else order[start:end]
            for part in batches(info, {name: inputs[name][rows] for name in inputs}):
                columns = [part[spec.name] for spec in info.inputs]
                parts.append(module(*_tensors(columns, slice(None))).numpy())
    output = np.concatenate(parts)
    return output if order is None else output[np.argsort(order)]


def _usual_objective(
    targets: Array,
    config: FinetuneConfig,
    kind: ScoreKind,
    teacher: "torch.nn.Module | None",
) -> Objective:
    """The loss of labels and, by `config.distill`, of the teacher's output."""
    import torch

    def loss_of(
        module: "torch.nn.Module", tensors: "list[torch.Tensor]", rows: Array
    ) -> "torch.Tensor":
        output = module(*tensors)
        loss = label_loss(output, torch.from_numpy(targets[rows]), kind)
        if teacher is None or config.distill == 0:
            return loss
        with torch.no_grad():
            wanted = teacher(*tensors)
        soft = distillation_loss(output, wanted, kind, config.temperature)
        return (1 - config.distill) * loss + config.distill * soft

    return loss_of


def _epoch(
    module: "torch.nn.Module",
    inputs: Sequence[Array],
    parts: Sequence[Array],
    lengths: Array | None,
    objective: Objective,
    optimizer: "torch.optim.Optimizer",
    schedule: "torch.optim.lr_scheduler.LRScheduler",
    after_step: Callable[[], None] | None,
) -> float:
    """One pass over the rows; gives the mean loss."""
    module.train()
    total = 0.0
    for rows in parts:
        tensors = _tensors(inputs, rows)
        if lengths is not None:
            tensors = [tensor[:, : lengths[rows].max()] for tensor in tensors]
        loss = objective(module, tensors, rows)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if after_step is not None:
            after_step()
        total += loss.item()
    return total / len(parts)


def _parts(
    lengths: Array | None, rows: int, size: int, generator: np.random.Generator
) -> list[Array]:
    """The rows of each batch, in random order."""
    order = generator.permutation(rows)
    if lengths is None:
        return [order[batch] for batch in _batches(rows, size)]
    for start in range(0, rows, _WINDOW * size):
        window = order[start : start + _WINDOW * size]
        order[start : start + len(window)] = window[np.argsort(lengths[window], kind="stable")]
    parts = [order[batch] for batch in _batches(rows, size)]
    return [parts[i] for i in generator.permutation(len(parts))]


def _lengths(mask: Array) -> Array:
    """Of each row: up to its last token."""
    lengths: Array = mask.shape[1] - np.argmax(mask[:, ::-1] != 0, axis=1)
    return lengths


def _usual_rate(module: "torch.nn.Module") -> float:
    attention = any("Attention" in type(part).__name__ for part in module.modules())
    return 5e-5 if attention else 1e-3


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
