"""Timing that gives a trustworthy ratio: interleaved, paired, with a control.

The protocol, for callables that each do one call of a variant:

1. Warm up until a call gets no faster, and say after how many. Garbage collection is off.
2. Rounds visit the variants in random order. After each switch one call is not timed, then as
   many calls are timed together as make a sample of 200 microseconds.
3. The baseline takes part twice; what the two differ by (the A/A control) is an error of the
   measurement, and beyond 2 % nothing may be concluded.
4. Wall time, CPU time of the process and involuntary context switches are kept of each sample.
5. It stops when the interval of the ratio is within 2 %, or when the time is up.
6. The whole is repeated in fresh processes, and the interval covers what differs between them.
7. No sample is left out. Slow calls are counted (`Outliers`) and kept in the percentiles.
"""

import gc
import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from trimgate.judge import _stats
from trimgate.judge.records import QUANTILES, BatchBenchmark, Interval, Outliers, Timing

Floats = NDArray[np.float64]

BASELINE, CONTROL, CANDIDATE = "baseline", "control", "candidate"
# Calls stamped one by one after a sample that times many together: they give the percentiles.
_SINGLES = 8
_CHECK_EVERY = 10
# How many times as far as the control an effect must be from 1 to stand beside a tilted control.
_FAR = 10
# Whatever the budget: fewer rounds give no interval at all.
_LEAST_ROUNDS = 6
_STRETCH = 3


class BenchmarkSettings(BaseModel):
    """How long and how finely to measure.

    Attributes:
        seconds: Time for all timed rounds: all batch sizes and processes together. Up to three
            times as much when calls are so slow that `min_rounds` do not fit.
        processes: Fresh processes.
        min_rounds: Rounds in all processes together before it may stop as precise.
        warmup: Least number of untimed calls of each variant.
        sample_us: A sample lasts at least this long; short calls are timed together.
        precision: Stop when the ratio's interval is within this share of it.
        control_tolerance: The A/A control may be off by this much.
        confidence: Two-sided level of the intervals.
        resamples: Of the bootstrap.
        load_seconds: Time for each rate of the open-loop load test (`target.rates`), and for
            several callers at once (`target.concurrency`), baseline and candidate together.
        served_load_seconds: Time for each rate of the load test on the model server. Where the
            target names no rate it is one that both models can surely carry; 0 leaves it out.
        loadgen: Also run MLPerf LoadGen, which needs the extra `loadgen`.
        loadgen_seconds: Time for each of its runs: three scenarios, two models.
        timeout: Seconds after which a measuring process is given up.
        seed: Of the order of the variants and of the bootstrap.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    seconds: float = Field(default=8.0, gt=0)
    processes: int = Field(default=3, ge=1)
    min_rounds: int = Field(default=80, ge=1)
    warmup: int = Field(default=5, ge=1)
    sample_us: float = Field(default=200.0, gt=0)
    precision: float = Field(default=0.02, gt=0)
    control_tolerance: float = Field(default=0.02, gt=0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    resamples: int = Field(default=2000, ge=100)
    load_seconds: float = Field(default=8.0, gt=0)
    served_load_seconds: float = Field(default=4.0, ge=0)
    loadgen: bool = False
    loadgen_seconds: float = Field(default=3.0, gt=0)
    timeout: float = Field(default=600.0, gt=0)
    seed: int = 0


class Samples(BaseModel):
    """What one process measured at one batch size, by variant.

    Attributes:
        wall: Wall seconds of a call, by round.
        cpu: CPU seconds of the process for a call, by round.
        disturbed: Whether the kernel took the CPU away during the sample, by round.
        singles: Wall seconds of calls that were timed one by one.
        calls: How many calls make a sample.
        stopped: Why it stopped.
        warmup: Untimed calls until it was steady.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    wall: dict[str, list[float]]
    cpu: dict[str, list[float]]
    disturbed: dict[str, list[bool]]
    singles: dict[str, list[float]]
    calls: dict[str, int]
    stopped: Literal["precise", "budget"]
    warmup: dict[str, int] = Field(default_factory=dict)


def interleave(
    variants: Mapping[str, Callable[[], object]],
    settings: BenchmarkSettings,
    *,
    seconds: float | None = None,
    seed: int | None = None,
) -> Samples:
    """Times variants side by side in this process.

    Args:
        variants: By name, each a callable that does one call; `baseline`, and usually `control`
            (the baseline again) and `candidate`.
        settings: The protocol's.
        seconds: Time for the rounds; by default this process's share of the settings'.
        seed: Of the order; by default the settings'.
    """
    budget = settings.seconds / settings.processes if seconds is None else seconds
    least = max(_LEAST_ROUNDS, math.ceil(settings.min_rounds / settings.processes))
    rng = np.random.default_rng(settings.seed if seed is None else seed)
    names = list(variants)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    disturbed: dict[str, list[bool]] = {name: [] for name in names}
    singles: dict[str, list[float]] = {name: [] for name in names}
    stopped: Literal["precise", "budget"] = "budget"
    with _quiet():
        calls, warmup = {}, {}
        for name in names:
            typical, warmup[name] = _warm_up(
                variants[name], settings.warmup, budget / (4 * len(names))
            )
            calls[name] = max(1, math.ceil(settings.sample_us * 1e-6 / max(typical, 1e-9)))
        start = time.perf_counter()
        rounds = 0
        while _goes_on(rounds, least, time.perf_counter() - start, budget):
            for position in rng.permutation(len(names)):
                name = names[position]
                sample = _sample(variants[name], calls[name])
                wall[name].append(sample[0])
                cpu[name].append(sample[1])
                disturbed[name].append(sample[2])
                singles[name] += sample[3]
            rounds += 1
            checked = rounds >= least and rounds % _CHECK_EVERY == 0
            if checked and all(
                _is_precise(wall[BASELINE], wall[name], settings)
                for name in names
                if name != BASELINE
            ):
                stopped = "precise"
                break
    return Samples(
        wall=wall,
        cpu=cpu,
        disturbed=disturbed,
        singles=singles,
        calls=calls,
        stopped=stopped,
        warmup=warmup,
    )


def summarise(
    runs: Sequence[Samples], batch_size: int, settings: BenchmarkSettings
) -> BatchBenchmark:
    """One batch size from what the processes measured.

    Args:
        runs: Of `interleave` with the variants `baseline`, `control` and `candidate`, one for
            each fresh process.
        batch_size: Rows per call.
        settings: As they were measured with.

    Notes:
        The ratio of a process is the median over its rounds of the paired ratios. The record's
        value is their geometric mean. Its variance is the larger of what the processes' ratios
        show between them and of what the rounds show within (bootstrap of the rounds), with
        Student's t for so many degrees of freedom as that leaves (Satterthwaite): with
        three processes that differ it is 2, so the interval is wide, and rightly.

        A control that is off by more than its tolerance voids the timing, unless even the near
        end of the candidate's interval lies ten times as far from 1 (on a log scale): what
        tilted the control cannot explain such an effect. The interval is then widened by as
        much as the control is off, and the timing is labelled `loaded`.
    """
    wall = _ratio(runs, CANDIDATE, "wall", settings)
    cpu = _ratio(runs, CANDIDATE, "cpu", settings)
    control = _ratio(runs, CONTROL, "wall", settings)
    disturbed = [flag for run in runs for flags in run.disturbed.values() for flag in flags]
    loaded = sum(disturbed) > len(disturbed) / 2
    state: Literal["clean", "loaded", "void"] = "loaded" if loaded else "clean"
    if not abs(control.value - 1) <= settings.control_tolerance:
        off = abs(math.log(control.value))
        if _least_effect(wall) > _FAR * off:
            loaded, state = True, "loaded"
            wall, cpu = _widened(wall, off), _widened(cpu, off)
        else:
            state = "void"
    precise = all(run.stopped == "precise" for run in runs)
    timings = {
        variant: _timing(runs, variant, batch_size, loaded) for variant in (BASELINE, CANDIDATE)
    }
    return BatchBenchmark(
        batch_size=batch_size,
        wall=wall,
        cpu=cpu,
        control=control,
        control_cpu=_ratio(runs, CONTROL, "cpu", settings),
        baseline=timings[BASELINE],
        candidate=timings[CANDIDATE],
        rounds=sum(len(run.wall[BASELINE]) for run in runs),
        processes=len(runs),
        state=state,
        stopped="precise" if precise else "budget",
        warmup={name: max(run.warmup.get(name, 0) for run in runs) for name in timings},
        outliers={name: _outliers(_singles(runs, name)) for name in timings},
        throughput_per_core={
            name: batch_size / max(timing.cpu, 1e-9) for name, timing in timings.items()
        },
    )


def _least_effect(ratio: Interval) -> float:
    """How far the near end of an interval is from 1, on a log scale; 0 when it holds 1."""
    if ratio.low <= 1 <= ratio.high:
        return 0.0
    return min(abs(math.log(ratio.low)), abs(math.log(ratio.high)))


def _widened(ratio: Interval, off: float) -> Interval:
    low, high = ratio.low * math.exp(-off), ratio.high * math.exp(off)
    return ratio.model_copy(
        update={"low": low, "high": high, "method": f"{ratio.method}, widened by the control"}
    )


def _goes_on(rounds: int, least: int, spent: float, budget: float) -> bool:
    """Until the time is up; beyond it only for the rounds without which there is no result."""
    return (
        rounds < _LEAST_ROUNDS or spent < budget or (rounds < least and spent < _STRETCH * budget)
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection meanwhile."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _warm_up(call: Callable[[], object], least: int, seconds: float) -> tuple[float, int]:
    """Calls until the last calls are no faster than those before.

    Returns:
        Median seconds of the last calls, and how many calls there were.
    """
    times: list[float] = []
    end = time.perf_counter() + seconds
    while True:
        for _ in range(least):
            start = time.perf_counter_ns()
            call()
            times.append((time.perf_counter_ns() - start) * 1e-9)
        last = statistics.median(times[-least:])
        before = statistics.median(times[-2 * least : -least]) if len(times) > least else None
        settled = before is not None and last > 0.95 * before
        if settled or time.perf_counter() > end:
            return last, len(times)


def _sample(call: Callable[[], object], calls: int) -> tuple[float, float, bool, list[float]]:
    call()  # not timed: it refills the caches that the variant before emptied
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    cpu_start = time.process_time_ns()
    start = time.perf_counter_ns()
    for _ in range(calls):
        call()
    wall = (time.perf_counter_ns() - start) * 1e-9 / calls
    cpu = (time.process_time_ns() - cpu_start) * 1e-9 / calls
    disturbed = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw > switches
    if calls == 1:
        return wall, cpu, disturbed, [wall]
    singles = []
    for _ in range(_SINGLES):
        start = time.perf_counter_ns()
        call()
        singles.append((time.perf_counter_ns() - start) * 1e-9)
    return wall, cpu, disturbed, singles


def _is_precise(base: list[float], other: list[float], settings: BenchmarkSettings) -> bool:
    """Whether the median of the paired ratios is known well enough, by its order statistics.

    The stop looks at the width alone, never at the value, so it does not favour a result.
    """
    ratios = np.sort(np.asarray(base) / np.asarray(other))
    count = len(ratios)
    reach = _stats.two_sided_z(settings.confidence) * math.sqrt(count) / 2
    low = ratios[max(0, math.floor(count / 2 - reach))]
    high = ratios[min(count - 1, math.ceil(count / 2 + reach))]
    return bool((high - low) / 2 <= settings.precision * np.median(ratios))


def _ratio(
    runs: Sequence[Samples],
    variant: str,
    clock: Literal["wall", "cpu"],
    settings: BenchmarkSettings,
) -> Interval:
    rng = np.random.default_rng(settings.seed)
    medians, within = [], []
    for run in runs:
        times = getattr(run, clock)
        # The CPU clock may tick so coarsely that a short sample reads 0.
        base = np.maximum(np.asarray(times[BASELINE]), 1e-9)
        ratios = np.log(base / np.maximum(np.asarray(times[variant]), 1e-9))
        medians.append(float(np.median(ratios)))
        picks = rng.integers(0, len(ratios), (settings.resamples, len(ratios)))
        within.append(float(np.median(ratios[picks], axis=1).var()))
    count = len(medians)
    inner = statistics.fmean(within)
    outer = statistics.variance(medians) if count > 1 else 0.0
    larger = max(inner, outer)
    tail = 0.5 + settings.confidence / 2
    if outer > 0 and count > 1:
        freedom = (count - 1) * (larger / outer) ** 2
        reach = _stats.t_quantile(tail, min(freedom, 1e6))
    else:
        reach = _stats.normal_quantile(tail)
    centre, half = statistics.fmean(medians), reach * math.sqrt(larger / count)
    return Interval(
        value=math.exp(centre),
        low=math.exp(centre - half),
        high=math.exp(centre + half),
        confidence=settings.confidence,
        method=f"paired rounds, bootstrap within and t between {count} processes",
    )


def _singles(runs: Sequence[Samples], variant: str) -> Floats:
    return np.concatenate([run.singles[variant] for run in runs])


def _outliers(times: Floats) -> Outliers:
    """Calls beyond Tukey's outer fence (Tukey, "Exploratory Data Analysis", 1977)."""
    lower, upper = np.quantile(times, [0.25, 0.75])
    share = float(np.mean(times > upper + 3 * (upper - lower)))
    return Outliers(share=share, largest=float(times.max()))


def _timing(runs: Sequence[Samples], variant: str, batch_size: int, loaded: bool) -> Timing:
    singles = _singles(runs, variant)
    p50, p95, p99 = (float(q) for q in np.quantile(singles, [0.5, 0.95, 0.99]))
    cpu = float(np.median(np.concatenate([run.cpu[variant] for run in runs])))
    return Timing(
        p50=p50,
        p95=p95,
        p99=None if loaded else p99,
        cpu=cpu,
        throughput=batch_size / p50,
        quantiles=tuple(float(q) for q in np.quantile(singles, QUANTILES)),
    )
