"""What changed for the user, in a few lines: faster, smaller, as good."""

from dataclasses import dataclass
from typing import Literal

from trimgate.judge.records import BatchBenchmark, Cost, Evaluation, Footprint, Interval, Served
from trimgate.report._card import CardInput
from trimgate.report._format import (
    NONE,
    THIN,
    TIMES,
    Cell,
    count,
    difference_style,
    metric_style,
    number,
    percent,
    seconds,
    sentence,
    size,
    with_interval,
    words,
)

Tone = Literal["good", "bad", "neutral"]
# Two sessions of one model differ by more than 1 %: below this no difference is claimed.
_NOTICEABLE = 0.03


@dataclass(frozen=True)
class Headline:
    """One claim.

    Attributes:
        topic: What it is about ("Latency, 1 row per call").
        value: The claim's number ("3.10×").
        word: What the number means ("faster"); empty where the number says it all.
        subject: What stands before the number in `text` (the metric's name).
        interval: "[2.92, 3.31]", or empty for what is counted, not estimated.
        detail: Absolute values ("305 µs → 98.4 µs").
        tone: Whether that is good for the user; neutral where it may be chance.
        primary: Whether it belongs into the first line.
    """

    topic: str
    value: str
    word: str
    interval: str
    detail: str
    tone: Tone
    primary: bool = False
    subject: str = ""

    @property
    def text(self) -> str:
        """The claim in one line: "3.10× faster [2.92, 3.31]"."""
        return " ".join(p for p in (self.subject, self.value, self.word, self.interval) if p)

    def __str__(self) -> str:
        return self.text


def headline(card: CardInput) -> list[Headline]:
    """What the winner changes for the user, most important first; empty without a winner.

    Slow-downs are called slower and growth larger. A speed-up whose interval contains 1, or
    that is under 3 %, is called "as fast". A timing that the A/A control voided claims nothing.
    """
    lines: list[Headline] = []
    if card.status == "baseline":
        return lines
    benchmark, test = card.benchmark, card.winner_test
    if benchmark and benchmark.batches:
        lines.append(_latency(benchmark.batches[0], primary=True))
    if benchmark:
        lines.append(_size(benchmark.baseline, benchmark.candidate))
    if test and test.primary in test.differences:
        lines.append(_quality(test, card.baseline_test))
    if benchmark:
        lines += [_latency(batch) for batch in benchmark.batches[1:]]
        lines += [_cpu(batch) for batch in benchmark.batches[:1] if batch.state != "void"]
        lines.append(_memory(benchmark.baseline, benchmark.candidate))
        lines.append(_cold_start(benchmark.baseline, benchmark.candidate))
        if benchmark.cost and benchmark.batches[0].state != "void":
            lines.append(_cost(benchmark.cost))
    if card.served and card.served.latency:
        lines.append(_served(card.served, card.served.latency))
    return lines


def rows_per_call(batch_size: int) -> str:
    """A batch size in words: "1 row", "64 rows"."""
    return f"{count(batch_size)} row" + ("" if batch_size == 1 else "s")


def speed(interval: Interval, better: str, worse: str, same: str) -> tuple[str, str, str, Tone]:
    """A ratio above 1 (better) or below in words: value, word, shown interval and tone."""
    value, low, high = interval.value, interval.low, interval.high
    shown = with_interval(interval, "ratio")
    if low <= 1 <= high or abs(value - 1) < _NOTICEABLE:
        return shown.value, same, shown.interval, "neutral"
    if value > 1:
        return shown.value, better, shown.interval, "good"
    inverse = Interval(value=1 / value, low=1 / high, high=1 / low) if low > 0 else interval
    shown = with_interval(inverse, "ratio")
    return shown.value, worse, shown.interval, "bad"


def change(before: float, after: float, less: str, more: str) -> tuple[str, str, Tone]:
    """A change of a counted quantity in words: "71 %", "smaller", good."""
    if before <= 0:
        return NONE, "not measured", "neutral"
    part = after / before
    if abs(part - 1) < 0.005:
        return "Same", "", "neutral"
    if part < 1:
        saved = 100 * (1 - part)
        text = ">" + number(99.9) if saved > 99.9 else number(saved, 2 if saved < 99 else 3)
        return f"{text}{THIN}%", less, "good"
    if part >= 2:
        return f"{number(part)}{TIMES}", more, "bad"
    return f"{percent(part - 1, 2)}", more, "bad"


def metric_cell(evaluation: Evaluation | None, metric: str) -> Cell:
    """A metric of one model with its interval."""
    if evaluation is None or metric not in evaluation.metrics:
        return Cell(NONE)
    return with_interval(evaluation.metrics[metric].interval, metric_style(metric))


def difference_tone(interval: Interval, higher_is_better: bool) -> Tone:
    """Neutral when the interval contains 0."""
    if interval.low <= 0 <= interval.high:
        return "neutral"
    return "good" if (interval.value > 0) == higher_is_better else "bad"


def _latency(batch: BatchBenchmark, primary: bool = False) -> Headline:
    topic = f"Latency, {rows_per_call(batch.batch_size)} per call"
    detail = f"{seconds(batch.baseline.p50)} → {seconds(batch.candidate.p50)} median"
    if batch.state == "void":
        why = "the baseline did not time equal to itself"
        return Headline(topic, "No claim", "", "", f"timing void: {why}", "neutral", primary)
    value, word, interval, tone = speed(batch.wall, "faster", "slower", "as fast")
    return Headline(topic, value, word, interval, detail, tone, primary)


def _cpu(batch: BatchBenchmark) -> Headline:
    value, word, interval, tone = speed(batch.cpu, "less CPU time", "more CPU time", "the CPU time")
    detail = f"{seconds(batch.baseline.cpu)} → {seconds(batch.candidate.cpu)} a call"
    topic = f"CPU time, {rows_per_call(batch.batch_size)} per call"
    return Headline(topic, value, word, interval, detail, tone)


def _size(before: Footprint, after: Footprint) -> Headline:
    value, word, tone = change(before.size, after.size, "smaller", "larger")
    detail = f"{size(before.size)} → {size(after.size)}"
    return Headline("Size on disk", value, word or "size", "", detail, tone, primary=True)


def _memory(before: Footprint, after: Footprint) -> Headline:
    value, word, tone = change(before.peak_rss, after.peak_rss, "less memory", "more memory")
    detail = f"{size(before.peak_rss)} → {size(after.peak_rss)}"
    return Headline("Peak memory", value, word or "memory", "", detail, tone)


def _cold_start(before: Footprint, after: Footprint) -> Headline:
    value, word, tone = change(
        before.cold_start, after.cold_start, "faster to start", "slower to start"
    )
    if tone == "good":
        value = (
            f"{number(before.cold_start / after.cold_start)}{TIMES}" if after.cold_start else NONE
        )
    detail = f"{seconds(before.cold_start)} → {seconds(after.cold_start)}"
    return Headline("Cold start", value, word or "cold start", "", detail, tone)


def _cost(cost: Cost) -> Headline:
    value, word, interval, tone = speed(cost.ratio, "cheaper", "dearer", "the cost")
    detail = f"{number(cost.baseline)} → {number(cost.candidate)} {cost.currency}"
    return Headline("Cost of a million predictions", value, word, interval, detail, tone)


def _quality(test: Evaluation, baseline: Evaluation | None) -> Headline:
    name = test.primary
    difference = test.differences[name]
    shown = with_interval(difference, difference_style(name))
    metric = test.metrics.get(name)
    tone = difference_tone(difference, metric.higher_is_better if metric else True)
    before, after = metric_cell(baseline, name).value, metric_cell(test, name).value
    return Headline(
        topic=f"{sentence(words(name))}, {count(test.rows)} test rows",
        value=shown.value,
        word="",
        subject=words(name),
        interval=shown.interval,
        detail=f"{before} → {after}",
        tone=tone,
        primary=True,
    )


def _served(served: Served, latency: Interval) -> Headline:
    value, word, interval, tone = speed(latency, "faster served", "slower served", "as fast served")
    detail = f"{seconds(served.baseline_p50)} → {seconds(served.p50)} median"
    return Headline("Served latency", value, word, interval, detail, tone)
