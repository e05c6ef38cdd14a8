"""Folders that transformers writes: import, tokens, and export with equal scores."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput, MissingExtra
from trimgate.models import (
    ModelSource,
    build_inputs,
    export_onnx,
    folder_files,
    import_model,
    load_trainable,
    predict_native,
    text_feature,
    trim,
)
from trimgate.models import directory as directories
from trimgate.models.export import run_onnx

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from text_models import BERT, VOCABULARY, sentences, write_folder, write_tokenizer  # noqa: E402

torch.set_num_threads(1)

COMMON: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "num_labels": 3,
}
DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "max_relative_positions": -1,
    "pooler_hidden_size": 32,
}
MODERN: dict[str, Any] = {
    "cls_token_id": 2,
    "bos_token_id": 2,
    "sep_token_id": 3,
    "eos_token_id": 3,
    "local_attention": 8,
    "global_attn_every_n_layers": 2,
}
DISTIL: dict[str, Any] = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "distilbert": ("DistilBert", DISTIL),
    "roberta": ("Roberta", {"type_vocab_size": 1}),
    "electra": ("Electra", {"embedding_size": 16}),
    "mpnet": ("MPNet", {}),
    "albert": ("Albert", {"embedding_size": 16}),
    "deberta-v2": ("DebertaV2", DEBERTA),
    "modernbert": ("ModernBert", MODERN),
}
WITH_TYPES = ("bert", "electra", "albert")


def config(kind: str, **changes: Any) -> dict[str, Any]:
    name, own = ENCODERS[kind]
    architectures = [f"{name}ForSequenceClassification"]
    known = {"model_type": kind, "architectures": architectures, **COMMON, **own, **changes}
    if kind == "distilbert":
        known = {k: v for k, v in known.items() if not k.startswith(("hidden_size", "num_hid"))}
    return known


@pytest.fixture(scope="module")
def rows() -> Dataset:
    data = sentences(120)
    return Dataset(data.features, np.arange(len(data)) % 3)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("text") / "bert", config("bert"))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A folder of one's own with a BERT of three classes."""
    return Path(shutil.copytree(written, tmp_path / "user"))


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_encoder_says_the_same_in_onnx(kind: str, rows: Dataset, tmp_path: Path):
    folder = write_folder(tmp_path / "user", config(kind))
    info = import_model(ModelSource(path=folder), rows, tmp_path / "model")
    assert (info.framework, info.family, info.task) == ("torch", "transformer", "multiclass")
    assert (info.name, info.labels, info.score_kind) == ("user", (0, 1, 2), "logit")
    names = ["input_ids", "attention_mask", *["token_type_ids"] * (kind in WITH_TYPES)]
    assert [spec.name for spec in info.inputs] == names
    assert all(s.shape == (-1, -1) and s.features == ("text",) for s in info.inputs)

    model = load_trainable(tmp_path / "model")
    changes = export_onnx(model, info, rows, tmp_path / "model.onnx")
    assert changes["notes"]["optimize_graph"]["parity"]["max_difference"] < 1e-5
    final = info.model_copy(update={"outputs": changes["outputs"], "score_output": "scores"})
    # one row alone, short and long, and rows of different length together
    for picked in ([0], [1], [2], [0, 1, 2, 3, 4]):
        inputs = build_inputs(info, rows.take(picked).features)
        expected = predict_native(model, info, inputs)
        found = run_onnx(tmp_path / "model.onnx", final, inputs)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_scores_are_those_of_transformers_itself(rows: Dataset, tmp_path: Path, folder: Path):
    import transformers

    info = import_model(ModelSource(path=folder), rows, tmp_path / "model")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]"
    )
    given = tokenizer(rows.features["text"].tolist(), padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = theirs(**given).logits.numpy()
    found = predict_native(
        load_trainable(tmp_path / "model"), info, build_inputs(info, rows.features)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_detailed_gives_what_distillation_needs():
    from trimgate.models import transformers

    module = transformers.build(config("bert"))
    ids = torch.ones(2, 5, dtype=torch.int64)
    logits, hidden, attention = module.detailed(ids, ids)
    torch.testing.assert_close(logits, module(ids, ids))
    assert [tuple(h.shape) for h in hidden] == [(2, 5, 32)] * 3
    assert [tuple(a.shape) for a in attention] == [(2, 2, 5, 5)] * 2


def test_tokens_are_cut_and_filled_up(rows: Dataset, tmp_path: Path, folder: Path):
    write_tokenizer(folder, max_length=6)
    info = import_model(ModelSource(path=folder), rows, tmp_path / "model")
    assert info.tokenizer is not None
    assert info.tokenizer.max_length == 6
    texts = np.array(["the film", "the the the the the the the the"], dtype=object)
    inputs = build_inputs(info, {"text": texts})
    the = VOCABULARY["the"]
    assert inputs["input_ids"].tolist() == [
        [2, the, VOCABULARY["film"], 3, 0, 0],
        [2, the, the, the, the, 3],
    ]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert inputs["token_type_ids"].tolist() == [[0] * 6] * 2
    assert trim({n: v[:1] for n, v in inputs.items()})["input_ids"].shape == (1, 4)
    assert build_inputs(info, {"text": texts[:0]})["input_ids"].shape == (0, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": np.array([None], dtype=object)}, "text: has missing values"),
        ({"text": np.array([3], dtype=object)}, "text = 3: the model needs text"),
        ({"other": np.array(["a"], dtype=object)}, "text: the model needs this feature"),
    ],
)
def test_rows_that_are_no_text(
    values: dict[str, Any], message: str, rows: Dataset, tmp_path: Path, folder: Path
):
    info = import_model(ModelSource(path=folder), rows, tmp_path / "model")
    with pytest.raises(InvalidInput, match=message):
        build_inputs(info, values)


def test_the_tokenizer_travels(rows: Dataset, tmp_path: Path, folder: Path):
    info = import_model(ModelSource(path=folder), rows, tmp_path / "model")
    assert sorted(info.files) == ["tokenizer.json", "weights.safetensors"]
    assert info.size == sum(file.size for file in info.files.values())
    with directories.writing(tmp_path / "child") as partial:
        (partial / "model.onnx").write_bytes(b"not read here")
        made = directories.seal(partial, info)
    assert made.files["tokenizer.json"] == info.files["tokenizer.json"]
    assert made.digest != info.digest
    (tmp_path / "child" / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidInput, match="altered"):
        directories.read(tmp_path / "child", verify=True)


@pytest.mark.parametrize(
    ("names", "labels", "known"),
    [
        (["bad", "good"], ["good", "bad"], ("bad", "good")),
        (["LABEL_0", "LABEL_1"], [0, 1], (0, 1)),
        (["LABEL_0", "LABEL_1"], [True, False], (False, True)),
        (["bad", "good"], [0, 1], (0, 1)),
        (["5", "3"], [3, 5], (5, 3)),
    ],
)
def test_labels_in_the_order_of_the_outputs(
    names: list[str], labels: list[Any], known: tuple[Any, ...], tmp_path: Path
):
    own = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    folder = write_folder(tmp_path / "user", config("bert", num_labels=2, **own))
    data = sentences(20)
    given = np.array(labels * 10, dtype=object if isinstance(labels[0], str) else None)
    info = import_model(ModelSource(path=folder), Dataset(data.features, given), tmp_path / "model")
    assert (info.task, info.labels) == ("binary", known)


def test_regression(tmp_path: Path):
    folder = write_folder(tmp_path / "user", config("bert", num_labels=1))
    data = sentences(20)
    data = Dataset(data.features, data.labels.astype(np.float64))
    info = import_model(ModelSource(path=folder), data, tmp_path / "model")
    assert (info.task, info.score_kind, info.labels) == ("regression", "value", ())


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damaged(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"damaged")


def no_head(folder: Path) -> None:
    change(folder, architectures=["BertModel"])


def headless_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    kept = {name: t for name, t in state.items() if "classifier" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def change(folder: Path, **values: Any) -> None:
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **values}))


def several_labels(folder: Path) -> None:
    change(folder, problem_type="multi_label_classification")


def unknown_type(folder: Path) -> None:
    change(folder, model_type="no-such-model")


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def other_tokenizer(folder: Path) -> None:
    change(folder, vocab_size=len(VOCABULARY))
    known = json.loads((folder / "tokenizer.json").read_text())
    known["model"]["vocab"]["more"] = len(VOCABULARY)
    (folder / "tokenizer.json").write_text(json.dumps(known))


def no_padding(folder: Path) -> None:
    change(folder, pad_token_id=None)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_tokenizer, "has no tokenizer.json; write it"),
        (pickled, "pytorch_model.bin may run code .*; write model.safetensors"),
        (no_weights, "has no weights"),
        (damaged, "the weights cannot be loaded"),
        (no_head, "BertModel has no classification head; fine-tune it"),
        (headless_weights, "lack 2 tensors of the right shape, such as classifier"),
        (several_labels, "gives several labels to one row"),
        (unknown_type, "no-such-model': transformers .* does not take this config"),
        (no_config, "folder without config.json"),
        (broken_config, "config.json: is not JSON"),
        (broken_tokenizer, "is not a tokenizer that can be read"),
        (other_tokenizer, "tokens, and the model knows"),
        (no_padding, "pad_token_id.*fills up short rows"),
    ],
)
def test_wrong_folders(spoil: Any, message: str, rows: Dataset, tmp_path: Path, folder: Path):
    spoil(folder)
    with pytest.raises(InvalidInput, match=message) as caught:
        import_model(ModelSource(path=folder), rows, tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_code_beside_the_model_is_not_run(rows: Dataset, tmp_path: Path, folder: Path):
    names = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    change(folder, auto_map=names)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').write('ran')")
    info = import_model(ModelSource(path=folder), rows, tmp_path / "model")
    load_trainable(tmp_path / "model")
    assert not (tmp_path / "ran").exists()
    assert str(tmp_path) not in info.model_dump_json()


def test_positions_that_begin_after_the_padding(rows: Dataset, tmp_path: Path):
    folder = write_folder(tmp_path / "user", config("roberta", max_position_embeddings=20))
    info = import_model(ModelSource(path=folder), rows, tmp_path / "model")
    assert info.tokenizer is not None
    assert info.tokenizer.max_length == 19


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"n": np.zeros(6)}, "no column of it"),
        ({"a": ["x"] * 6, "b": ["y"] * 6}, "columns a, b; which of them is it"),
    ],
)
def test_not_one_text_column(features: dict[str, Any], message: str, tmp_path: Path, folder: Path):
    columns = {
        n: v if isinstance(v, np.ndarray) else np.array(v, dtype=object)
        for n, v in features.items()
    }
    with pytest.raises(InvalidInput, match=message):
        import_model(
            ModelSource(path=folder), Dataset(columns, np.arange(6) % 3), tmp_path / "model"
        )


def test_the_column_that_is_the_text(tmp_path: Path):
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "config.json").write_text(json.dumps({**BERT, "id2label": {0: "bad", 1: "good"}}))
    moods = np.array(["good", "bad", None], dtype=object)
    words = np.array(["so so", "fine", "no"], dtype=object)
    assert text_feature(folder, {"n": np.arange(3), "mood": moods, "words": words}) == "words"
    assert text_feature(folder, {"title": words, "Text": words}) == "Text"
    with pytest.raises(InvalidInput, match="2 columns of it: title, words; name it with --text"):
        text_feature(folder, {"title": words, "words": words})
    with pytest.raises(InvalidInput, match="0 columns of it; bring the texts"):
        text_feature(folder, {"mood": moods})
    assert [f.name for f in folder_files(folder)] == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("package", ["transformers", "tokenizers"])
def test_what_is_not_installed_is_named(
    package: str,
    rows: Dataset,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package}.*trimgate\[text\]"):
        import_model(ModelSource(path=folder), rows, tmp_path / "model")
