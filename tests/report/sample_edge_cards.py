"""Cards at the edges: many recipes, extreme values, refusals, hostile names."""

from collections.abc import Callable
from typing import Any

from report.sample_cards import baseline_kept, inconclusive, passing, rejected
from report.sample_full_card import fifty, full
from report.sample_records import (
    EXPORT,
    OPENVINO,
    PRUNE,
    RULES,
    STATIC,
    candidate,
    evaluation,
    interval,
    model,
    rule,
    selection,
    served,
    verdict,
)

from trimgate.judge.records import (
    Candidate,
    Selection,
)
from trimgate.models.directory import RuntimeChoice
from trimgate.report import CardInput, DataInfo, Refused, SplitRows


def _steps(name: str) -> tuple[dict[str, Any], ...]:
    known: dict[str, dict[str, Any]] = {
        "prune channels 50 %": {"technique": "prune", "method": "channels", "amount": 0.5},
        "prune channels 30 %": {"technique": "prune", "method": "channels", "amount": 0.3},
        "static INT8": STATIC,
        "dynamic INT8": {"technique": "quantize", "scheme": "dynamic-int8"},
        "OpenVINO": OPENVINO,
        "OpenVINO BF16": {**OPENVINO, "precision": "bf16"},
        "ONNX": EXPORT,
    }
    return (EXPORT, *(known[part] for part in name.split(" → ") if part != "ONNX"))


def image() -> CardInput:
    """A CNN with twelve recipes, some of them at the same spot, with long names."""
    tried = tuple(
        candidate(
            name,
            _steps(name),
            {1: ratio, 64: ratio * 1.1},
            {"accuracy": (0.873 + d, d)},
            size,
            "multiclass",
            5.2e-2,
        )
        for name, ratio, d, size in (
            ("prune channels 50 % → static INT8 → OpenVINO", 16.5, -0.004, 7_300_000),
            ("prune channels 30 % → static INT8 → OpenVINO", 7.8, -0.002, 13_100_000),
            ("static INT8 → OpenVINO", 6.9, -0.001, 26_000_000),
            ("prune channels 50 % → static INT8", 8.3, -0.0045, 7_400_000),
            ("prune channels 30 % → static INT8", 5.6, -0.0022, 13_000_000),
            ("OpenVINO BF16", 4.1, 0.0004, 102_000_000),
            ("prune channels 50 %", 3.7, -0.003, 28_000_000),
            ("static INT8", 2.9, -0.0012, 26_000_000),
            ("prune channels 30 %", 2.2, -0.0005, 54_000_000),
            ("OpenVINO", 1.45, 0.0, 102_000_000),
            ("ONNX", 1.4, 0.0, 102_000_000),
            ("dynamic INT8", 0.2, -0.416, 26_000_000),
        )
    )
    name = tried[0].name
    steps = ({"technique": "prune", "method": "channels", "amount": 0.5}, EXPORT, STATIC, OPENVINO)
    winner = model(
        3,
        steps,
        7_300_000,
        task="multiclass",
        family="cnn",
        framework="torch",
        labels=tuple(range(10)),
        runtime=RuntimeChoice(name="openvino", options={"hint": "latency"}),
    )
    return passing(
        name="clothes-resnet18",
        candidates=tried,
        winner=winner,
        lineage=(),
        benchmark=tried[0].benchmark,
        baseline_validation=evaluation(
            "baseline", "validation", {"accuracy": (0.873, 0.0)}, "multiclass", 10000
        ),
        baseline_test=evaluation(
            "baseline", "test", {"accuracy": (0.872, 0.0)}, "multiclass", 10000
        ),
        winner_test=evaluation(name, "test", {"accuracy": (0.869, -0.003)}, "multiclass", 10000),
        selection=selection(
            tried,
            name,
            "accuracy",
            "the fastest of 12 recipes that lose less than 1 pt of accuracy",
        ),
        verdict=verdict(
            "pass",
            (
                rule(
                    "max_drop.accuracy",
                    "pass",
                    interval(-0.003, 0.003),
                    0.01,
                    "the difference stays above −1 pt",
                ),
                *RULES[2:],
            ),
            "16.5× faster, accuracy within the margin",
            name,
        ),
    )


def extreme() -> CardInput:
    """A forest that gets 450 times faster, a slower candidate, a void timing."""
    tried = (
        candidate(
            "ONNX",
            (EXPORT,),
            {1: 450.0, 1000: 1.9},
            {"rmse": (48213.4, -31.0)},
            98_000_000,
            "regression",
            1.56e-2,
        ),
        candidate(
            "refit depth 3",
            (PRUNE, EXPORT),
            {1: 1410.0, 1000: 12.0},
            {"rmse": (51002.0, 2757.6)},
            90_000,
            "regression",
            1.56e-2,
        ),
        candidate(
            "slower",
            (OPENVINO,),
            {1: 0.75, 1000: 0.8},
            {"rmse": (48244.4, 0.0)},
            140_000_000,
            "regression",
            1.56e-2,
            "loaded",
        ),
        candidate(
            "void",
            (OPENVINO,),
            {1: 1.1, 1000: 1.0},
            {"rmse": (48244.4, 0.0)},
            140_000_000,
            "regression",
            1.56e-2,
            "void",
        ),
    )
    return passing(
        name="house-prices",
        candidates=tried,
        benchmark=tried[2].benchmark,
        baseline_validation=evaluation(
            "baseline", "validation", {"rmse": (48244.4, 0.0)}, "regression"
        ),
        baseline_test=evaluation("baseline", "test", {"rmse": (48101.2, 0.0)}, "regression"),
        winner_test=evaluation("ONNX", "test", {"rmse": (48070.2, -31.0)}, "regression"),
        selection=selection(tried, "ONNX", "rmse", "the most exact", higher=False),
        verdict=verdict("inconclusive", (), "there were no rules", "ONNX"),
    )


def refused_only() -> CardInput:
    reasons = {
        "static INT8": "this CPU has neither VNNI nor AMX",
        "OpenVINO": "the target allows only ONNX Runtime",
        "prune": "there is no trainable form of this model",
    }
    return baseline_kept().model_copy(
        update={
            "candidates": (
                Candidate(name="prune", uri="", model="", steps=(PRUNE,), refusal=reasons["prune"]),
            ),
            "refused": tuple(Refused(name=n, reason=r) for n, r in reasons.items()),
            "selection": Selection(
                objective="latency",
                metric="accuracy",
                higher_is_better=True,
                ranking=(),
                winner="baseline",
                reason="no recipe could be carried out",
            ),
        }
    )


def hostile() -> CardInput:
    """Names and texts that try to be markup, in every place a user's text can stand."""
    bad = (
        "</title><script>alert(1)</script><img src=x onerror=alert(2)> "
        "| `**[x](javascript:alert(3))**"
    )
    tried = (
        candidate(bad, ({"technique": bad, bad: bad},), {1: 1.5}, {"accuracy": (0.9, 0.0)}, 10),
    )
    winner = model(
        3, ({"technique": bad, bad: bad},), 10, name=bad, features=(bad,), unused_features=(bad,)
    )
    return passing(
        run=bad,
        name=bad,
        code_version=bad,
        candidates=tried,
        winner=winner,
        lineage=(),
        benchmark=tried[0].benchmark,
        data=DataInfo(
            source=bad,
            method=bad,
            label=bad,
            notes=(bad,),
            splits=(SplitRows(name=bad, rows=1, digest=bad),),
        ),
        environment={bad: bad, "packages": {bad: bad}},
        refused=(Refused(name="r" + bad, steps=({"technique": bad},), reason=bad),),
        winner_test=evaluation(bad, "test", {"accuracy": (0.9, 0.0), bad: (1.0, 0.0)}),
        selection=selection(tried, bad, "accuracy", bad),
        served=served().model_copy(update={"checks": {bad: False}, "errors": (bad,)}),
        verdict=verdict("pass", (rule(bad, "pass", interval(1, 0.1), 0.5, bad),), bad, bad),
    )


SAMPLES: dict[str, Callable[[], CardInput]] = {
    f.__name__: f
    for f in (
        passing,
        rejected,
        inconclusive,
        baseline_kept,
        image,
        extreme,
        refused_only,
        hostile,
        full,
        fifty,
    )
}
