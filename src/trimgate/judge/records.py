"""What the judging steps write and read: versioned JSON records.

Every record can be saved with `save` and read back with `load`; `trimgate gate`, the card and
the Kubeflow artifacts are made from these alone.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimgate.errors import InvalidInput

Outcome = Literal["pass", "fail", "inconclusive"]

QUANTILES = (0.0, 0.01, *(round(0.05 * k, 2) for k in range(1, 20)), 0.99, 1.0)
"""Where `quantiles` of a latency distribution are taken: 23 points, the ends included."""


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="null", defer_build=True
    )


class Level(_Record):
    """The ends of an interval at one more two-sided confidence."""

    confidence: float
    low: float
    high: float


class Interval(_Record):
    """A value with its confidence interval.

    Attributes:
        value: The point estimate.
        low: Lower end.
        high: Upper end.
        confidence: Two-sided level of the interval.
        method: How it was computed, as the card names it.
        others: The ends at the other confidences that a gate may ask for.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95
    method: str = ""
    others: tuple[Level, ...] = ()

    def at(self, confidence: float) -> "Interval":
        """The same interval at another two-sided confidence.

        A one-sided test at 95 % looks at one end of the two-sided 90 % interval: `at(0.9)`.

        Raises:
            InvalidInput: The record does not hold that confidence.
        """
        own = Level(confidence=self.confidence, low=self.low, high=self.high)
        for level in (own, *self.others):
            if abs(level.confidence - confidence) < 1e-9:
                return Interval(
                    value=self.value,
                    low=level.low,
                    high=level.high,
                    confidence=level.confidence,
                    method=self.method,
                )
        raise InvalidInput(f"the record holds no interval at confidence {confidence:g}")


class Metric(_Record):
    """One quality metric of one model on one split."""

    name: str
    interval: Interval
    higher_is_better: bool


class Flips(_Record):
    """Per-row agreement of a candidate with the baseline.

    Attributes:
        won: Rows that the baseline got wrong and the candidate right.
        lost: Rows that the baseline got right and the candidate wrong.
        changed: Rows whose prediction differs at all.
        p_value: Exact two-sided McNemar test of won against lost; None for regression.
    """

    won: int
    lost: int
    changed: int
    rows: int
    p_value: float | None = None


class Parity(_Record):
    """How closely a model reproduces its parent on the same rows.

    Attributes:
        max_difference: Largest absolute difference of a score.
        mean_difference: Mean absolute difference of the scores.
        agreement: Share of rows with the same predicted label (1.0 for regression when every
            value is within 1e-4 of the parent's, relative).
    """

    max_difference: float
    mean_difference: float
    agreement: float
    rows: int


class Slice(_Record):
    """One model on the rows of a slice; beside the baseline where there is one.

    Attributes:
        name: As people read it: `country = NO`, `amount 10 to 50`, `score 0.2 to 0.4`,
            `2026-03`.
        kind: Where the rows come from: the values (or bands of values) of a column, bands of
            the baseline's score, or windows of time.
        column: The column, or None for score bands.
        rows: How many rows.
        metric: The primary metric of the model.
        difference: Candidate minus baseline of the primary metric, paired. Each level holds for
            this slice alone: what a slice has to show to pass.
        simultaneous: The same, each level holding for all judged slices at once (Bonferroni):
            what shows that a slice is broken, however many were looked at.
        flips: Rows won and lost against the baseline.
        p_value: Two-sided, of no difference: exact McNemar for accuracy, else from the
            bootstrap.
        adjusted_p_value: The same after Holm's correction for all judged slices.
        reason: Why the slice was not judged (too few rows, one class only); else empty.
    """

    name: str
    kind: Literal["column", "score_band", "time_window"]
    column: str | None = None
    rows: int
    metric: Interval | None = None
    difference: Interval | None = None
    simultaneous: Interval | None = None
    flips: Flips | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    reason: str = ""


class CalibrationBin(_Record):
    """The rows whose confidence lies between `low` and `high`.

    Attributes:
        mean_score: Their mean score: of the positive class when binary, else of the class that
            is predicted.
        observed: Share of them that is of that class.
    """

    low: float
    high: float
    mean_score: float
    observed: float
    rows: int


class Calibration(_Record):
    """How far scores can be read as probabilities; bins without rows are left out."""

    ece: Interval
    brier: Interval
    bins: tuple[CalibrationBin, ...]


class Confusion(_Record):
    """Rows by true class (outer) and predicted class (inner), in the order of `labels`.

    Attributes:
        threshold: Score of the positive class from which a row counts as positive; None where
            the class with the highest score is predicted.
    """

    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    threshold: float | None = None


class Curve(_Record):
    """Points of a curve, thinned to at most 200.

    Attributes:
        kind: `roc`: x is the false-positive rate, y the true-positive rate.
            `precision_recall`: x is the recall, y the precision.
        classes: More than 2: the mean over so many classes, each against the rest.
    """

    kind: Literal["roc", "precision_recall"]
    x: tuple[float, ...]
    y: tuple[float, ...]
    classes: int = 2


class OperatingPoint(_Record):
    """The threshold at which a binary model decides, and what it gives there.

    Attributes:
        threshold: Score of the positive class from which a row counts as positive.
        rule: How it was chosen, in words; always on validation rows, for each model apart.
        chosen_on: Validation rows that it was chosen on; 0 when the config gives it.
        precision, recall, f1: At that threshold on the rows of the evaluation.
        cost: Mean cost per row there; None when no costs were given.
    """

    threshold: float
    rule: str
    chosen_on: int
    precision: float
    recall: float
    f1: float
    cost: float | None = None


class Evaluation(_Record):
    """One model on one split.

    Attributes:
        model: Digest of the model.
        name: Name of the recipe that made it, or `baseline`.
        split: `validation` or `test`.
        data: Digest of the split's rows.
        primary: Name of the primary metric, one of `metrics`.
        metrics: With the intervals of the single model.
        differences: Candidate minus baseline on the same rows, paired, by metric; empty for
            the baseline itself.
        flips, parity: Against the baseline; None for the baseline itself.
        baseline_model: Digest of the model that the differences are against; None when it was
            not told.
        predictions: File name of the per-row predictions, beside the record.
        slices: The primary metric by slice; each with the reason where it was not judged.
        calibration: None for regression.
        confusion: None for regression, and with more than 50 classes.
        curves: ROC and precision-recall of a binary model.
        operating_point: Of a binary model, when one was asked for.

    A record that an earlier version wrote lacks the last five and can still be read.
    """

    schema_version: Literal[1] = 1
    kind: Literal["evaluation"] = "evaluation"
    model: str
    name: str
    split: Literal["validation", "test"]
    data: str
    rows: int
    task: Literal["binary", "multiclass", "regression"]
    primary: str
    metrics: dict[str, Metric]
    differences: dict[str, Interval] = Field(default_factory=dict)
    flips: Flips | None = None
    parity: Parity | None = None
    baseline_model: str | None = None
    predictions: str | None = None
    slices: tuple[Slice, ...] = ()
    calibration: Calibration | None = None
    confusion: Confusion | None = None
    curves: tuple[Curve, ...] = ()
    operating_point: OperatingPoint | None = None


class Timing(_Record):
    """Times of one variant at one batch size; seconds per call, never compared across runs.

    Attributes:
        p50: Median wall time of a call.
        p95: 95th percentile of the wall time of a call.
        p99: 99th percentile; None when the machine was too loaded to tell.
        cpu: Median CPU time of a call (all threads of the process).
        throughput: Rows per second of wall time, at the median.
        quantiles: Wall time of calls timed one by one, at `QUANTILES`; empty in old records.
    """

    p50: float
    p95: float
    p99: float | None
    cpu: float
    throughput: float
    quantiles: tuple[float, ...] = ()


class Outliers(_Record):
    """Slow calls of one variant, by Tukey's outer fence; they are counted, never left out.

    Attributes:
        share: Of the calls timed one by one, those slower than the upper quartile by more than
            three times the distance of the quartiles.
        largest: Seconds of the slowest call.
    """

    share: float
    largest: float


class BatchBenchmark(_Record):
    """Baseline and candidate, interleaved in the same process, at one batch size.

    Attributes:
        batch_size: Rows per call.
        wall: Speed-up by wall time: baseline time / candidate time, so above 1 is faster.
        cpu: The same by CPU time.
        control: The A/A control: baseline against itself, by wall time.
        control_cpu: The A/A control by CPU time.
        state: `clean`; `loaded`: more than half of the samples were disturbed, or the A/A
            control was off but cannot explain so large an effect (the intervals are widened by
            as much); p99 is not given. `void`: the control was off by more than its tolerance,
            so nothing may be concluded.
        stopped: Why it stopped: `precise` (interval narrow enough) or `budget` (time is up).
        warmup: Untimed calls of each variant (`baseline`, `candidate`) until it was steady; the
            largest of the processes'.
        outliers: Slow calls of each variant.
        throughput_per_core: Rows per second of CPU time of each variant, so that what engines
            take of other cores counts.
    """

    batch_size: int
    wall: Interval
    cpu: Interval
    control: Interval
    control_cpu: Interval
    baseline: Timing
    candidate: Timing
    rounds: int
    processes: int
    state: Literal["clean", "loaded", "void"]
    stopped: Literal["precise", "budget"]
    warmup: dict[str, int] = Field(default_factory=dict)
    outliers: dict[str, Outliers] = Field(default_factory=dict)
    throughput_per_core: dict[str, float] = Field(default_factory=dict)


class Concurrent(_Record):
    """Several callers at once, each calling again as soon as it has its answer.

    Baseline and candidate take turns in blocks of equal length.

    Attributes:
        callers: How many call at the same time.
        kind: `threads`: one session, called from threads; `processes`: each caller has its own.
        batch_size: Rows per call.
        ratio: Throughput of the candidate / that of the baseline in the same pair of blocks, so
            above 1 is better.
        baseline: Rows per second of the baseline, all callers together.
        candidate: Of the candidate.
        baseline_p99: 99th percentile of a call of the baseline, in seconds (closed loop).
        candidate_p99: Of the candidate.
    """

    callers: int
    kind: Literal["threads", "processes"]
    batch_size: int
    ratio: Interval
    baseline: float
    candidate: float
    baseline_p99: float
    candidate_p99: float


class LoadPoint(_Record):
    """One model under open-loop load: latency from when a request was due, so waiting counts.

    Attributes:
        requests: That were due while it was measured.
        errors: That failed; they count as infinitely slow in the percentiles.
        dropped: Not sent, as they were still waiting when the time was up; they count likewise.
        late: That were sent more than a millisecond after they were due, because every worker was
            busy: the queue that a closed loop does not see.
        achieved: Requests answered per second.
        p50, p95, p99: Seconds; None when so many failed or were dropped that it has no value.
        quantiles: At `QUANTILES`, of those that were answered.
        p99_interval: The 99th percentile with its bootstrap interval over the blocks, in seconds;
            None for fewer than 100 requests, or where p99 is None.
    """

    requests: int
    errors: int
    dropped: int
    late: int
    achieved: float
    p50: float | None
    p95: float | None
    p99: float | None
    quantiles: tuple[float, ...] = ()
    p99_interval: Interval | None = None


class LoadResult(_Record):
    """Open-loop load: requests arrive when they arrive (Poisson), whatever is answered yet.

    Baseline and candidate take turns in blocks, with the same arrivals.

    Attributes:
        where: `session`: calls in a fresh process; `server`: one-row requests to the model server
            over loopback.
        harness: `trimgate`, or `loadgen` (MLPerf LoadGen's Server scenario).
        rate: Requests that are due per second, on average.
        concurrency: Requests that may be in work at once.
        batch_size: Rows of a request.
        baseline: None when there is nothing to compare with.
        p99_ratio: p99 of the baseline / that of the candidate, paired by block, so above 1 is
            better; None where one of them has none.
        valid: Whether it may be judged by: the generator kept its schedule (or LoadGen said VALID).
        reason: Why not, or what limits it, in words.
    """

    where: Literal["session", "server"]
    harness: Literal["trimgate", "loadgen"] = "trimgate"
    rate: float
    concurrency: int
    batch_size: int = 1
    candidate: LoadPoint
    baseline: LoadPoint | None = None
    p99_ratio: Interval | None = None
    valid: bool = True
    reason: str = ""


class LoadGenRun(_Record):
    """One MLPerf LoadGen run of one model.

    Attributes:
        scenario: `SingleStream`, `Offline` or `Server`.
        variant: `baseline` or `candidate`.
        valid: LoadGen's own verdict; an INVALID result proves nothing.
        reason: Why it is INVALID, in LoadGen's words.
        p50, p90, p99: Seconds of a query (SingleStream, Server).
        per_second: Samples a second (Offline), or queries completed a second (Server).
        expected: What LoadGen was told to expect, from our own measurement: seconds a query
            (SingleStream) or samples a second.
    """

    scenario: Literal["SingleStream", "Offline", "Server"]
    variant: Literal["baseline", "candidate"]
    valid: bool
    reason: str = ""
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    per_second: float | None = None
    expected: float


class Energy(_Record):
    """Energy of predicting, at the target's first batch size.

    Attributes:
        baseline, candidate: Joules per 1000 predictions.
        ratio: Baseline / candidate, so above 1 is better.
        source: `rapl`: read from the processor's counters (the whole package, whoever used it);
            `estimate`: computed as `method` says.
        method: How, in words.
    """

    baseline: float
    candidate: float
    ratio: Interval
    source: Literal["rapl", "estimate"]
    method: str


class Cost(_Record):
    """What predictions cost, from CPU time at the target's first batch size and a price.

    Attributes:
        baseline, candidate: Money per million predictions, the machine busy all the time.
        ratio: Baseline / candidate, so above 1 is better.
        currency: As the price table says.
        price: Name of the price in the table, or `price_per_hour` of the config.
        price_per_core_hour: What was reckoned with.
        table: Name, source and date of the price table; empty where the config gives the price.
        traffic: Predictions a second, for the next two; None when no traffic was given.
        baseline_month, candidate_month: Money for a month (730 hours) of whole machines that
            carry the traffic at `utilisation`, at least one.
        utilisation: Share of a machine's CPU time that is planned with.
    """

    baseline: float
    candidate: float
    ratio: Interval
    currency: str
    price: str
    price_per_core_hour: float
    table: str = ""
    traffic: float | None = None
    baseline_month: float | None = None
    candidate_month: float | None = None
    utilisation: float = 0.6


class Footprint(_Record):
    """What a model takes, each measured in a fresh process.

    Attributes:
        size: Bytes of the served form on disk.
        peak_rss: Peak resident memory in bytes of a process that loads and calls the model.
        base_rss: The same of a process that imports the engine and loads nothing.
        cold_start: Seconds from the start of loading to the first answer, engine import
            included.
        load: Seconds to load the model alone.
    """

    size: int
    peak_rss: int
    base_rss: int
    cold_start: float
    load: float


class FormatCheck(_Record):
    """Whether a target's own format takes the model; nothing in here was timed.

    Attributes:
        format: `ort` (ONNX Runtime mobile) or `neuron`.
        size: Bytes of the converted model; None when it was not converted.
        operators: Operators that it needs, as `domain;opset;names` lines.
        unsupported: What the target cannot run, in words.
        notes: What was only checked, and by which rule.
    """

    format: Literal["ort", "neuron"]
    size: int | None = None
    operators: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Benchmark(_Record):
    """A candidate beside the baseline: speed-ups and footprints.

    Attributes:
        batches: By batch size, in the target's order; the first is the one that counts.
        environment: CPU model and flags, cores, load, versions (JSON values).
        settings: The protocol's settings, threads included.
        concurrent: Several callers at once.
        load: Open-loop load on the sessions.
        loadgen: MLPerf LoadGen's results, where it was asked for.
        energy: None in old records.
        cost: None where no price is known.
        limits: How the target's limits were applied while measuring, in words, by limit
            (`threads`, `memory`, `cpus`); empty when nothing was limited.
        busy: A warning when the machine was too busy to conclude, in words; empty else.
        standing: By quantity (`latency`, `memory`, ...), whether it was measured for the target
            or only checked, in words.
        format: What the target's own form of the model takes and can do (mobile, inferentia),
            checked and not timed.
    """

    schema_version: Literal[1] = 1
    kind: Literal["benchmark"] = "benchmark"
    baseline_model: str
    model: str
    name: str
    target: str
    batches: tuple[BatchBenchmark, ...]
    baseline: Footprint
    candidate: Footprint
    environment: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    concurrent: tuple[Concurrent, ...] = ()
    load: tuple[LoadResult, ...] = ()
    loadgen: tuple[LoadGenRun, ...] = ()
    energy: Energy | None = None
    cost: Cost | None = None
    limits: dict[str, str] = Field(default_factory=dict)
    busy: str = ""
    standing: dict[str, str] = Field(default_factory=dict)
    format: FormatCheck | None = None


BASELINE_SERVED = "baseline_served"
"""The check that the baseline, too, could be served; it says nothing of the winner."""


class Served(_Record):
    """What the model server did with the winner, and with the baseline beside it.

    Attributes:
        checks: Each check of the smoke test, by name, with whether it held.
        latency: Speed-up of the served median latency (baseline / candidate), interleaved
            requests; None when the baseline could not be served.
        p50, p95, p99: Served latency of the candidate in seconds.
        baseline_p50: Served median latency of the baseline in seconds.
        requests: Timed requests of each.
        errors: What failed, in words.
        load: Open-loop load on the servers, winner beside baseline.
    """

    schema_version: Literal[1] = 1
    kind: Literal["served"] = "served"
    model: str
    checks: dict[str, bool]
    latency: Interval | None
    p50: float
    p95: float
    p99: float
    baseline_p50: float | None
    requests: int
    batch_size: int = 1
    errors: tuple[str, ...] = ()
    load: tuple[LoadResult, ...] = ()


class Candidate(_Record):
    """What selection looks at: one recipe's result on the validation split.

    Attributes:
        uri: Where its model directory is.
        steps: The recipe's steps.
        refusal: Why the recipe could not be carried out (then the rest is None).
    """

    name: str
    uri: str
    model: str
    steps: tuple[dict[str, Any], ...]
    evaluation: Evaluation | None = None
    benchmark: Benchmark | None = None
    refusal: str | None = None


class Trial(_Record):
    """A recipe on a sample, roughly measured, for successive halving.

    Attributes:
        difference: Candidate minus baseline of the primary metric, paired.
        gain: In the objective; above 1 is better than the baseline.
        scale: What the difference is measured by: the baseline's value for errors that have the
            unit of the label, else 1.
        seconds: What the recipe's steps took on the sample.
        full_seconds: What it may take on all rows.
        refusal: Why it could not be carried out (then the rest is None).
    """

    name: str
    difference: Interval | None = None
    gain: float | None = None
    scale: float = 1.0
    seconds: float = 0.0
    full_seconds: float = 0.0
    refusal: str | None = None


class Screened(_Record):
    """One recipe after a rung: whether it goes on, and why."""

    name: str
    goes_on: bool
    reason: str


class Halving(_Record):
    """A rung of successive halving; `lines` holds every recipe, the best first."""

    schema_version: Literal[1] = 1
    kind: Literal["halving"] = "halving"
    lines: tuple[Screened, ...]

    @property
    def survivors(self) -> list[str]:
        """Names of the recipes that go on."""
        return [line.name for line in self.lines if line.goes_on]


class Ranked(_Record):
    """One line of the leaderboard.

    Attributes:
        speedup: Wall-time speed-up at the target's first batch size.
        cpu: How many times less CPU time it takes there, which is what a machine costs.
        admissible: Whether the winner could be chosen from it (not hopeless on validation,
            measured, no slower than the baseline where speed is the objective).
        pareto: On the Pareto front of metric, speed-up, size, memory and cost.
        reason: Why it stands where it stands, in words.
        excess: By constraint that it breaks: how far beyond the limit it is, in words.
    """

    rank: int
    name: str
    uri: str
    model: str
    steps: tuple[dict[str, Any], ...]
    metric: Interval | None
    difference: Interval | None
    speedup: Interval | None
    size: int | None
    peak_rss: int | None
    cpu: Interval | None = None
    admissible: bool
    pareto: bool
    winner: bool
    reason: str
    excess: dict[str, str] = Field(default_factory=dict)


class Selection(_Record):
    """The leaderboard; `winner` may be `baseline`.

    Attributes:
        constraints: The limits that the objective set, by name.
    """

    schema_version: Literal[1] = 1
    kind: Literal["selection"] = "selection"
    objective: str
    metric: str
    higher_is_better: bool
    ranking: tuple[Ranked, ...]
    winner: str
    reason: str
    constraints: dict[str, float] = Field(default_factory=dict)


class RuleResult(_Record):
    """One gate rule.

    Attributes:
        rule: The rule's name, as in the config (`max_drop.average_precision`).
        observed: What was seen, with its interval where there is one.
        limit: What the rule allows.
        rows_needed: When inconclusive: about how many rows would decide it.
        reason: In words, for people.
    """

    rule: str
    outcome: Outcome
    observed: Interval | None
    limit: float | None
    rows_needed: int | None = None
    reason: str


class Verdict(_Record):
    """What the gate says of the winner: `pass` only when every rule passed.

    Attributes:
        keeps_baseline: Nothing was put forward, because nothing beats the baseline; the outcome
            is then `fail`, as there is nothing to promote.
        policy: The rules, as the config writes them; empty in old records.
    """

    schema_version: Literal[1] = 1
    kind: Literal["verdict"] = "verdict"
    outcome: Outcome
    candidate: str
    baseline: str
    name: str
    rules: tuple[RuleResult, ...]
    summary: str
    keeps_baseline: bool = False
    policy: dict[str, Any] = Field(default_factory=dict)


RecordT = TypeVar("RecordT", bound=_Record)


def save(record: BaseModel, path: str | Path) -> None:
    """Writes a record as JSON, under a temporary name first."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(record.model_dump_json(indent=2) + "\n")
    partial.replace(path)


def load(kind: type[RecordT], path: str | Path) -> RecordT:
    """Reads a record.

    Raises:
        InvalidInput: The file is missing or is not such a record.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput("the file is missing", file=path)
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"is not a {kind.__name__.lower()} record: {first['msg']}",
            file=path,
            key=".".join(map(str, first["loc"])) or None,
        ) from error
