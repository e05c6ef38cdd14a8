"""Load: several callers at once, and requests that arrive whatever is answered yet.

A client that waits for an answer before it asks again (a closed loop) does not ask while the
model stalls, and so does not see the stall: coordinated omission. In an open loop the arrivals are
scheduled beforehand, and the latency of a request counts from when it was due, the time it waited
for a free worker included (Schroeder, Wierman and Harchol-Balter, "Open versus closed: a cautionary
tale", NSDI 2006; Tene, "How not to measure latency", 2013).

Baseline and candidate take turns in blocks, in random order within a pair, with the same arrivals.
"""

import ctypes
import itertools
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from trimgate.judge import _stats
from trimgate.judge.benchmark import BASELINE, CANDIDATE
from trimgate.judge.records import QUANTILES, Concurrent, Interval, LoadPoint, LoadResult

Floats = NDArray[np.float64]
Call = Callable[[int], object]
"""Sends one request, told by its number, and waits for the answer; it may raise."""

LEAST_REQUESTS = 100  # a 99th percentile of fewer is the slowest one or a guess
_PAIRS = 4
_SETTLE = 10  # untimed requests of each worker
_LATE = 1e-3
_LATE_SHARE = 0.1
_LEAD = 0.005
# While baseline and candidate are paired by so few blocks, seconds of a block matter more.
_LEAST_BLOCK = 0.1
_PR_SET_TIMERSLACK = 29


class Block(BaseModel):
    """What one variant did in one block.

    Attributes:
        latencies: Seconds from when each answered request was due (open loop) or was sent
            (closed loop).
        seconds: From the first request to the last answer.
        errors: Requests that raised.
        dropped: Requests that were never sent.
        late: Sent over a millisecond after they were due, as all workers were busy.
        overslept: Sent over a millisecond late though a worker was free: the generator's fault.
        message: Of the first error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    variant: str
    latencies: list[float]
    seconds: float
    errors: int = 0
    dropped: int = 0
    late: int = 0
    overslept: int = 0
    message: str = ""


class Workers:
    """Threads that each make a call of their own once, and use it for every block.

    Args:
        make: Makes the call, in the thread that will use it: sessions and connections are not
            shared between threads.
        count: How many.

    Raises:
        Exception: What `make` raised in any of the threads.
    """

    def __init__(self, make: Callable[[], Call], count: int) -> None:
        self.count = count
        self._job: Callable[[Call], None] | None = None
        self._begin = threading.Barrier(count + 1)
        self._end = threading.Barrier(count + 1)
        self._failed: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._work, args=(make,), daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()
        self._end.wait()
        if self._failed:
            self.close()
            raise self._failed[0]

    def _work(self, make: Callable[[], Call]) -> None:
        _precise_sleep()
        call: Call | None = None
        try:
            call = make()
            for number in range(_SETTLE):
                call(number)
        except Exception as error:
            self._failed.append(error)
        self._end.wait()
        while True:
            self._begin.wait()
            if self._job is None:
                return
            if call is not None:
                self._job(call)
            self._end.wait()

    def run(self, job: Callable[[Call], None]) -> None:
        """Runs the job in every thread, with the thread's call, and waits for all of them."""
        self._job = job
        self._begin.wait()
        self._end.wait()

    def close(self) -> None:
        """Ends the threads."""
        self._job = None
        self._begin.wait()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def arrivals(rate: float, seconds: float, rng: np.random.Generator) -> Floats:
    """When requests are due, in seconds from the start: a Poisson process.

    Args:
        rate: Requests per second.
        seconds: None is due later; there is at least one.
        rng: Of the gaps.
    """
    count = rate * seconds
    gaps = rng.exponential(1 / rate, size=max(1, math.ceil(count + 6 * math.sqrt(count) + 6)))
    due: Floats = gaps.cumsum()
    return due[due < seconds] if due[0] < seconds else np.zeros(1)


def open_loop(workers: Workers, due: Floats, *, variant: str, grace: float) -> Block:
    """Sends requests when they are due, or as soon after as a worker is free.

    Args:
        workers: As many requests can be in work at once.
        due: When each is due, in seconds from the start, in order.
        variant: Name for the block.
        grace: What could not be sent so many seconds after the last was due is dropped.
    """
    numbers = itertools.count()
    lock = threading.Lock()
    latencies: list[float] = []
    problems: list[str] = []
    # each thread's `next` adds one; the last `next` tells how many there were
    dropped, late, overslept = itertools.count(), itertools.count(), itertools.count()
    start = time.perf_counter() + _LEAD
    last = start + float(due[-1]) + grace

    def job(call: Call) -> None:
        while True:
            with lock:
                number = next(numbers)
            if number >= len(due):
                return
            at = start + float(due[number])
            now = time.perf_counter()
            if now > last:
                next(dropped)
                continue
            busy = now > at
            if not busy:
                time.sleep(at - now)
            if time.perf_counter() - at > _LATE:
                next(late if busy else overslept)
            try:
                call(number)
            except Exception as error:
                problems.append(str(error) or type(error).__name__)
                continue
            latencies.append(time.perf_counter() - at)

    with _fair_switching():
        workers.run(job)
    return Block(
        variant=variant,
        latencies=latencies,
        seconds=time.perf_counter() - start,
        errors=len(problems),
        dropped=next(dropped),
        late=next(late),
        overslept=next(overslept),
        message=problems[0] if problems else "",
    )


def closed_loop(workers: Workers, seconds: float, *, variant: str, start: float = 0.0) -> Block:
    """Every worker calls again as soon as it has its answer.

    Args:
        workers: The callers.
        seconds: No call begins later.
        variant: Name for the block.
        start: Time of the monotonic clock at which to begin, for processes that begin together.

    Raises:
        Exception: What a call raised.
    """
    latencies: list[float] = []
    failed: list[Exception] = []
    numbers = itertools.count()

    def job(call: Call) -> None:
        wait = start - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        end = time.perf_counter() + seconds
        before = time.perf_counter()
        try:
            while before < end:
                call(next(numbers))
                after = time.perf_counter()
                latencies.append(after - before)
                before = after
        except Exception as error:
            failed.append(error)

    workers.run(job)
    if failed:
        raise failed[0]
    return Block(variant=variant, latencies=latencies, seconds=seconds)


def load_blocks(
    variants: Mapping[str, Workers], *, rate: float, seconds: float, seed: int
) -> list[Block]:
    """Open-loop load on each variant in turn.

    Args:
        variants: The workers of `candidate`, and of `baseline` where there is one.
        rate: Requests per second.
        seconds: For all blocks together; a slow model's queue may take half as long again.
        seed: Of arrivals and order.
    """
    rng = np.random.default_rng(seed)
    length = max(_LEAST_BLOCK, seconds / (_PAIRS * len(variants)))
    blocks = []
    for _ in range(_PAIRS):
        due = arrivals(rate, length, rng)
        for position in rng.permutation(len(variants)):
            name = list(variants)[position]
            blocks.append(open_loop(variants[name], due, variant=name, grace=length / 2))
    return blocks


def summarise_load(
    blocks: Sequence[Block],
    *,
    where: Literal["session", "server"],
    rate: float,
    concurrency: int,
    batch_size: int = 1,
    confidence: float = 0.95,
) -> LoadResult:
    """One rate from its blocks.

    Notes:
        Percentiles are of all requests of a variant together; failed and dropped ones count as
        infinitely slow. The interval of p99 comes from how the blocks' own p99 differ
        (Student's t on a log scale), and that of the ratio from the pairs of blocks.
    """
    by = {name: [b for b in blocks if b.variant == name] for name in (BASELINE, CANDIDATE)}
    points = {name: _point(own, confidence) for name, own in by.items() if own}
    ratio = None
    base, cand = points.get(BASELINE), points[CANDIDATE]
    if base is not None and base.p99 and cand.p99:
        tails = np.array([_tails(by[name]) for name in (BASELINE, CANDIDATE)])
        if np.isfinite(tails).all():
            logs = np.log(tails[0] / tails[1])
            ratio = _spread(base.p99 / cand.p99, logs, confidence, "pairs of blocks")
    sent = sum(len(b.latencies) + b.errors for b in blocks)
    overslept = sum(b.overslept for b in blocks) / max(sent, 1)
    valid = overslept <= _LATE_SHARE
    reasons = []
    if not valid:
        reasons.append(
            f"the machine was too busy to send on time: {overslept:.0%} of the requests left over "
            "a millisecond late though a worker was free"
        )
    reasons += [
        f"the {name} does not keep up with {rate:g} requests per second"
        for name, point in points.items()
        if point.dropped or point.late > point.requests / 2
    ]
    reasons += [f"{b.variant}: {b.message}" for b in blocks if b.message][:1]
    return LoadResult(
        where=where,
        rate=rate,
        concurrency=concurrency,
        batch_size=batch_size,
        candidate=cand,
        baseline=base,
        p99_ratio=ratio,
        valid=valid,
        reason="; ".join(reasons),
    )


def summarise_concurrent(
    blocks: Sequence[Sequence[Block]],
    *,
    callers: int,
    kind: Literal["threads", "processes"],
    batch_size: int,
    confidence: float = 0.95,
) -> Concurrent:
    """Throughput of several callers.

    Args:
        blocks: By process, the blocks in the order in which all processes did them.
        callers: All processes' together.
        kind: What the callers are.
        batch_size: Rows per call.
        confidence: Of the interval.
    """
    rates: dict[str, list[float]] = {BASELINE: [], CANDIDATE: []}
    times: dict[str, list[float]] = {BASELINE: [], CANDIDATE: []}
    for together in zip(*blocks, strict=True):
        name = together[0].variant
        calls = sum(len(block.latencies) for block in together)
        rates[name].append(max(calls, 1) * batch_size / together[0].seconds)
        times[name] += [t for block in together for t in block.latencies]
    logs = np.log(np.divide(rates[CANDIDATE], rates[BASELINE]))
    value = float(np.exp(np.median(logs)))
    tails = {name: float(np.quantile(own, 0.99)) if own else 0.0 for name, own in times.items()}
    return Concurrent(
        callers=callers,
        kind=kind,
        batch_size=batch_size,
        ratio=_spread(value, logs, confidence, "pairs of blocks"),
        baseline=statistics.median(rates[BASELINE]),
        candidate=statistics.median(rates[CANDIDATE]),
        baseline_p99=tails[BASELINE],
        candidate_p99=tails[CANDIDATE],
    )


def concurrent_blocks(
    variants: Mapping[str, Workers], *, seconds: float, seed: int, start: float = 0.0
) -> list[Block]:
    """Closed-loop blocks of each variant in turn; processes with the same seed go in step.

    Args:
        variants: The callers of `baseline` and of `candidate`.
        seconds: For all blocks together.
        seed: Of the order.
        start: Time of the monotonic clock at which the first block begins; 0 for now.
    """
    rng = np.random.default_rng(seed)
    length = max(_LEAST_BLOCK, seconds / (2 * _PAIRS * len(variants)))
    # the last call of a block may run into the gap before the next
    gap = 0.25 * length if start else 0.0
    blocks = []
    for pair in range(2 * _PAIRS):
        for place, position in enumerate(rng.permutation(len(variants))):
            name = list(variants)[position]
            begin = start + (2 * pair + place) * (length + gap) if start else 0.0
            blocks.append(closed_loop(variants[name], length, variant=name, start=begin))
    return blocks


def _point(blocks: Sequence[Block], confidence: float) -> LoadPoint:
    answered = np.concatenate([np.asarray(b.latencies, dtype=np.float64) for b in blocks])
    errors, dropped = sum(b.errors for b in blocks), sum(b.dropped for b in blocks)
    times = np.concatenate([answered, np.full(errors + dropped, np.inf)])
    p50, p95, p99 = (_quantile(times, q) for q in (0.5, 0.95, 0.99))
    levels = np.quantile(answered, QUANTILES) if len(answered) else ()
    interval = None
    if p99 is not None and len(times) >= LEAST_REQUESTS:
        tails = _tails(blocks)
        if np.isfinite(tails).all():
            interval = _spread(p99, np.log(tails), confidence, "blocks")
    return LoadPoint(
        requests=len(times),
        errors=errors,
        dropped=dropped,
        late=sum(b.late for b in blocks),
        achieved=len(answered) / max(sum(b.seconds for b in blocks), 1e-9),
        p50=p50,
        p95=p95,
        p99=p99,
        quantiles=tuple(map(float, levels)),
        p99_interval=interval,
    )


def _quantile(times: Floats, share: float) -> float | None:
    """An order statistic, as the infinite ones cannot be interpolated; None where it is one."""
    value = float(np.quantile(times, share, method="inverted_cdf")) if len(times) else math.inf
    return value if math.isfinite(value) else None


def _tails(blocks: Sequence[Block]) -> list[float]:
    """p99 of each block."""
    tails = []
    for block in blocks:
        times = np.array(block.latencies + [np.inf] * (block.errors + block.dropped))
        tails.append(_quantile(times, 0.99) or math.inf)
    return tails


def _spread(value: float, logs: Floats, confidence: float, of: str) -> Interval:
    """An interval around a value from how parts of the measurement differ, on a log scale."""
    reach = _stats.t_quantile(0.5 + confidence / 2, len(logs) - 1)
    half = reach * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
    return Interval(
        value=value,
        low=value * math.exp(-half),
        high=value * math.exp(half),
        confidence=confidence,
        method=f"t between {len(logs)} {of}",
    )


@contextmanager
def _fair_switching() -> Iterator[None]:
    """Threads that wake up wait for the interpreter for a tenth of a millisecond at most."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _precise_sleep() -> None:
    """Lets this thread wake up on time: Linux adds 50 microseconds to every sleep else."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
