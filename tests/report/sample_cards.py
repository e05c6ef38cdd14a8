"""Cards as real runs would give them: every outcome, many recipes, hostile and extreme values."""

from datetime import UTC, datetime
from typing import Any

from report.sample_records import (
    ENVIRONMENT,
    EXPORT,
    FEATURES,
    PRUNE,
    RULES,
    SELECT,
    STATIC,
    candidate,
    digest,
    evaluation,
    interval,
    model,
    rule,
    selection,
    served,
    verdict,
)

from trimgate.models.directory import RuntimeChoice
from trimgate.report import CardInput, DataInfo, Refused, SplitRows
from trimgate.targets import PROFILES


def passing(**changes: Any) -> CardInput:
    """The fraud model: trees pruned and served by ONNX Runtime; everything is there."""
    ap = "average_precision"
    name = "prune trees → ONNX"
    steps = (SELECT, PRUNE, EXPORT)
    tried = (
        candidate(name, steps, {1: 3.1, 1000: 1.9}, {ap: (0.785, 0.001)}, 350_000),
        candidate("ONNX", (EXPORT,), {1: 2.4, 1000: 1.55}, {ap: (0.784, 0.0)}, 720_000),
        candidate(
            "select features → ONNX",
            (SELECT, EXPORT),
            {1: 2.6, 1000: 1.6},
            {ap: (0.779, -0.005)},
            610_000,
        ),
        candidate(
            "daal4py",
            ({"technique": "runtime", "engine": "daal4py"},),
            {1: 0.75, 1000: 5.2},
            {ap: (0.784, 0.0)},
            1_300_000,
        ),
    )
    winner = model(
        3, steps, 350_000, parent=digest(2), unused_features=("Time", "V23", "V24", "V25")
    )
    values = {
        ap: (0.785, 0.001),
        "roc_auc": (0.973, 0.0004),
        "f1": (0.781, 0.0),
        "log_loss": (0.0031, -0.0001),
    }
    base = {
        ap: (0.784, 0.0),
        "roc_auc": (0.9726, 0.0),
        "f1": (0.781, 0.0),
        "log_loss": (0.0032, 0.0),
    }
    fields: dict[str, Any] = {
        "run": "fraud-20260504-093112-7c1e",
        "name": "fraud",
        "created": datetime(2026, 5, 4, 9, 34, tzinfo=UTC),
        "data": DataInfo(
            source="creditcard.csv",
            splits=(
                SplitRows(name="train", rows=170235, digest=digest(5)),
                SplitRows(name="validation", rows=56745, digest=digest(6)),
                SplitRows(name="test", rows=56746, digest=digest(7)),
            ),
            method="temporal, by Time",
            label="Class",
            features=FEATURES,
            digest=digest(4),
            notes=("1 081 duplicate rows dropped", "37 rows dropped: they also stand in train"),
        ),
        "target": PROFILES["cloud-cpu"],
        "baseline": model(1, (), 1_200_000),
        "winner": winner,
        "lineage": (
            model(1, (), 1_200_000),
            model(2, (SELECT,), 1_190_000, runtime=RuntimeChoice()),
            model(8, (SELECT, PRUNE), 420_000, runtime=RuntimeChoice()),
            winner,
        ),
        "baseline_validation": evaluation("baseline", "validation", {ap: (0.784, 0.0)}),
        "baseline_test": evaluation("baseline", "test", base),
        "winner_test": evaluation(name, "test", values),
        "candidates": tried,
        "selection": selection(
            tried,
            name,
            ap,
            "the fastest recipe that loses no more than 1 pt on the validation rows",
        ),
        "verdict": verdict(
            "pass",
            RULES,
            "3.1× faster and as good as the baseline on 56 746 test rows; all 5 rules passed",
            name,
        ),
        "served": served(),
        "benchmark": tried[0].benchmark,
        "refused": (
            Refused(
                name="static INT8",
                steps=(STATIC,),
                reason="INT8 does not apply to trees: they compare, and multiply nothing",
            ),
        ),
        "environment": ENVIRONMENT,
        "code_version": "0.1.0",
        "seed": 7,
    }
    return CardInput.model_validate({**fields, **changes})


def rejected() -> CardInput:
    card = passing()
    worse = interval(-0.021, 0.006)
    rules = (
        rule(
            "max_drop.average_precision",
            "fail",
            worse,
            0.01,
            "the difference is below −1 pt with its whole interval",
        ),
        *RULES[1:3],
        rule("max_peak_rss_mb", "fail", interval(601.2, 0), 512, "601 MiB at the peak"),
        rule(
            "min_served_speedup",
            "fail",
            None,
            1.0,
            "the served speed-up is missing",
        ),
    )
    test = evaluation(
        "prune trees → ONNX",
        "test",
        {"average_precision": (0.763, -0.021), "roc_auc": (0.961, -0.012)},
    )
    broken = served().model_copy(
        update={
            "checks": {"ready": True, "golden inputs over gRPC": False},
            "latency": None,
            "baseline_p50": None,
            "errors": ("gRPC: 3 of 16 answers differ by more than 1e-5",),
        }
    )
    return card.model_copy(
        update={
            "winner_test": test,
            "served": broken,
            "verdict": verdict(
                "fail",
                rules,
                "average precision fell by 2.1 pt, twice what is allowed",
                "prune trees → ONNX",
            ),
        }
    )


def inconclusive() -> CardInput:
    rules = (
        rule(
            "max_drop.average_precision",
            "inconclusive",
            interval(-0.004, 0.009),
            0.01,
            "the interval reaches below −1 pt",
            141_000,
        ),
        *RULES[1:],
    )
    return passing(
        verdict=verdict(
            "inconclusive",
            rules,
            "56 746 test rows are too few to tell: 1 of 5 rules is open",
            "prune trees → ONNX",
        )
    )


def baseline_kept() -> CardInput:
    tried = (
        candidate(
            "dynamic INT8",
            ({"technique": "quantize", "scheme": "dynamic-int8"},),
            {1: 0.86, 1000: 0.98},
            {"accuracy": (0.951, -0.001)},
            1_400_000,
        ),
    )
    return passing(
        name="tiny-mlp",
        winner=None,
        lineage=(),
        winner_test=None,
        served=None,
        verdict=None,
        benchmark=None,
        refused=(),
        candidates=tried,
        baseline_validation=evaluation("baseline", "validation", {"accuracy": (0.952, 0.0)}),
        selection=selection(
            tried,
            "baseline",
            "accuracy",
            "no recipe was faster: a model this small spends its time in the call",
        ),
    )
