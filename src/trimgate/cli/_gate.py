"""`trimgate gate`: the verdict from saved records alone."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text

from trimgate.cli import EXIT_PASSED, EXIT_REJECTED
from trimgate.cli._common import console, read_card, run_folder
from trimgate.config import load_policy
from trimgate.errors import InvalidInput
from trimgate.judge import records
from trimgate.judge.gate import gate
from trimgate.judge.policy import GatePolicy
from trimgate.judge.records import RecordT, Verdict

_STYLE = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
_MARK = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


def run(arguments: argparse.Namespace) -> int:
    """Judges the records of a run, or those that are named, by a policy."""
    given = {k: getattr(arguments, k) for k in ("baseline", "candidate", "benchmark", "served")}
    named = {key: Path(value) for key, value in given.items() if value is not None}
    if arguments.run is None and not {"baseline", "candidate"} <= named.keys():
        raise InvalidInput(
            "there is nothing to judge",
            mend="name the folder of a run, or give --baseline, --candidate and --policy",
        )
    policy = None if arguments.policy is None else load_policy(arguments.policy)
    if arguments.run is None:
        if policy is None:
            raise InvalidInput("there are no rules", mend="give --policy")
        verdict = gate(
            policy,
            baseline=_read(records.Evaluation, named.get("baseline"), "evaluation.json"),
            candidate=_read(records.Evaluation, named.get("candidate"), "evaluation.json"),
            benchmark=_read(records.Benchmark, named.get("benchmark"), "benchmark.json"),
            served=_read(records.Served, named.get("served"), "served.json"),
        )
    else:
        verdict = _judge_run(arguments.run, named, policy)
    if arguments.json:
        print(verdict.model_dump_json(indent=2))
    else:
        show(verdict, console())
    return EXIT_PASSED if verdict.outcome == "pass" else EXIT_REJECTED


def _read(kind: type[RecordT], path: Path | None, name: str) -> RecordT | None:
    if path is None:
        return None
    return records.load(kind, path / name if path.is_dir() else path)


def _judge_run(run: str, named: dict[str, Path], policy: GatePolicy | None) -> Verdict:
    if named:
        raise InvalidInput(
            "a run has its records: give either the run or the files",
            key=f"--{next(iter(named))}",
        )
    folder = run_folder(run)
    card = read_card(folder)
    if card.verdict is None:
        raise InvalidInput("the run has no verdict", file=folder)
    if card.verdict.keeps_baseline:
        return card.verdict
    if policy is None:
        if not card.verdict.policy:
            raise InvalidInput(
                "the run was recorded without its rules", file=folder, mend="give --policy"
            )
        policy = GatePolicy.model_validate(card.verdict.policy)
    return gate(
        policy,
        baseline=card.baseline_test,
        candidate=card.winner_test,
        benchmark=card.benchmark,
        served=card.served,
        name=card.verdict.name,
    )


def show(verdict: Verdict, out: Console) -> None:
    """Prints the verdict, a line for each rule."""
    style = f"bold {_STYLE[verdict.outcome]}"
    out.print(Text(f"{verdict.outcome.upper()}  {verdict.summary}", style=style), soft_wrap=True)
    for rule in verdict.rules:
        mark = _MARK[rule.outcome]
        line = Text(f"  {mark} {rule.rule}: {rule.reason}", style=_STYLE[rule.outcome])
        out.print(line, soft_wrap=True)
