"""`trimgate gate`: the verdict from saved records alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from trimgate.cli import main
from trimgate.judge import records
from trimgate.judge.evaluation import evaluate

POLICY = {"max_drop": {"accuracy": 0.01}}


@pytest.fixture
def files(tmp_path):
    """Records of a baseline, of a candidate that is as good, and rules."""
    labels = np.arange(4000) % 2
    right = np.arange(4000) % 10 > 0
    scores = {}
    for name, hit in (("baseline", right), ("candidate", right ^ (np.arange(4000) % 997 == 1))):
        predicted = np.where(hit, labels, 1 - labels)
        scores[name] = np.where(predicted[:, None] == np.arange(2), 0.75, 0.25)
    common = {"split": "test", "data": "d", "task": "binary", "metrics": ["accuracy"]}
    base = evaluate(labels, scores["baseline"], (0, 1), name="baseline", model="base", **common)
    candidate = evaluate(
        labels, scores["candidate"], (0, 1), name="quick", model="cand",
        baseline_scores=scores["baseline"], baseline_model="base", **common,
    )  # fmt: skip
    records.save(base, tmp_path / "base.json")
    (tmp_path / "candidate").mkdir()
    records.save(candidate, tmp_path / "candidate" / "evaluation.json")
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    return tmp_path


def call(files, *more, policy="policy.yaml", baseline="base.json"):
    return main(
        [
            "gate", "--baseline", str(files / baseline), "--candidate", str(files / "candidate"),
            "--policy", str(files / policy), *more,
        ]
    )  # fmt: skip


def test_passes_with_0_and_rejects_with_3(files, capsys):
    assert call(files) == 0
    assert "PASS  Promote quick" in capsys.readouterr().out
    (files / "strict.yaml").write_text(yaml.safe_dump({"gate": {"max_drop": {"accuracy": 0}}}))
    assert call(files, policy="strict.yaml") == 3
    (files / "fast.yaml").write_text(yaml.safe_dump({**POLICY, "min_speedup": 1.2}))
    assert call(files, policy="fast.yaml") == 3
    assert "min_speedup: the benchmark is missing" in capsys.readouterr().out


def test_prints_json_for_machines(files, capsys):
    assert call(files, "--json") == 0
    verdict = records.Verdict.model_validate_json(capsys.readouterr().out)
    assert verdict.outcome == "pass"
    rule = verdict.rules[0]
    assert rule.observed.low < rule.observed.value < rule.observed.high
    assert rule.limit == 0.01
    assert verdict.policy["max_drop"] == POLICY["max_drop"]


def damage(file: Path, change) -> None:
    raw = json.loads(file.read_text())
    change(raw)
    file.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a evaluation record"),
        (b'{"kind": "evaluation"', "is not a evaluation record"),
        (b"\xff\xfe", "is not a evaluation record"),
        (b"[]", "is not a evaluation record"),
        (b'{"kind": "verdict"}', "is not a evaluation record"),
        (None, "the file is missing"),
    ],
)
def test_a_damaged_record_is_bad_input(files, capsys, content, message):
    target = files / "base.json"
    target.unlink() if content is None else target.write_bytes(content)
    assert call(files) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "base.json" in error
    assert error.count("\n") == 1


def test_no_number_where_one_belongs_is_never_a_pass(files, capsys):
    target = files / "candidate" / "evaluation.json"
    damage(target, lambda raw: raw["differences"]["accuracy"].update(value=float("nan")))
    assert call(files) == 3
    assert "FAIL" in capsys.readouterr().out
    damage(target, lambda raw: raw["differences"]["accuracy"].update(value=None))
    assert call(files) == 2
    assert "differences.accuracy.value" in capsys.readouterr().err


def test_an_unknown_rule_is_named(files, capsys):
    (files / "odd.yaml").write_text("max_drp: {accuracy: 0.1}\n")
    assert call(files, policy="odd.yaml") == 2
    error = capsys.readouterr().err
    assert "odd.yaml" in error
    assert "max_drp" in error
    assert "max_drop" in error
    (files / "bare.yaml").write_text("confidence: 0.95\n")
    assert call(files, policy="bare.yaml") == 3
    assert "the policy has no rules" in capsys.readouterr().out


def test_it_needs_records_and_rules(files, capsys):
    assert main(["gate"]) == 2
    assert "there is nothing to judge" in capsys.readouterr().err
    assert main(["gate", "--baseline", "a", "--candidate", "b"]) == 2
    assert "there are no rules" in capsys.readouterr().err
    assert main(["gate", str(files)]) == 2
    assert "is not the folder of a finished run" in capsys.readouterr().err


def test_an_empty_slice_that_a_rule_names_is_no_pass(files, capsys):
    rules = {"slices": {"max_drop": 0.1, "overrides": {"country = NO": 0.01}}}
    (files / "slices.yaml").write_text(yaml.safe_dump(rules))
    target = files / "candidate" / "evaluation.json"
    empty = {"name": "country = NO", "kind": "column", "column": "country", "rows": 0,
             "reason": "0 rows, and 100 are asked for"}  # fmt: skip
    for slices in ([], [empty]):
        damage(target, lambda raw, slices=slices: raw.update(slices=slices))
        assert call(files, policy="slices.yaml") == 3
        assert "slices.max_drop" in capsys.readouterr().out
