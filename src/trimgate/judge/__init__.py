"""Judging: pure functions on arrays and records.

`evaluate` (metrics with intervals, paired with the baseline), `select` (on
validation), `gate` (on test). `trimgate.judge.harness.run_benchmark` times two model
directories side by side in fresh processes; that module is run as a program too, so it is not
imported here.
"""

from trimgate.judge.benchmark import BenchmarkSettings
from trimgate.judge.evaluation import evaluate
from trimgate.judge.gate import gate, keep_baseline
from trimgate.judge.policy import GatePolicy, default_policy
from trimgate.judge.predictions import load_predictions, save_predictions
from trimgate.judge.selection import select

__all__ = [
    "BenchmarkSettings",
    "GatePolicy",
    "default_policy",
    "evaluate",
    "gate",
    "keep_baseline",
    "load_predictions",
    "save_predictions",
    "select",
]
