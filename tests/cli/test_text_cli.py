"""`init` on a text model: the column that it reads, the labels, and what is said of bad input."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from trimgate.cli import main
from trimgate.config import load_config
from trimgate.plan import make_plan, model_digest, model_source

pytest.importorskip("transformers")
from text_models import BERT, sentences, write_folder

NAMES = ("bad", "good")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}
    write_folder(folder / "mood", {**BERT, **names})
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    data = sentences(600)
    with Path("rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "title", "mood"])
        rows = zip(data.features["text"], data.labels, strict=True)
        writer.writerows([i, text, NAMES[label]] for i, (text, label) in enumerate(rows))
    return tmp_path


def init(*more: str) -> int:
    return main(["init", "--model", "mood", "--data", "rows.csv", *more])


def test_init_finds_text_and_labels(place: Path, capsys: pytest.CaptureFixture[str]):
    assert init() == 0, capsys.readouterr().err
    written = yaml.safe_load(Path("optimize.yaml").read_text())
    assert written["model"] == {"path": "mood"}
    assert (written["data"]["label"], written["data"]["drop"]) == ("mood", ["id"])

    config = load_config("optimize.yaml")
    plan = make_plan(config, "optimize.yaml")
    assert (plan.model.task, plan.model.labels) == ("binary", NAMES)
    assert plan.config.target.batch_sizes == (1, 32)
    before = model_digest(model_source(config))
    Path("mood", "README.md").write_text("says nothing of the model")
    assert model_digest(model_source(config)) == before == plan.model_digest
    Path("mood", "tokenizer_config.json").write_text('{"model_max_length": 12}')
    assert model_digest(model_source(config)) != before


def rewrite(change: object) -> None:
    with Path("rows.csv").open(newline="") as stream:
        head, *rows = csv.reader(stream)
    head, rows = change(head, rows)  # type: ignore[operator]
    with Path("rows.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([head, *rows])


def test_several_columns_of_text(place: Path, capsys: pytest.CaptureFixture[str]):
    rewrite(lambda head, rows: ([*head, "author"], [[*row, f"by {row[0]}"] for row in rows]))
    assert init() == 2
    assert "2 columns of it: title, author; name it with --text" in capsys.readouterr().err
    assert init("--text", "title", "--label", "mood") == 0, capsys.readouterr().err
    written = yaml.safe_load(Path("optimize.yaml").read_text())
    assert written["data"]["drop"] == ["id", "author"]
    assert init("--text", "nothing", "--force") == 2
    assert "--text = 'nothing': there is no such column" in capsys.readouterr().err


def test_a_row_without_text(place: Path, capsys: pytest.CaptureFixture[str]):
    empty = np.random.default_rng(0).integers(600)
    rewrite(
        lambda head, rows: (head, [[r[0], "", r[2]] if r[0] == str(empty) else r for r in rows])
    )
    assert init() == 2
    told = capsys.readouterr().err
    assert "title" in told
    assert "missing" in told or "no text" in told


def test_a_folder_that_is_no_model(place: Path, capsys: pytest.CaptureFixture[str]):
    Path("empty").mkdir()
    assert main(["init", "--model", "empty", "--data", "rows.csv"]) == 2
    assert "without config.json" in capsys.readouterr().err
