"""The fine-tuning loop and its losses."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torch import nn

from trimgate.data.dataset import Array
from trimgate.training import FinetuneConfig, distillation_loss, finetune, label_loss

torch.set_num_threads(1)
DATA = load_digits()
IMAGES = (DATA.data / 16).astype(np.float32)
DIGITS = DATA.target.astype(np.int64)


def net(seed: int = 0, outputs: int = 10) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, outputs)
    )


def accuracy(module: nn.Module) -> float:
    with torch.inference_mode():
        return float((module(torch.from_numpy(IMAGES[1200:])).argmax(1).numpy()
                      == DIGITS[1200:]).mean())  # fmt: skip


def tuned(module: nn.Module, config: FinetuneConfig, **options: Any) -> Any:
    return finetune(
        module, [IMAGES[:1200]], DIGITS[:1200], config,
        **{"kind": "logit", "validate": accuracy, **options},
    )  # fmt: skip


def test_it_learns_and_keeps_the_best_epoch() -> None:
    module = net()
    report = tuned(module, FinetuneConfig(epochs=6, learning_rate=5e-3))
    assert report.scores[0] < 0.3
    assert report.scores[report.best_epoch] == max(report.scores) == accuracy(module) > 0.85
    assert report.losses[-1] < 0.5 * report.losses[0]
    assert not module.training


def test_equal_seeds_give_equal_weights_and_leave_the_global_state() -> None:
    config = FinetuneConfig(epochs=2)
    first, second, other = net(), net(), net()
    state = torch.get_rng_state()
    tuned(first, config, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    tuned(second, config, seed=3)
    tuned(other, config, seed=4)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)
    )


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    tuned(net(), FinetuneConfig(epochs=1), threads=2)
    assert torch.get_num_threads() == before


def test_no_epochs_change_nothing() -> None:
    module = net()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    report = tuned(module, FinetuneConfig(epochs=0))
    assert (report.losses, report.best_epoch, len(report.scores)) == ((), 0, 1)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("higher", [True, False])
def test_a_score_that_only_worsens_stops_early_and_restores_the_start(higher: bool) -> None:
    module = net()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    falling = itertools.count()
    sign = -1.0 if higher else 1.0
    report = tuned(
        module, FinetuneConfig(epochs=9, patience=2),
        validate=lambda _: sign * next(falling), higher_is_better=higher,
    )  # fmt: skip
    assert (len(report.losses), report.best_epoch) == (2, 0)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_single_last_row_does_not_break_batch_norm() -> None:
    report = finetune(
        net(), [IMAGES[:65]], DIGITS[:65], FinetuneConfig(epochs=1, batch_size=64),
        kind="logit", validate=accuracy,
    )  # fmt: skip
    assert len(report.losses) == 1


def test_distillation_follows_the_teacher_and_not_the_labels() -> None:
    teacher = net(1)
    tuned(teacher, FinetuneConfig(epochs=6, learning_rate=5e-3))
    frozen = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = net(2)
    wrong = (DIGITS[:1200] + 1) % 10
    config = FinetuneConfig(epochs=6, learning_rate=5e-3, distill=1.0)
    finetune(
        student, [IMAGES[:1200]], wrong, config, kind="logit", validate=accuracy, teacher=teacher
    )
    assert accuracy(student) > 0.8
    assert all(torch.equal(value, frozen[name]) for name, value in teacher.state_dict().items())


def test_regression_and_a_single_logit() -> None:
    for kind, targets in (
        ("value", (DIGITS / 9).astype(np.float32)),
        ("logit", (DIGITS > 4).astype(np.int64)),
    ):
        report = finetune(
            net(outputs=1), [IMAGES], targets, FinetuneConfig(epochs=3, learning_rate=5e-3),
            kind=kind, validate=lambda _: 0.0,
            teacher=net(5, outputs=1),
        )  # fmt: skip
        assert report.losses[-1] < report.losses[0]


@given(
    st.integers(0, 2**31), st.integers(2, 6), st.floats(0.5, 8),
    st.sampled_from(["logit", "probability", "value"]),
)  # fmt: skip
def test_distillation_loss_is_least_at_the_teacher(
    seed: int, classes: int, temperature: float, kind: Any
) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = (torch.randn(8, classes, generator=generator) for _ in range(2))
    if kind == "probability":
        teacher, student = teacher.softmax(1), student.softmax(1)
    own = distillation_loss(teacher, teacher, kind, temperature)
    other = distillation_loss(student, teacher, kind, temperature)
    assert float(own) == pytest.approx(0, abs=1e-4)
    assert float(other) >= float(own)


def test_label_loss_is_the_same_from_logits_and_from_probabilities() -> None:
    logits = torch.randn(16, 3)
    target = torch.randint(0, 3, (16,))
    torch.testing.assert_close(
        label_loss(logits, target, "logit"), label_loss(logits.softmax(1), target, "probability")
    )
    single = torch.randn(16, 1)
    positive = torch.randint(0, 2, (16,))
    torch.testing.assert_close(
        label_loss(single, positive, "logit"),
        label_loss(torch.cat([torch.zeros(16, 1), single], 1), positive, "logit"),
    )
    torch.testing.assert_close(
        label_loss(single, positive, "logit"),
        label_loss(single.sigmoid(), positive, "probability"),
    )


@pytest.mark.parametrize(
    "wrong", [{"epochs": -1}, {"distill": 1.1}, {"learning_rate": 0}, {"epoch": 3}]
)
def test_config_refuses_nonsense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FinetuneConfig(**wrong)


def test_rows_of_like_length_share_a_batch() -> None:
    rows, longest = 1000, 50
    lengths = np.random.default_rng(0).geometric(0.1, rows).clip(1, longest)
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    tokens = np.where(mask, np.arange(rows)[:, None], -1)

    def batches_of(seed: int) -> list[Array]:
        """The rows of each batch of two epochs, checked against what the module gets."""
        seen: list[Array] = []
        module = nn.Linear(1, 1)

        def objective(module: nn.Module, tensors: list[torch.Tensor], batch: Array) -> Any:
            assert torch.equal(tensors[0][:, 0], torch.from_numpy(batch))
            width = lengths[batch].max()
            assert [tuple(t.shape) for t in tensors] == [(len(batch), width)] * 2
            seen.append(batch)
            return module(torch.ones(1)).sum()

        finetune(
            module, [tokens, mask], np.zeros(rows),
            FinetuneConfig(epochs=2, batch_size=16, patience=9),
            kind="value", validate=lambda m: 0.0, seed=seed, objective=objective, mask=1,
        )  # fmt: skip
        return seen

    seen = batches_of(0)
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    for epoch in (first, second):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(rows))
    assert {frozenset(b.tolist()) for b in first} != {frozenset(b.tolist()) for b in second}
    work = sum(len(batch) * lengths[batch].max() for batch in first)
    assert work < 1.3 * lengths.sum(), "hardly anything is filled up"
    widths = [lengths[batch].max() for batch in first]
    assert widths != sorted(widths), "short rows do not come first"
    assert all(np.array_equal(a, b) for a, b in zip(seen, batches_of(0), strict=True))


@given(
    hnp.arrays(
        np.int64, st.tuples(st.integers(2, 9), st.integers(1, 9)), elements=st.integers(0, 1)
    ),
    st.integers(1, 4),
)
def test_no_token_is_cut_off(mask: Array, size: int) -> None:
    """Whichever side is filled up, and where a row has gaps or no token at all."""
    seen: list[int] = []

    def objective(module: nn.Module, tensors: list[torch.Tensor], batch: Array) -> Any:
        tokens, kept = (tensor.numpy() for tensor in tensors)
        width = kept.shape[1]
        assert np.array_equal(kept, mask[batch, :width])
        assert np.array_equal(tokens, 7 * kept)
        assert not mask[batch, width:].any()
        assert kept[:, -1].any() or not kept.any(axis=1).all(), "nothing more could be cut"
        seen.extend(batch.tolist())
        return module(torch.ones(1)).sum()

    finetune(
        nn.Linear(1, 1), [7 * mask, mask], np.zeros(len(mask)),
        FinetuneConfig(epochs=1, batch_size=size),
        kind="value", validate=lambda m: 0.0, objective=objective, mask=1,
    )  # fmt: skip
    # a single last row joins no batch
    assert len(set(seen)) == len(seen) >= len(mask) - 1
