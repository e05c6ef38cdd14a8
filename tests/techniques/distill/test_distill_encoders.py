"""Distillation of transformers: fewer layers, narrower layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from text_models import BERT, sentences, write_folder

from trimgate.errors import InvalidInput
from trimgate.models import (
    ModelSource,
    directory,
    export_onnx,
    import_model,
    load_trainable,
)
from trimgate.models.transformers import build, dump_config, parse_config
from trimgate.techniques import Context, parse_step
from trimgate.techniques.distill import TECHNIQUE, DistillConfig, Student, _encoders, _inside
from trimgate.techniques.prune import PruneConfig

torch.set_num_threads(1)

SMALL = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 40, "num_labels": 2, "pad_token_id": 0,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "mpnet": {"pad_token_id": 1},
    "deberta-v2": {"pooler_hidden_size": 32, "relative_attention": True, "pos_att_type": ["c2p"]},
    "distilbert": {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 64},
    "modernbert": {"global_attn_every_n_layers": 2},
}


def config(student: dict[str, Any], **said: Any) -> DistillConfig:
    return DistillConfig.model_validate(
        {"student": student, "epochs": 2, "learning_rate": 1e-3, **said}
    )


def full(kind: str) -> dict[str, Any]:
    return dump_config(parse_config({"model_type": kind, **SMALL, **KINDS[kind]}))


@pytest.mark.parametrize(
    ("student", "loss"),
    [
        ({"layers": [0, 2]}, {"hidden": 0.3, "attention": 0.3}),
        ({"layers": 2, "width": 0.5}, {"hidden": 0.3, "attention": 0.3}),
    ],
    ids=["layers", "half"],
)
def test_layers_and_width(
    student: dict[str, Any], loss: dict[str, float],
    text_model: Path, text_context: Context, conformance: Any, tmp_path: Path,
) -> None:  # fmt: skip
    step = config(student, loss=loss)
    info = conformance.check(TECHNIQUE, step, text_model, text_context, tmp_path)
    notes = info.notes["distill"]
    assert info.builder_arguments["config"]["num_hidden_layers"] == 2
    assert info.tokenizer == directory.read(text_model).tokenizer
    assert notes["parameters_after"] < notes["parameters_before"]
    assert notes["student"] > 0.6
    onnx = tmp_path / "onnx"
    onnx.mkdir()
    export_onnx(
        load_trainable(tmp_path / "first"), info, text_context.validation, onnx / "model.onnx"
    )


def test_usual_student_is_half_of_the_layers(text_model: Path) -> None:
    info = directory.read(text_model)
    suggested = TECHNIQUE.suggest(info, None, frozenset())  # type: ignore[arg-type]
    assert [s.usual for s in suggested] == [False, False], "three layers are few"
    deep = {**info.builder_arguments["config"], "num_hidden_layers": 6}
    six = info.model_copy(update={"builder_arguments": {"config": deep}})
    found = TECHNIQUE.suggest(six, None, frozenset())  # type: ignore[arg-type]
    assert [(s.step["student"], s.usual) for s in found] == [
        ({"layers": 3}, True),
        ({"layers": 3, "width": 0.5}, False),
    ]
    assert parse_step(found[0].step).title() == "distill 3 layers"


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    "student", [{"layers": 2}, {"width": 0.5}, {"layers": 2, "ffn": 0.25}], ids=str
)
def test_encoders_of_every_kind(kind: str, student: dict[str, Any]) -> None:
    """The student runs, begins with the teacher's tensors, and its inside can be compared."""
    teacher_config, wanted = full(kind), Student.model_validate(student)
    assert _encoders.problem(teacher_config, wanted) is None
    made = _encoders.plan(teacher_config, wanted)
    torch.manual_seed(0)
    teacher, small = build(teacher_config), build(made.config)
    ids = torch.randint(2, 60, (5, 12))
    example = [ids, torch.ones_like(ids), torch.zeros_like(ids)][: len(teacher.inputs)]
    copied = _encoders.begin(small, teacher, made, example)
    total = len(small.state_dict())
    assert copied >= 0.9 * total, f"{copied} of {total}"
    views = _inside.of_encoders(made, attention=True)
    ours, theirs = views.student(small, example), views.teacher(teacher, example)
    assert [h.shape[:2] for h in ours.hidden] == [h.shape[:2] for h in theirs.hidden]
    assert len(ours.attention) == len(theirs.attention) == len(made.kept)
    if "layers" in student and "ffn" not in student and kind not in ("albert", "deberta-v2"):
        # what stands before the first layer that is left out is the same
        assert torch.allclose(ours.hidden[0], theirs.hidden[0], atol=1e-6)


def test_layers_are_those_that_were_asked_for() -> None:
    teacher_config = full("bert")
    made = _encoders.plan(teacher_config, Student(layers=(1, 3)))
    assert (made.kept, made.targets) == ((1, 3), (3, 4))
    assert _encoders.plan(teacher_config, Student(layers=3)).kept == (0, 1, 2)
    six = {**teacher_config, "num_hidden_layers": 6}
    assert _encoders.plan(six, Student(layers=3)).kept == (0, 2, 4)
    torch.manual_seed(0)
    teacher, small = build(teacher_config), build(made.config)
    ids = torch.randint(2, 60, (2, 7))
    _encoders.begin(small, teacher, made, [ids, torch.ones_like(ids), torch.zeros_like(ids)])
    before, after = teacher.state_dict(), small.state_dict()
    stem = "model.bert.encoder.layer.{}.intermediate.dense.weight"
    assert torch.equal(after[stem.format(0)], before[stem.format(1)])
    assert torch.equal(after[stem.format(1)], before[stem.format(3)])


def test_narrow_students_keep_the_important_parts() -> None:
    """Planted: only the first head and every fourth neuron of the teacher do anything."""
    teacher_config = full("bert")
    torch.manual_seed(0)
    teacher = build(teacher_config)
    with torch.no_grad():
        for layer in teacher.model.bert.encoder.layer:
            layer.attention.output.dense.weight[:, 8:] = 0
            layer.output.dense.weight[:, [i for i in range(64) if i % 4]] = 0
    narrow_heads = _encoders.plan(teacher_config, Student(ffn=0.25))
    small = build(narrow_heads.config)
    ids = torch.randint(2, 60, (3, 9))
    example = [ids, torch.ones_like(ids), torch.zeros_like(ids)]
    _encoders.begin(small, teacher, narrow_heads, example)
    assert torch.allclose(small(*example), teacher(*example), atol=1e-5)
    made = _encoders.plan(teacher_config, Student(width=0.5))
    narrow = build(made.config)
    _encoders.begin(narrow, teacher, made, example)
    kept = narrow.model.bert.encoder.layer[0].attention.output.dense.weight
    assert (kept[:, :8] != 0).any(), "the head that matters is gone"


def test_start_at_random(text_model: Path, text_context: Context, tmp_path: Path) -> None:
    """Truthful: a student that begins at random learns little in one epoch, and the notes say."""
    step = config({"layers": 1, "start": "random"}, epochs=1, learning_rate=1e-4)
    notes = TECHNIQUE.apply(text_model, tmp_path / "out", step, text_context).notes["distill"]
    assert notes["start"] == "random"
    assert notes["added"]["low"] <= 0


def test_unlabeled_sentences(text_model: Path, text_context: Context, tmp_path: Path) -> None:
    import pandas

    texts = sentences(200, 9).features["text"]
    pandas.DataFrame({"text": texts, "source": 1}).to_csv(tmp_path / "more.csv", index=False)
    step = config({"layers": 1}, unlabeled=str(tmp_path / "more.csv"), epochs=1)
    notes = TECHNIQUE.apply(text_model, tmp_path / "out", step, text_context).notes["distill"]
    assert notes["unlabeled_rows"] == 200
    pandas.DataFrame({"txt": texts}).to_csv(tmp_path / "wrong.csv", index=False)
    step = config({"layers": 1}, unlabeled=str(tmp_path / "wrong.csv"))
    with pytest.raises(InvalidInput, match=r"wrong\.csv.*'text'"):
        TECHNIQUE.apply(text_model, tmp_path / "wrong", step, text_context)


@pytest.mark.parametrize(
    ("student", "said", "words"),
    [
        ({"layers": 3}, {}, "all 3 layers"),
        ({"layers": [1, 7]}, {}, "layer 8"),
        ({"estimator": "ridge"}, {"epochs": 8, "learning_rate": None}, "tables"),
        ({"layers": 2}, {"augment": 5}, "tables"),
        ({"layers": 2}, {"pairs": [["a", "b"]], "loss": {"hidden": 1}}, "positions"),
    ],
)
def test_refusals(
    student: dict[str, Any], said: dict[str, Any], words: str,
    text_model: Path, text_context: Context, conformance: Any, tmp_path: Path,
) -> None:  # fmt: skip
    step = config(student, **said)
    assert words in conformance.check_refusal(TECHNIQUE, step, text_model, text_context, tmp_path)


def test_a_model_that_no_config_describes_is_refused(text_model: Path) -> None:
    info = directory.read(text_model)
    pruned = info.model_copy(update={"builder": "trimgate.techniques.prune:rebuild"})
    words = TECHNIQUE.refusal(pruned, config({"layers": 2}), None)  # type: ignore[arg-type]
    assert words is not None
    assert "as they were brought" in words


def test_order() -> None:
    before = [PruneConfig(method="heads")]
    assert "undoes prune" in str(TECHNIQUE.order_problem(config({"layers": 2}), before))
    assert TECHNIQUE.order_problem(config({"layers": 2}), [config({"layers": 4})]) is None
    again = TECHNIQUE.order_problem(config({"arguments": {"width": 8}}), [config({"layers": 4})])
    assert "undoes distill" in str(again)


def test_layers_of_a_student_can_be_dropped_again(text_context: Context, tmp_path: Path) -> None:
    path = write_folder(tmp_path / "bert", {**BERT, "num_hidden_layers": 4})
    import_model(ModelSource(path=path), text_context.train, tmp_path / "source")
    first = TECHNIQUE.apply(
        tmp_path / "source", tmp_path / "a", config({"layers": 2}, epochs=1), text_context
    )
    second = TECHNIQUE.apply(
        tmp_path / "a", tmp_path / "b", config({"layers": 1}, epochs=1), text_context
    )
    assert second.parent == first.digest
    assert second.builder_arguments["config"]["num_hidden_layers"] == 1
