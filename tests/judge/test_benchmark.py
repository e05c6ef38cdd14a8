import itertools

import numpy as np
import pytest
from pydantic import ValidationError

from trimgate.judge import benchmark
from trimgate.judge.benchmark import BenchmarkSettings, Samples, interleave, summarise
from trimgate.judge.records import QUANTILES, Benchmark, Candidate, Footprint
from trimgate.judge.selection import select

FOOTPRINT = Footprint(size=100, peak_rss=2**27, base_rss=2**26, cold_start=1.0, load=0.5)
QUICK = BenchmarkSettings(seconds=0.3, processes=1, min_rounds=10, resamples=200)


def samples(baseline, candidate, *, control=None, disturbed=0.0, stopped="precise", seed=0):
    """Made-up samples of one process: lists of wall seconds by round."""
    control = baseline if control is None else control
    walls = {"baseline": baseline, "control": control, "candidate": candidate}
    walls = {name: [float(v) for v in values] for name, values in walls.items()}
    flags = np.random.default_rng(seed).random(len(baseline)) < disturbed
    return Samples(
        wall=walls,
        cpu=walls,
        disturbed={name: [bool(f) for f in flags] for name in walls},
        singles=walls,
        calls=dict.fromkeys(walls, 1),
        stopped=stopped,
    )


def noisy(ratio, *, rounds=100, noise=0.02, seed=0, drift=0.0):
    rng = np.random.default_rng(seed)
    load = np.exp(np.linspace(0, drift, rounds))  # what slows every variant of a round alike
    base = 1e-3 * load * np.exp(noise * rng.normal(size=rounds))
    other = 1e-3 / ratio * load * np.exp(noise * rng.normal(size=rounds))
    again = 1e-3 * load * np.exp(noise * rng.normal(size=rounds))
    return samples(base, other, control=again)


def test_interleaves_every_variant_in_every_round():
    order = []
    variants = {n: (lambda n=n: order.append(n)) for n in ("baseline", "control", "candidate")}
    settings = QUICK.model_copy(update={"sample_us": 1e-3, "seconds": 0.01})
    found = interleave(variants, settings)
    rounds = len(found.wall["baseline"])
    assert rounds >= 6
    for name in variants:
        assert len(found.wall[name]) == len(found.cpu[name]) == len(found.disturbed[name]) == rounds
        assert min(found.wall[name]) > 0
    switches = [name for name, before in zip(order[1:], order, strict=False) if name != before]
    assert len(set(itertools.pairwise(switches))) == 6, "the order is not random"


def test_short_calls_are_timed_together_and_also_one_by_one():
    found = interleave({"baseline": lambda: None, "candidate": lambda: sum(range(200_000))}, QUICK)
    assert found.calls["baseline"] > 100
    assert found.calls["candidate"] == 1
    assert len(found.singles["baseline"]) == 8 * len(found.wall["baseline"])
    assert len(found.singles["candidate"]) == len(found.wall["candidate"])


def test_garbage_collection_is_off_meanwhile_and_back_on_after_an_error():
    import gc

    seen = []

    def call():
        seen.append(gc.isenabled())
        if len(seen) > 20:
            raise RuntimeError("broken model")

    with pytest.raises(RuntimeError, match="broken model"):
        interleave({"baseline": call}, QUICK)
    assert not any(seen)
    assert gc.isenabled()


def test_warm_up_goes_on_while_calls_get_faster(monkeypatch):
    clock = {"ns": 0, "calls": 0}

    def call():
        clock["calls"] += 1
        clock["ns"] += max(1_000, 64_000 // 2 ** (clock["calls"] // 5))

    monkeypatch.setattr(benchmark.time, "perf_counter_ns", lambda: clock["ns"])
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock["ns"] * 1e-9)
    seconds, calls = benchmark._warm_up(call, 5, seconds=1.0)
    assert seconds == pytest.approx(1e-6)
    assert calls == clock["calls"] > 10
    assert clock["calls"] == 40  # six halvings, and one more look that finds no gain


def test_the_paired_ratio_survives_a_drift_that_fools_sequential_timing():
    settings = BenchmarkSettings(processes=3)
    runs = [noisy(0.75, seed=s, drift=1.4) for s in range(3)]
    found = summarise(runs, 1, settings)
    assert found.wall.low < 0.75 < found.wall.high
    assert found.wall.high < 0.8
    assert found.state == "clean"
    assert found.stopped == "precise"
    assert (found.rounds, found.processes) == (300, 3)


def test_the_interval_covers_what_differs_between_processes():
    settings = BenchmarkSettings()
    alike = summarise([noisy(2.0, seed=s) for s in range(3)], 1, settings).wall
    apart = summarise([noisy(r, seed=s) for s, r in enumerate((1.9, 2.0, 2.1))], 1, settings).wall
    assert apart.low < 1.85
    assert apart.high > 2.15
    assert alike.high - alike.low < (apart.high - apart.low) / 3


def test_interval_of_the_ratio_covers_the_truth():
    """Processes differ by 1 %, rounds by 5 %; the 95 % interval holds the true ratio."""
    rng = np.random.default_rng(0)
    settings = BenchmarkSettings(resamples=100)
    hits = 0
    for trial in range(150):
        runs = [
            noisy(1.5 * np.exp(0.01 * rng.normal()), rounds=27, noise=0.05, seed=3 * trial + p)
            for p in range(3)
        ]
        wall = summarise(runs, 1, settings).wall
        hits += wall.low <= 1.5 <= wall.high
    assert hits / 150 > 0.9


def test_a_control_that_is_off_voids_the_timing():
    base = np.full(50, 1e-3)
    for candidate in (base / 1.3, base * 1.3, base):
        run = samples(base, candidate, control=base * 1.03)
        assert summarise([run], 1, BenchmarkSettings()).state == "void"
        assert summarise([run], 1, BenchmarkSettings(control_tolerance=0.05)).state == "clean"


def test_a_tilted_control_cannot_explain_a_large_effect():
    base = np.full(50, 1e-3)
    run = samples(base, base / 100, control=base * 1.03)
    found = summarise([run], 1, BenchmarkSettings())
    assert found.state == "loaded"
    assert found.candidate.p99 is None
    assert found.wall.low == pytest.approx(100 / 1.03)
    assert found.wall.high == pytest.approx(100 * 1.03)
    assert "widened" in found.wall.method
    slow = summarise([samples(base, base * 100, control=base * 1.03)], 1, BenchmarkSettings())
    assert slow.state == "loaded"
    assert slow.wall.high < 0.011


def test_a_loaded_machine_gives_no_p99():
    base = np.full(200, 1e-3)
    found = summarise([samples(base, base / 2, disturbed=0.8)], 10, BenchmarkSettings())
    assert found.state == "loaded"
    assert found.baseline.p99 is None
    assert found.candidate.throughput == pytest.approx(20_000)
    assert summarise([samples(base, base)], 1, BenchmarkSettings()).baseline.p99 == 1e-3


def test_slow_calls_get_more_time_for_the_least_rounds():
    goes_on = benchmark._goes_on
    assert goes_on(rounds=3, least=27, spent=99.0, budget=1.0)
    assert goes_on(rounds=20, least=27, spent=2.9, budget=1.0)
    assert not goes_on(rounds=20, least=27, spent=3.1, budget=1.0)
    assert not goes_on(rounds=27, least=27, spent=1.1, budget=1.0)
    assert goes_on(rounds=500, least=27, spent=0.9, budget=1.0)


def test_says_whether_the_budget_ended_it():
    base = np.full(20, 1e-3)
    runs = [samples(base, base), samples(base, base, stopped="budget")]
    assert summarise(runs, 1, BenchmarkSettings()).stopped == "budget"


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError):
        BenchmarkSettings.model_validate({"second": 3})
    with pytest.raises(ValidationError):
        BenchmarkSettings(seconds=0)


def test_what_sequential_timing_calls_2_9_times_faster_is_slower_when_paired(
    monkeypatch, make_pair
):
    """A machine that is 3.87 times as slow at first: whoever is timed first looks bad."""
    clock = {"ns": 0}

    def call(seconds):
        def work():
            slow = 1 + 2.87 / (1 + np.exp((clock["ns"] * 1e-9 - 2) / 0.1))
            clock["ns"] += round(1e9 * seconds * slow)

        return work

    monkeypatch.setattr(benchmark.time, "perf_counter_ns", lambda: clock["ns"])
    monkeypatch.setattr(benchmark.time, "process_time_ns", lambda: clock["ns"])
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock["ns"] * 1e-9)
    baseline, candidate = call(1e-3), call(1e-3 / 0.75)

    def median(work):
        times = []
        for _ in range(300):
            start = clock["ns"]
            work()
            times.append(clock["ns"] - start)
        return np.median(times)

    before = median(baseline)
    clock["ns"] = round(4e9)
    sequential = before / median(candidate)
    assert sequential == pytest.approx(2.9, abs=0.02)

    runs = []
    for seed in range(3):
        clock["ns"] = 0
        settings = BenchmarkSettings(seconds=12, processes=3, precision=1e-9)
        variants = {"baseline": baseline, "control": baseline, "candidate": candidate}
        runs.append(interleave(variants, settings, seed=seed))
    paired = summarise(runs, 1, settings)
    assert paired.wall.value == pytest.approx(0.75, rel=0.01)
    assert paired.wall.high < 1, "slower, and surely"
    assert paired.state != "void"

    base, evaluation = make_pair(2000, split="validation")
    record = Benchmark(
        baseline_model="base", model="cand", name="quick", target="cloud-cpu", batches=(paired,),
        baseline=FOOTPRINT, candidate=FOOTPRINT,
    )  # fmt: skip
    entry = Candidate(
        name="quick", uri="/m", model="cand", steps=({"technique": "quantize"},),
        evaluation=evaluation, benchmark=record,
    )  # fmt: skip
    chosen = select(base, [entry], objective="latency")
    assert chosen.winner == "baseline"
    assert "0.75 times" in chosen.ranking[1].reason


def test_slow_calls_are_kept_and_counted():
    quick = [1e-3] * 97 + [1.1e-3]
    found = summarise([samples([1e-3] * 100, [*quick, 0.5, 0.02])], 4, QUICK)
    assert found.outliers["candidate"].share == pytest.approx(0.03)
    assert found.outliers["candidate"].largest == 0.5
    assert found.outliers["baseline"].share == 0
    assert found.candidate.quantiles[-1] == 0.5, "the slowest call is still there"
    assert found.candidate.quantiles[0] == 1e-3
    assert len(found.candidate.quantiles) == len(QUANTILES) == 23
    assert found.candidate.quantiles[QUANTILES.index(0.5)] == found.candidate.p50
    assert found.throughput_per_core["candidate"] == pytest.approx(4 / 1e-3)


def test_the_record_says_after_how_many_calls_it_was_warm():
    variants = dict.fromkeys(("baseline", "control", "candidate"), lambda: sum(range(10_000)))
    found = interleave(variants, QUICK)
    assert all(found.warmup[name] >= 2 * QUICK.warmup for name in variants)
    record = summarise([found], 1, QUICK)
    assert record.warmup == {n: found.warmup[n] for n in ("baseline", "candidate")}
