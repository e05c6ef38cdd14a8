"""A card on which every section has something to show."""

import math
from typing import Any

from report.sample_cards import passing
from report.sample_records import RULES, evaluation, interval, rule, verdict

from trimgate.judge.records import (
    QUANTILES,
    BatchBenchmark,
    Benchmark,
    Calibration,
    CalibrationBin,
    Concurrent,
    Confusion,
    Cost,
    Curve,
    Energy,
    Evaluation,
    Flips,
    FormatCheck,
    LoadGenRun,
    LoadPoint,
    LoadResult,
    OperatingPoint,
    Outliers,
    Slice,
    Timing,
)
from trimgate.report import CardInput, Example, Examples

EXAMPLES = Examples(
    columns=("Amount", "V14", "<b>note</b>"),
    left_out=27,
    rows=tuple(
        Example(
            row=100 * place,
            effect=effect,
            label="1",
            baseline="1",
            winner="0",
            baseline_score=0.61,
            winner_score=0.44,
            values=("12.5", "-1.33", "<script>alert(4)</script>"),
        )
        for place, effect in enumerate(("lost", "lost", "won", "changed"), 1)
    ),
)


def piece(
    name: str, kind: Any, column: str | None, rows: int, change: float, half: float, **more: Any
) -> Slice:
    return Slice(
        name=name,
        kind=kind,
        column=column,
        rows=rows,
        metric=interval(0.78 + change, 0.03),
        difference=interval(change, half),
        simultaneous=interval(change, 1.7 * half),
        flips=Flips(won=3, lost=5, changed=8, rows=rows, p_value=0.73),
        p_value=0.4,
        adjusted_p_value=1.0,
        **more,
    )


SLICES = (
    piece("Amount up to 10", "column", "Amount", 20_100, 0.002, 0.004),
    piece("Amount 10 to 50", "column", "Amount", 19_321, -0.002, 0.006),
    piece("Amount 50 and more", "column", "Amount", 17_325, -0.003, 0.012),
    piece("score 0.0 to 0.2", "score_band", None, 56_010, 0.0, 0.002),
    piece("score 0.8 to 1.0", "score_band", None, 320, -0.06, 0.02),
    piece("2026-03", "time_window", "Time", 28_000, 0.001, 0.005),
    Slice(
        name="<i>2026-04</i>", kind="time_window", column="Time", rows=41,
        reason="41 rows are fewer than 100",
    ),
)  # fmt: skip


def calibration(shift: float) -> Calibration:
    bins = tuple(
        CalibrationBin(
            low=k / 10,
            high=(k + 1) / 10,
            mean_score=k / 10 + 0.05,
            observed=min(1.0, max(0.0, k / 10 + 0.05 + shift * math.sin(k))),
            rows=[50_000, 900, 300, 200, 120, 90, 70, 60, 50, 60][k],
        )
        for k in range(10)
    )
    return Calibration(
        ece=interval(0.01 + abs(shift) / 9, 0.002), brier=interval(0.004, 0.0005), bins=bins
    )


def curves(power: float) -> tuple[Curve, ...]:
    x = tuple(k / 60 for k in range(61))
    roc = tuple(v ** (1 / power) for v in x)
    precision = tuple(1 - v**power * 0.96 for v in x)
    return Curve(kind="roc", x=x, y=roc), Curve(kind="precision_recall", x=x, y=precision)


def point(precision: float, recall: float) -> OperatingPoint:
    return OperatingPoint(
        threshold=0.41,
        rule="highest F1 on 28373 validation rows",
        chosen_on=28_373,
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall),
        cost=0.0123,
    )


def judged(record: Evaluation, shift: float, matrix: Any, **more: Any) -> Evaluation:
    (_, alarm), (miss, catch) = matrix
    return record.model_copy(
        update={
            "calibration": calibration(shift),
            "curves": curves(9 + 20 * shift),
            "confusion": Confusion(labels=("0", "1"), matrix=matrix, threshold=0.41),
            "operating_point": point(catch / (catch + alarm), catch / (catch + miss)),
            **more,
        }
    )


def timed(timing: Timing) -> Timing:
    times = tuple(timing.p50 * math.exp(0.9 * (q - 0.5) + 1.6 * q**40) for q in QUANTILES)
    return timing.model_copy(update={"quantiles": times})


def batch(found: BatchBenchmark) -> BatchBenchmark:
    return found.model_copy(
        update={
            "baseline": timed(found.baseline),
            "candidate": timed(found.candidate),
            "warmup": {"baseline": 40, "candidate": 25},
            "outliers": {
                "baseline": Outliers(share=0.004, largest=2.1e-3),
                "candidate": Outliers(share=0.011, largest=3.3e-3),
            },
            "throughput_per_core": {"baseline": 3300.0, "candidate": 10100.0},
        }
    )


def pressed(p99: float, requests: int, **more: Any) -> LoadPoint:
    return LoadPoint(
        requests=requests, errors=0, dropped=0, late=0, achieved=requests / 20,
        p50=p99 / 4, p95=p99 / 2, p99=p99, p99_interval=interval(p99, p99 / 8), **more,
    )  # fmt: skip


def load(where: Any) -> tuple[LoadResult, ...]:
    rates = (50.0, 200.0, 800.0, 3200.0)
    held = tuple(
        LoadResult(
            where=where, rate=rate, concurrency=4,
            baseline=pressed(2e-3 * (1 + (rate / 900) ** 2), int(20 * rate)),
            candidate=pressed(9e-4 * (1 + (rate / 4000) ** 2), int(20 * rate)),
            p99_ratio=interval(2.2, 0.2),
        )
        for rate in rates
    )  # fmt: skip
    late = pressed(0.9, 100_000).model_copy(update={"errors": 3, "dropped": 12_000, "late": 80_000})
    void = held[0].model_copy(
        update={
            "rate": 9000.0, "candidate": late, "valid": False,
            "reason": "the generator fell behind its schedule",
        }
    )  # fmt: skip
    return (*held, void)


def benchmark(found: Benchmark) -> Benchmark:
    return found.model_copy(
        update={
            "batches": tuple(batch(b) for b in found.batches),
            "concurrent": (
                Concurrent(
                    callers=4, kind="threads", batch_size=1, ratio=interval(2.8, 0.2),
                    baseline=6000.0, candidate=16800.0, baseline_p99=2e-3, candidate_p99=8e-4,
                ),
            ),
            "load": load("session"),
            "loadgen": (
                LoadGenRun(
                    scenario="SingleStream", variant="candidate", valid=False,
                    reason="Min queries: not satisfied", p50=1e-4, p90=2e-4, p99=3e-4,
                    expected=1e-4,
                ),
            ),
            "energy": Energy(
                baseline=1.2, candidate=0.41, ratio=interval(2.93, 0.2), source="estimate",
                method="CPU time at 3.9 W a core, the mean of the CPU's class",
            ),
            "cost": Cost(
                baseline=0.0668, candidate=0.0222, ratio=interval(3.01, 0.06), currency="USD",
                price="generic vCPU", price_per_core_hour=0.08, table="trimgate 2026-05",
                traffic=250.0, baseline_month=116.8, candidate_month=58.4,
            ),
            "limits": {"memory": "512 MiB by a control group", "threads": "1"},
            "busy": "The machine was busy: 1.9 of 2 cores were taken by others",
            "format": FormatCheck(
                format="ort", size=351_000, operators=("ai.onnx.ml;3;TreeEnsembleClassifier",),
                notes=("The operators were looked up, and nothing was run.",),
            ),
        }
    )  # fmt: skip


def full(**changes: Any) -> CardInput:
    """The passing card with everything that a record may hold."""
    values = {
        "average_precision": (0.785, 0.001),
        "roc_auc": (0.973, 0.0004),
        "accuracy": (0.999, 0.00004),
        "f1": (0.781, 0.0),
    }
    base = {"average_precision": (0.784, 0.0), "roc_auc": (0.9726, 0.0), "f1": (0.781, 0.0)}
    card = passing()
    assert card.benchmark is not None
    assert card.served is not None
    measured = benchmark(card.benchmark)
    name = "prune trees → ONNX"
    first = card.candidates[0].model_copy(update={"benchmark": measured})
    slices = rule(
        "slices.max_drop", "inconclusive", interval(-0.06, 0.02), 0.03, "5 of 6 slices pass"
    )
    fields: dict[str, Any] = {
        "candidates": (first, *card.candidates[1:]),
        "benchmark": measured,
        "served": card.served.model_copy(update={"load": load("server")}),
        "baseline_test": judged(
            evaluation("baseline", "test", base), 0.06, ((56_600, 20), (28, 98))
        ),
        "winner_test": judged(
            evaluation(name, "test", values), -0.03, ((56_603, 17), (30, 96)), slices=SLICES
        ),
        "verdict": verdict(
            "inconclusive", (*RULES, slices), "3.1× faster; one slice is not decided", name
        ),
        "examples": EXAMPLES,
    }
    return passing(**{**fields, **changes})


def fifty() -> CardInput:
    """A classifier of fifty classes with long, hostile names, on many slices."""
    size = 50
    labels = tuple(f"class <{i}> with a rather long name & more" for i in range(size))

    def matrix(seed: int) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(200 if i == j else (i * 7 + j * seed) % 11 // 9 for j in range(size))
            for i in range(size)
        )

    slices = tuple(
        piece(f"c{i}" * 30, "column", f"<column {i % 3}>", 100 + i, -0.001 * (i % 30), 0.02)
        for i in range(500)
    )
    test = evaluation("w", "test", {"accuracy": (0.9, -0.001)}, "multiclass", 10_400)
    base = evaluation("baseline", "test", {"accuracy": (0.901, 0.0)}, "multiclass", 10_400)
    return passing(
        winner_test=test.model_copy(
            update={"confusion": Confusion(labels=labels, matrix=matrix(3)), "slices": slices}
        ),
        baseline_test=base.model_copy(
            update={"confusion": Confusion(labels=labels, matrix=matrix(5))}
        ),
    )
