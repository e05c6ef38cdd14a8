"""Makers of the records that cards are made from."""

from typing import Any

from trimgate.judge.records import (
    BatchBenchmark,
    Benchmark,
    Candidate,
    Evaluation,
    Flips,
    Footprint,
    Interval,
    Level,
    Metric,
    Parity,
    Ranked,
    RuleResult,
    Selection,
    Served,
    Timing,
    Verdict,
)
from trimgate.models.directory import FileInfo, ModelInfo, RuntimeChoice, TensorSpec

FEATURES = ("Time", *(f"V{i}" for i in range(1, 29)), "Amount")
EXPORT = {"technique": "optimize_graph"}
PRUNE = {"technique": "prune", "method": "trees"}
SELECT = {"technique": "select_features"}
STATIC = {"technique": "quantize", "scheme": "static-int8"}
OPENVINO = {"technique": "runtime", "engine": "openvino"}


def interval(value: float, half: float) -> Interval:
    at_90 = Level(confidence=0.9, low=value - 0.84 * half, high=value + 0.84 * half)
    return Interval(
        value=value, low=value - half, high=value + half, method="bootstrap", others=(at_90,)
    )


def digest(seed: int) -> str:
    return "sha256:" + f"{seed:02x}" * 32


def timing(p50: float, rows: int, p99: bool = True) -> Timing:
    return Timing(
        p50=p50,
        p95=1.3 * p50,
        p99=1.9 * p50 if p99 else None,
        cpu=0.98 * p50,
        throughput=rows / p50,
    )


def batch(rows: int, base: float, ratio: float, state: Any = "clean") -> BatchBenchmark:
    return BatchBenchmark(
        batch_size=rows,
        wall=interval(ratio, 0.02 * ratio),
        cpu=interval(ratio * 0.97, 0.02 * ratio),
        control=interval(1.002, 0.008),
        control_cpu=interval(0.999, 0.006),
        baseline=timing(base, rows, state == "clean"),
        candidate=timing(base / ratio, rows, state == "clean"),
        rounds=240,
        processes=3,
        state=state,
        stopped="precise" if state == "clean" else "budget",
    )


def evaluation(
    name: str,
    split: Any,
    values: dict[str, tuple[float, float]],
    task: Any = "binary",
    rows: int = 56746,
) -> Evaluation:
    """`values`: by metric, the value and the difference to the baseline."""
    lower = ("log_loss", "brier", "rmse", "mae")
    baseline = name == "baseline"
    return Evaluation(
        model=digest(1 if baseline else len(name)),
        name=name,
        split=split,
        data=digest(7),
        rows=rows,
        task=task,
        primary=next(iter(values)),
        metrics={
            m: Metric(name=m, interval=interval(v, abs(v) * 0.04), higher_is_better=m not in lower)
            for m, (v, _) in values.items()
        },
        differences={}
        if baseline
        else {
            m: interval(d, 0.003 if abs(d) < 0.05 else abs(d) / 3) for m, (_, d) in values.items()
        },
        flips=None if baseline else Flips(won=9, lost=7, changed=16, rows=rows, p_value=0.804),
        parity=None
        if baseline
        else Parity(max_difference=3.2e-2, mean_difference=4.1e-7, agreement=0.99972, rows=rows),
    )


def model(seed: int, steps: tuple[dict[str, Any], ...], size: int, **changes: Any) -> ModelInfo:
    file = "model.onnx" if EXPORT in steps else "model.skops"
    values: dict[str, Any] = {
        "name": "fraud",
        "task": "binary",
        "family": "trees",
        "framework": "sklearn",
        "inputs": (TensorSpec(name="x", dtype="float32", shape=(-1, 30), features=FEATURES),),
        "labels": (0, 1),
        "features": FEATURES,
        "runtime": RuntimeChoice(name="onnxruntime" if steps else "native"),
        "files": {file: FileInfo(sha256="ab" * 32, size=size)},
        "digest": digest(seed),
        "recipe": steps,
    }
    return ModelInfo.model_validate({**values, **changes})


def candidate(
    name: str,
    steps: tuple[dict[str, Any], ...],
    ratios: dict[int, float],
    values: dict[str, tuple[float, float]],
    size: int,
    task: Any = "binary",
    base: float = 305e-6,
    state: Any = "clean",
) -> Candidate:
    batches = tuple(
        batch(rows, base * (1 + rows / 160), ratio, state) for rows, ratio in ratios.items()
    )
    return Candidate(
        name=name,
        uri=f"file:///runs/{name}",
        model=digest(len(name)),
        steps=steps,
        evaluation=evaluation(name, "validation", values, task),
        benchmark=Benchmark(
            baseline_model=digest(1),
            model=digest(len(name)),
            name=name,
            target="cloud-cpu",
            batches=batches,
            baseline=Footprint(
                size=1_200_000,
                peak_rss=309_000_000,
                base_rss=160_000_000,
                cold_start=1.42,
                load=0.11,
            ),
            candidate=Footprint(
                size=size,
                peak_rss=121_000_000 + size,
                base_rss=45_000_000,
                cold_start=0.31,
                load=0.012,
            ),
            environment=ENVIRONMENT,
            settings={"rounds": 80, "tolerance": 0.02, "threads": 1, "seed": 7, "warmup": 5},
        ),
    )


ENVIRONMENT = {
    "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
    "flags": ["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"],
    "cores": 2,
    "cpu_limit": None,
    "memory_limit": 25_000_000_000,
    "load_average": [0.42, 0.36, 0.3],
    "os": "Debian GNU/Linux 12 (bookworm)",
    "python": "3.11.7",
    "packages": {
        "trimgate": "0.1.0",
        "onnxruntime": "1.31.1",
        "scikit-learn": "1.9.1",
        "openvino": "2026.4.1",
    },
}


def selection(
    candidates: tuple[Candidate, ...], winner: str, metric: str, reason: str, higher: bool = True
) -> Selection:
    def rank(position: int, c: Candidate) -> Ranked:
        e, b = c.evaluation, c.benchmark
        assert e is not None
        assert b is not None
        speed = b.batches[0].wall
        why = (
            "fastest of those that are as good as the baseline"
            if c.name == winner
            else f"{speed.value:.2f}× as fast, but the front is ahead"
        )
        return Ranked(
            rank=position,
            name=c.name,
            uri=c.uri,
            model=c.model,
            steps=c.steps,
            metric=e.metrics[metric].interval,
            difference=e.differences[metric],
            speedup=speed,
            size=b.candidate.size,
            peak_rss=b.candidate.peak_rss,
            admissible=speed.value > 1,
            pareto=position <= 2 and speed.value > 1,
            winner=c.name == winner,
            reason=why,
        )

    ranking = tuple(
        rank(i, c) for i, c in enumerate((c for c in candidates if c.refusal is None), 1)
    )
    return Selection(
        objective="latency",
        metric=metric,
        higher_is_better=higher,
        ranking=ranking,
        winner=winner,
        reason=reason,
    )


def rule(
    name: str,
    outcome: Any,
    observed: Interval | None,
    limit: float | None,
    reason: str,
    rows: int | None = None,
) -> RuleResult:
    return RuleResult(
        rule=name, outcome=outcome, observed=observed, limit=limit, rows_needed=rows, reason=reason
    )


RULES = (
    rule(
        "max_drop.average_precision",
        "pass",
        interval(0.001, 0.003),
        0.01,
        "the difference stays above −1 pt",
    ),
    rule("max_drop.f1", "pass", interval(0.0, 0.004), 0.01, "the difference stays above −1 pt"),
    rule("min_speedup", "pass", interval(3.1, 0.06), 1.1, "at least 1.1× as fast"),
    rule("max_peak_rss_mb", "pass", interval(115.4, 0), 512, "115 MiB at the peak"),
    rule("min_served_speedup", "pass", interval(1.82, 0.07), 1.0, "not slower when served"),
)


def verdict(outcome: Any, rules: tuple[RuleResult, ...], summary: str, name: str) -> Verdict:
    return Verdict(
        outcome=outcome,
        candidate=digest(3),
        baseline=digest(1),
        name=name,
        rules=rules,
        summary=summary,
    )


def served() -> Served:
    checks = (
        "ready",
        "metadata",
        "golden inputs over REST JSON",
        "golden inputs over REST binary",
        "golden inputs over gRPC",
        "metrics counter moved",
    )
    return Served(
        model=digest(3),
        checks=dict.fromkeys(checks, True),
        latency=interval(1.82, 0.07),
        p50=1.1e-3,
        p95=1.5e-3,
        p99=2.4e-3,
        baseline_p50=2.0e-3,
        requests=400,
    )
