"""Builders of records for the judge's tests."""

import numpy as np
import pytest

from trimgate.judge.evaluation import evaluate
from trimgate.judge.records import BatchBenchmark, Benchmark, Footprint, Interval, Served, Timing


def ratio(low, value, high):
    return Interval(value=value, low=low, high=high)


def timing(seconds):
    return Timing(p50=seconds, p95=seconds, p99=seconds, cpu=seconds, throughput=1 / seconds)


@pytest.fixture(scope="session")
def make_benchmark():
    def make(
        low=1.9, value=2.0, high=2.1, *, model="cand", baseline="base", state="clean", size=50,
        rss=100 * 2**20, control=1.0, batch_size=1,
    ):  # fmt: skip
        batch = BatchBenchmark(
            batch_size=batch_size,
            wall=ratio(low, value, high),
            cpu=ratio(low, value, high),
            control=ratio(control - 0.01, control, control + 0.01),
            control_cpu=ratio(0.99, 1.0, 1.01),
            baseline=timing(2e-3),
            candidate=timing(1e-3),
            rounds=80,
            processes=3,
            state=state,
            stopped="precise",
        )
        return Benchmark(
            baseline_model=baseline,
            model=model,
            name="quick",
            target="cloud-cpu",
            batches=(batch,),
            baseline=Footprint(
                size=100, peak_rss=200 * 2**20, base_rss=10, cold_start=1.0, load=0.5
            ),
            candidate=Footprint(size=size, peak_rss=rss, base_rss=10, cold_start=1.0, load=0.5),
        )

    return make


@pytest.fixture(scope="session")
def make_served():
    def make(**changes):
        fields = {
            "model": "cand",
            "checks": {"ready": True, "golden": True},
            "latency": ratio(1.5, 1.6, 1.7),
            "p50": 1e-3,
            "p95": 2e-3,
            "p99": 3e-3,
            "baseline_p50": 1.6e-3,
            "requests": 500,
        }
        return Served(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def make_pair():
    """Evaluations of a baseline and a candidate with known flips."""

    def make(rows, lost=0, won=0, *, wrong=None, split="test", metrics=("accuracy",), seed=0):
        wrong = rows // 20 if wrong is None else wrong
        labels = np.arange(rows) % 2
        right = np.ones(rows, dtype=bool)
        right[: wrong + won] = False
        after = right.copy()
        after[:won] = True
        after[rows - lost :] = False

        def scores(hit):
            predicted = np.where(hit, labels, 1 - labels)
            return np.where(predicted[:, None] == np.arange(2), 0.75, 0.25)

        common = {
            "split": split,
            "data": f"rows-{rows}",
            "task": "binary",
            "metrics": metrics,
            "primary": metrics[0],
            "seed": seed,
            "resamples": 200,
        }
        base = evaluate(labels, scores(right), (0, 1), name="baseline", model="base", **common)
        candidate = evaluate(
            labels, scores(after), (0, 1), name="quick", model="cand",
            baseline_scores=scores(right), baseline_model="base", **common,
        )  # fmt: skip
        return base, candidate

    return make
