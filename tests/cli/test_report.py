"""`trimgate report`: one run, several runs, and the schema of what they hold."""

import json
from datetime import timedelta
from pathlib import Path

import jsonschema
import pytest
from report.sample_cards import passing, rejected
from report.sample_full_card import full

from trimgate.cli import main
from trimgate.report import save_card


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of three runs, and one that did not finish."""
    root = tmp_path / "trimgate-runs"
    for days, card in enumerate((passing(), rejected(), full())):
        moved = {"run": f"run-{days}", "created": card.created + timedelta(days=days)}
        save_card(card.model_copy(update=moved), root / f"run-{days}")
    (root / "killed").mkdir()
    return root


def test_all_runs_of_a_folder_are_compared(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs.parent)
    assert main(["report", "--compare"]) == 0
    told = capsys.readouterr().out
    assert "Times of different runs are not compared" in " ".join(told.split())
    page = (runs / "compare.html").read_text()
    assert all(f"run-{n}" in page for n in range(3))
    assert "3 runs compared" in page
    assert not list(runs.glob(".*partial"))


def test_named_runs_are_compared_where_one_asks(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(runs.parent)
    page = tmp_path / "page.html"
    assert main(["report", "--compare", "run-0", str(runs / "run-1"), "-o", str(page)]) == 0
    assert "run-2" not in page.read_text()
    capsys.readouterr()
    assert main(["report", "--compare", str(runs), "--format", "json"]) == 0
    assert [line["run"] for line in json.loads(capsys.readouterr().out)] == [
        "run-0",
        "run-1",
        "run-2",
    ]
    assert main(["report", "--compare", str(runs), "--format", "markdown"]) == 0
    assert capsys.readouterr().out.startswith("# Runs compared\n")


def test_a_run_as_a_pull_request(runs, capsys):
    assert main(["report", str(runs / "run-1"), "--format", "pull-request"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("## ❌ Rejected: ")
    assert told == (runs / "run-1" / "pull-request.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report"], "no run is named"),
        (["report", "a", "b"], "several runs are named; name one, or add --compare"),
        (["report", "a", "-o", "x.html"], "goes with --compare"),
        (["report", "--compare", "{empty}"], "holds no finished runs"),
        (["report", "--compare", "{runs}/run-0", "{runs}/killed"], "not the folder of a finished"),
        (["report", "--compare", "{runs}", "-o", "{empty}/no/x.html"], "is missing"),
    ],
)
def test_bad_input_is_one_line(runs, tmp_path, capsys, arguments, told):
    (tmp_path / "empty").mkdir()
    given = [a.format(runs=runs, empty=tmp_path / "empty") for a in arguments]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_card_holds_to_its_published_schema(runs, capsys):
    assert main(["schema", "card"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    for run in ("run-0", "run-1", "run-2"):
        jsonschema.validate(json.loads((runs / run / "card.json").read_text()), schema)
    card = json.loads((runs / "run-0" / "card.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**card, "unknown": 1}, schema)
