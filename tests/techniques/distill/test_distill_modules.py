"""Distillation of torch modules that a user's builder makes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from techniques.distill.conftest import TARGET, context, images, numbers

from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import directory, load_trainable
from trimgate.techniques import Context
from trimgate.techniques.distill import (
    TECHNIQUE,
    DistillConfig,
    LossWeights,
    _inside,
    _modules,
)
from trimgate.techniques.distill._compare import Comparison
from trimgate.techniques.distill._lesson import Lesson, pupil_of
from trimgate.training import attention_transfer_loss, hidden_loss

torch.set_num_threads(1)

Teach = Callable[..., Path]


def config(student: dict[str, Any], **said: Any) -> DistillConfig:
    return DistillConfig.model_validate(
        {"student": student, "epochs": 3, "learning_rate": 3e-3, **said}
    )


@pytest.fixture(scope="module")
def pictures() -> Context:
    return context(images(400, 1), images(300, 2), "accuracy")


@pytest.mark.parametrize(
    "loss", [{}, {"logits": 0.5, "hidden": 0.5, "attention": 0.5}], ids=["logits", "inside"]
)
def test_cnn(
    loss: dict[str, float], teach: Teach, pictures: Context, conformance: Any, tmp_path: Path
) -> None:
    source = teach("cnn", images(1500, 3))
    step = config({"arguments": {"width": 6}}, loss=loss)
    info = conformance.check(TECHNIQUE, step, source, pictures, tmp_path)
    notes = info.notes["distill"]
    assert info.builder_arguments == {"width": 6}
    assert notes["parameters_after"] < 0.3 * notes["parameters_before"]
    assert notes["epochs"] == notes["control_epochs"] == 3
    assert notes["kept"] == ("student" if notes["student"] >= notes["control"] else "control")


def test_mlp_with_unlabeled_and_synthetic_rows(
    teach: Teach, conformance: Any, tmp_path: Path
) -> None:
    rows = context(numbers(300, 1), numbers(300, 2), "roc_auc")
    numbers(500, 4).frame().to_parquet(tmp_path / "more.parquet")
    step = config(
        {"arguments": {"hidden": 8}}, unlabeled=str(tmp_path / "more.parquet"), augment=200,
        loss={"hidden": 1.0},
    )  # fmt: skip
    source = teach("mlp", numbers(2000, 3))
    info = conformance.check(TECHNIQUE, step, source, rows, tmp_path / "out")
    notes = info.notes["distill"]
    assert (notes["unlabeled_rows"], notes["synthetic_rows"]) == (500, 200)
    # as many steps on labels alone as the student took on all rows
    assert notes["control_epochs"] > 2 * notes["epochs"]


def test_regression(teach: Teach, conformance: Any, tmp_path: Path) -> None:
    rows = context(numbers(300, 1, task="regression"), numbers(300, 2, task="regression"), "rmse")
    source = teach("regressor", numbers(2000, 3, task="regression"))
    step = config({"arguments": {"hidden": 6}})
    info = conformance.check(TECHNIQUE, step, source, rows, tmp_path)
    assert info.notes["distill"]["higher_is_better"] is False


def test_a_clean_teacher_helps_where_labels_are_noisy(teach: Teach, tmp_path: Path) -> None:
    """Planted: the teacher learnt 4000 right labels, the student has 500 rows, 35 % wrong."""
    rows = context(numbers(500, 1, noise=0.35), numbers(2000, 2), "accuracy")
    source = teach("mlp", numbers(4000, 3), epochs=12)
    step = config(
        {"arguments": {"hidden": 16}}, epochs=20, loss={"labels": 0}, augment=1500, patience=20
    )
    TECHNIQUE.apply(source, tmp_path / "out", step, rows)
    notes = directory.read(tmp_path / "out").notes["distill"]
    assert notes["teacher"] > 0.85
    assert notes["added"]["low"] > 0.03, notes
    assert notes["kept"] == "student"


def test_a_teacher_that_knows_no_more_adds_nothing_that_can_be_shown(
    teach: Teach, tmp_path: Path
) -> None:
    """Planted: the teacher hardly learnt anything, the labels are right and many."""
    rows = context(numbers(1500, 1), numbers(500, 2), "accuracy")
    source = teach("mlp", numbers(60, 3), epochs=1)
    TECHNIQUE.apply(source, tmp_path / "out", config({"arguments": {"hidden": 16}}), rows)
    notes = directory.read(tmp_path / "out").notes["distill"]
    assert notes["added"]["low"] <= 0
    kept_control = notes["kept"] == "control"
    assert kept_control == (notes["control"] > notes["student"])


def test_keep_says_which_of_the_two_it_is(teach: Teach, tmp_path: Path) -> None:
    rows = context(numbers(800, 1), numbers(500, 2), "accuracy")
    source = teach("mlp", numbers(60, 3), epochs=1)
    found = {}
    for keep in ("better", "student"):
        step = config({"arguments": {"hidden": 16}}, keep=keep, loss={"labels": 0})
        info = TECHNIQUE.apply(source, tmp_path / keep, step, rows)
        found[keep] = info.notes["distill"]["kept"], info.digest
    assert [found[keep][0] for keep in ("better", "student")] == ["control", "student"]
    assert found["better"][1] != found["student"][1]


@pytest.mark.parametrize("label_weight", [1.0, 0.5])
def test_without_a_teacher_the_student_is_the_control(
    label_weight: float,
    teach: Teach,
    pictures: Context,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = teach("cnn", images(1500, 3))
    step = config({"arguments": {"width": 6}}, loss={"logits": 0, "labels": label_weight})
    student = TECHNIQUE.apply(source, tmp_path / "student", step, pictures)
    notes = student.notes["distill"]
    assert (notes["added"]["value"], notes["kept"]) == (0, "student")
    usual = _modules.compare

    def keeps_control(*arguments: Any) -> Comparison:
        return dataclasses.replace(usual(*arguments), keeps_student=False)

    monkeypatch.setattr(_modules, "compare", keeps_control)
    control = TECHNIQUE.apply(source, tmp_path / "control", step, pictures)
    assert control.digest == student.digest
    # and with a teacher it is not
    step = config({"arguments": {"width": 6}}, loss={"logits": 1, "labels": label_weight})
    taught = TECHNIQUE.apply(source, tmp_path / "taught", step, pictures)
    assert taught.digest == control.digest, "the control looks at the teacher"
    monkeypatch.setattr(_modules, "compare", usual)
    step = step.model_copy(update={"keep": "student"})
    taught = TECHNIQUE.apply(source, tmp_path / "other", step, pictures)
    assert taught.digest != control.digest


def test_start_from_the_teacher(teach: Teach, tmp_path: Path) -> None:
    """A student of the teacher's own shape that begins as the teacher is as good at once."""
    rows = context(numbers(300, 1), numbers(300, 2), "accuracy")
    source = teach("mlp", numbers(2000, 3))
    step = config(
        {"builder": "techniques.distill.distill_nets:mlp", "start": "teacher"},
        epochs=1, learning_rate=1e-6,
    )  # fmt: skip
    notes = TECHNIQUE.apply(source, tmp_path / "out", step, rows).notes["distill"]
    assert notes["start"] == "teacher"
    assert abs(notes["student"] - notes["teacher"]) < 0.02


def _lesson(
    teach: Teach, weights: LossWeights, views: Any = None
) -> tuple[Any, Lesson, list[torch.Tensor]]:
    from techniques.distill import distill_nets

    source = teach("cnn", images(1500, 3))
    teacher = load_trainable(source)
    rows = images(64, 5)
    tensors = [torch.from_numpy(rows.features["image"])]
    torch.manual_seed(0)
    student = distill_nets.cnn(width=6)
    views = _inside.of_layers(student, teacher, (), tensors, attention=True)
    answers = teacher(*tensors).detach().numpy()
    lesson = Lesson(weights, "logit", rows.labels, answers, 2.0, teacher, views)
    return pupil_of(student.eval(), lesson, tensors), lesson, tensors


def test_gradients_reach_the_student_only(teach: Teach) -> None:
    pupil, lesson, tensors = _lesson(teach, LossWeights(logits=1, hidden=1, attention=1, labels=1))
    before = {n: p.clone() for n, p in lesson.teacher.named_parameters()}
    loss = lesson(pupil.train(), tensors, np.arange(64))
    loss.backward()
    assert all(p.grad is None for p in lesson.teacher.parameters())
    assert all(torch.equal(p, before[n]) for n, p in lesson.teacher.named_parameters())
    assert all(p.grad is not None for p in pupil.student.parameters())
    assert all(p.grad is not None for p in pupil.projections.parameters())


@pytest.mark.parametrize("part", ["hidden", "attention", "logits"])
def test_each_loss_goes_down(part: str, teach: Teach) -> None:
    only = {"logits": 0.0, "hidden": 0.0, "attention": 0.0, "labels": 0.0, part: 1.0}
    pupil, lesson, tensors = _lesson(teach, LossWeights(**only))
    optimizer = torch.optim.AdamW(pupil.train().parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = lesson(pupil, tensors, np.arange(64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses


def test_losses_are_nothing_for_equal_features() -> None:
    features = torch.randn(4, 8, 5, 5)
    assert attention_transfer_loss(features, features) == 0
    assert hidden_loss(features, features) == 0
    assert attention_transfer_loss(features, torch.randn(4, 3, 7, 7)) > 0
    assert (
        hidden_loss(features.mean(dim=(0, 1, 2), keepdim=True).expand(4, 8, 5, 5), features) > 0.9
    )


def test_layers_are_paired_by_resolution(teach: Teach) -> None:
    _, lesson, _ = _lesson(teach, LossWeights())
    assert lesson.views is not None
    assert lesson.views.teacher == _inside.LayerView(("0", "1", "2"), True)


def test_a_killed_step_goes_on(
    teach: Teach, pictures: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = teach("cnn", images(1500, 3))
    step = config({"arguments": {"width": 6}}, loss={"hidden": 0.5})
    kept = dataclasses.replace(pictures, work=tmp_path / "work")
    plain = TECHNIQUE.apply(source, tmp_path / "plain", step, pictures)
    calls = []
    usual = Lesson.__call__

    def dies(self: Lesson, *arguments: Any) -> torch.Tensor:
        calls.append(0)
        if len(calls) > 18:  # in the second epoch
            raise KeyboardInterrupt
        return usual(self, *arguments)

    monkeypatch.setattr(Lesson, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        TECHNIQUE.apply(source, tmp_path / "killed", step, kept)
    assert not (tmp_path / "killed").exists()
    assert (tmp_path / "work" / "student.ckpt").is_file()
    monkeypatch.setattr(Lesson, "__call__", usual)
    assert TECHNIQUE.apply(source, tmp_path / "killed", step, kept).digest == plain.digest


def test_effort_takes_fewer_epochs(teach: Teach, pictures: Context, tmp_path: Path) -> None:
    source = teach("cnn", images(1500, 3))
    quick = dataclasses.replace(pictures, effort=0.3)
    step = config({"arguments": {"width": 6}})
    assert TECHNIQUE.apply(source, tmp_path / "out", step, quick).notes["distill"]["epochs"] == 1


@pytest.mark.parametrize(
    ("student", "said", "words"),
    [
        ({"layers": 2}, {}, "encoders"),
        ({}, {}, "told which student"),
        ({"estimator": "mlp"}, {"learning_rate": None, "epochs": 8}, "tables"),
        ({"arguments": {"width": 6}}, {"augment": 10}, "tables"),
        ({"builder": "techniques.distill.distill_nets:wrong_classes"}, {}, "puts out"),
    ],
)
def test_refusals(
    student: dict[str, Any], said: dict[str, Any], words: str,
    teach: Teach, pictures: Context, conformance: Any, tmp_path: Path,
) -> None:  # fmt: skip
    source = teach("cnn", images(1500, 3))
    step = config(student, **said)
    assert words in conformance.check_refusal(TECHNIQUE, step, source, pictures, tmp_path)


def test_probabilities_need_probabilities(teach: Teach, pictures: Context, tmp_path: Path) -> None:
    source = teach("cnn", images(1500, 3), softmax=True)
    assert directory.read(source).score_kind == "probability"
    step = config({"arguments": {"width": 6, "softmax": False}})
    with pytest.raises(NotApplicable, match="softmax"):
        TECHNIQUE.apply(source, tmp_path / "out", step, pictures)


def test_names_of_layers_are_checked(teach: Teach, pictures: Context, tmp_path: Path) -> None:
    source = teach("cnn", images(1500, 3))
    student = {"arguments": {"width": 6}}
    for pairs, error, words in (
        ([["0", "9"]], InvalidInput, "teacher has no such layer"),
        ([["0", "4"]], NotApplicable, "cannot be compared"),
    ):
        step = config(student, pairs=pairs, loss={"hidden": 1})
        with pytest.raises(error, match=words):
            TECHNIQUE.apply(source, tmp_path / "out", step, pictures)
    named = config(student, pairs=[["1", "0"]], loss={"hidden": 1, "attention": 1}, epochs=1)
    assert TECHNIQUE.apply(source, tmp_path / "out", named, pictures).builder_arguments


def test_suggestions(teach: Teach) -> None:
    info = directory.read(teach("cnn", images(1500, 3), width=16))
    found = TECHNIQUE.suggest(info, TARGET, frozenset())
    assert [(s.step["student"], s.usual) for s in found] == [({"arguments": {"width": 8}}, False)]
