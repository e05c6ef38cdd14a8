"""Steps that are kept by content, and recipes that are tried on a sample."""

import json
import shutil

import numpy as np
import pytest

from trimgate import tasks
from trimgate.data import Dataset, load_splits
from trimgate.models.directory import read
from trimgate.tasks import decode

TARGET = {"name": "cloud-cpu", "batch_sizes": [1, 100]}
PRUNE = {"technique": "prune", "amount": 0.5}


@pytest.fixture(scope="module")
def world(cancer, tmp_path_factory):
    """A forest's model directory and its splits, as the tasks before leave them."""
    folder = tmp_path_factory.mktemp("world")
    splits = load_splits(cancer / "rows.parquet", label="target")
    for name, data in splits.named().items():
        data.save(folder / name)
    tasks.import_model(
        str(cancer / "model.skops"), str(folder / "train"), str(folder / "model"),
        name="cancer", builder="", builder_arguments={}, allow_pickle=False, task="", scores="",
        source_digest="",
    )  # fmt: skip
    return folder


def apply(world, out, step=None, *, source="model", train="train", **changes):
    tasks.apply_technique(
        str(world / source), str(world / train), str(world / "validation"), str(out),
        step or {"technique": "optimize_graph"},
        metric="roc_auc", target=TARGET, seed=0, **changes,
    )  # fmt: skip
    refused = out / "refused.json"
    return json.loads(refused.read_text()) if refused.is_file() else read(out, verify=True)


def test_a_step_is_done_once(world, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMGATE_CACHE", str(tmp_path / "cache"))
    first = apply(world, tmp_path / "first")
    from trimgate.techniques import get

    def fail(*_):
        raise AssertionError("computed twice")

    with monkeypatch.context() as patch:
        patch.setattr(type(get("optimize_graph")), "apply", fail)
        again = apply(world, tmp_path / "again")
        assert again == first
        for change in ({"technique": "optimize_graph", "opset": 17},):
            with pytest.raises(AssertionError, match="computed twice"):
                apply(world, tmp_path / "other", change)


def test_without_a_cache_nothing_is_kept(world, tmp_path, monkeypatch):
    monkeypatch.delenv("TRIMGATE_CACHE", raising=False)
    apply(world, tmp_path / "first")
    assert [p.name for p in tmp_path.iterdir()] == ["first"]


def test_a_damaged_entry_is_made_again(world, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMGATE_CACHE", str(tmp_path / "cache"))
    first = apply(world, tmp_path / "first")
    shutil.rmtree(tmp_path / "first")
    (kept,) = (tmp_path / "cache").glob("*/*/model.onnx")
    kept.write_bytes(kept.read_bytes()[:-1])
    assert apply(world, tmp_path / "again").digest == first.digest


def test_other_rows_are_another_step(world, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMGATE_CACHE", str(tmp_path / "cache"))
    apply(world, tmp_path / "first", PRUNE)
    Dataset.load(world / "train").take(slice(0, 100)).save(world / "fewer")
    apply(world, tmp_path / "second", PRUNE, train="fewer")
    assert len(list((tmp_path / "cache").glob("*/*/model.json"))) == 2


def test_steps_note_what_they_took(world, tmp_path):
    pruned = apply(world, tmp_path / "a", PRUNE)
    assert len(pruned.notes["seconds"]) == 1
    shutil.copytree(tmp_path / "a", world / "pruned", dirs_exist_ok=True)
    assert len(apply(world, tmp_path / "b", source="pruned").notes["seconds"]) == 2


def test_recipes_that_did_not_go_on_are_not_carried_out(world, tmp_path):
    out = {"x": "ranked 3 of 3", "y": "hopeless", "z": ""}
    refused = apply(world, tmp_path / "a", recipes=["x", "y"], screened=out)
    assert refused["reason"] == {
        "x": "not tried in full: ranked 3 of 3",
        "y": "not tried in full: hopeless",
    }
    assert refused["final"]
    assert apply(world, tmp_path / "b", recipes=["x", "z"], screened=out).has_onnx


def test_no_step_begins_after_the_deadline(world, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMGATE_DEADLINE", "1")
    refused = apply(world, tmp_path / "a")
    assert "the budget's time was up" in refused["reason"]
    assert not refused["final"], "a later run may have the time"


@pytest.mark.parametrize("rows", [10, 60, 10_000])
def test_a_sample_keeps_the_share_of_each_class(world, tmp_path, rows):
    data = Dataset.load(world / "train")
    count = tasks.sample(str(world / "train"), str(tmp_path / "s"), rows=rows, effort=0.5, seed=1)
    sampled = Dataset.load(tmp_path / "s")
    assert len(sampled) == count == min(rows, len(data))
    assert abs(np.mean(sampled.labels) - np.mean(data.labels)) <= 1 / count + 1e-9
    assert json.loads((tmp_path / "s" / "sample.json").read_text()) == {
        "effort": 0.5,
        "of": len(data),
    }


def test_a_rare_class_is_in_the_sample(tmp_path):
    labels = np.zeros(1000, dtype=np.int64)
    labels[7] = 1
    Dataset({"a": np.arange(1000.0)}, labels).save(tmp_path / "train")
    tasks.sample(str(tmp_path / "train"), str(tmp_path / "s"), rows=50, effort=1.0, seed=0)
    assert 1 in Dataset.load(tmp_path / "s").labels


def screened(world, model, name):
    return tasks.screen(
        str(world / "model"), str(model), str(world / "sampled"), str(world / "validation"),
        name=name, metric="roc_auc", objective={"latency": 1.0}, target=TARGET, seed=0,
    )  # fmt: skip


def test_trials_and_who_goes_on(world, tmp_path):
    tasks.sample(str(world / "train"), str(world / "sampled"), rows=100, effort=0.5, seed=0)
    apply(world, tmp_path / "onnx")
    apply(world, tmp_path / "pruned", PRUNE, train="sampled")
    apply(world, tmp_path / "late", recipes=["a", "late"], screened={"a": "b", "late": "slow"})
    trials = {name: screened(world, tmp_path / name, name) for name in ("onnx", "pruned", "late")}
    onnx, pruned, late = (decode(trials[name]) for name in ("onnx", "pruned", "late"))
    assert onnx["gain"] > 5, "a forest in ONNX answers many times as fast"
    assert abs(onnx["difference"]["value"]) < 1e-3
    assert pruned["full_seconds"] > onnx["full_seconds"] - 1, "training grows with the rows"
    assert late["refusal"] == "not tried in full: slow"
    result = tasks.halve(
        list(trials.values()), str(tmp_path / "out"), str(tmp_path / "summary.md"),
        metric="roc_auc", keep=0.3, hopeless=0.1, most=1, seconds=0.0,
    )  # fmt: skip
    assert [name for name, reason in result.items() if not reason] == ["onnx"]
    text = (tmp_path / "summary.md").read_text()
    assert "| onnx | yes |" in text
    assert "| late | no | not tried in full" in text
