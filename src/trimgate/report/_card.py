"""What a card is made from."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimgate.judge.records import (
    Benchmark,
    Candidate,
    Evaluation,
    RuleResult,
    Selection,
    Served,
    Verdict,
)
from trimgate.models.directory import ModelInfo
from trimgate.report._examples import Examples
from trimgate.targets import Target

Status = Literal["pass", "fail", "inconclusive", "baseline"]
BASELINE = "baseline"


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, ser_json_inf_nan="null"
    )


class SplitRows(_Record):
    """One split of the data: `train`, `validation` or `test`, its rows and their digest."""

    name: str
    rows: int
    digest: str = ""


class DataInfo(_Record):
    """The data as the card describes it.

    Attributes:
        source: File name or URI.
        splits: In order: train, validation, test.
        method: How it was divided, in words (`temporal by Time`).
        digest: Digest of the whole, where there is one.
        notes: What a reader must know ("37 rows dropped: they also stand in train").
    """

    source: str = ""
    splits: tuple[SplitRows, ...] = ()
    method: str = ""
    label: str = ""
    features: tuple[str, ...] = ()
    digest: str = ""
    notes: tuple[str, ...] = ()


class Refused(_Record):
    """A recipe that was not tried, and why."""

    name: str
    steps: tuple[dict[str, Any], ...] = ()
    reason: str


class CardInput(_Record):
    """Everything that the card of one run shows; written beside it as `card.json`.

    Attributes:
        run: Identifier of the run.
        name: The model's name.
        created: When the run ended.
        winner: The chosen candidate; None when the baseline was kept.
        lineage: The records from the baseline to the winner, both included.
        baseline_validation, baseline_test, winner_test: Evaluations; the winner's holds the
            paired differences.
        candidates: All recipes that were tried, refused ones included.
        verdict: What the gate said; without one nothing is called passed.
        benchmark: The winner beside the baseline.
        refused: Recipes that were refused before or while they were tried.
        examples: Test rows on which the answers differ; only when the config asks for them.
        environment: CPU model and flags, load, versions of the machine that measured (JSON
            values); taken from the benchmark when empty.
        code_version: Version of trimgate, with the commit where it is known.
        seed: The run's seed.
        confidence: Two-sided level of the intervals.
    """

    schema_version: Literal[1] = 1
    kind: Literal["card"] = "card"
    run: str
    name: str
    created: datetime
    data: DataInfo
    target: Target
    baseline: ModelInfo
    winner: ModelInfo | None = None
    lineage: tuple[ModelInfo, ...] = ()
    baseline_validation: Evaluation | None = None
    baseline_test: Evaluation | None = None
    winner_test: Evaluation | None = None
    candidates: tuple[Candidate, ...] = ()
    selection: Selection
    verdict: Verdict | None = None
    served: Served | None = None
    benchmark: Benchmark | None = None
    refused: tuple[Refused, ...] = ()
    examples: Examples | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    code_version: str = ""
    seed: int = 0
    confidence: float = 0.95

    @property
    def status(self) -> Status:
        """The outcome of the run; a winner without a verdict counts as inconclusive."""
        if self.selection.winner == BASELINE or (self.verdict and self.verdict.keeps_baseline):
            return "baseline"
        return self.verdict.outcome if self.verdict else "inconclusive"

    @property
    def rules(self) -> tuple[RuleResult, ...]:
        """The gate's rules; none when the baseline was kept, as nothing was put forward."""
        return self.verdict.rules if self.verdict and self.status != "baseline" else ()
