"""Slices: rows that are judged apart, and what that takes when there are many."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import InvalidInput
from trimgate.judge._intervals import Judged, leveled, paired, prepare, single
from trimgate.judge._metrics import Spec
from trimgate.judge._view import View
from trimgate.judge.records import Slice
from trimgate.judge.settings import Slicing

Array = NDArray[Any]
Kind = Literal["column", "score_band", "time_window"]

# The most common values of a column are slices of their own, the others are one together.
MOST_VALUES = 20


@dataclass(frozen=True)
class SliceRows:
    """The rows of one slice.

    Attributes:
        rows: `(rows of the split,)` mask.
    """

    name: str
    kind: Kind
    column: str | None
    rows: Array


@dataclass(frozen=True)
class SlicePlan:
    """How the rows of one slice are told.

    Attributes:
        test: From the values of the column (of the scores for score bands) to a mask.
    """

    name: str
    kind: Kind
    column: str | None
    test: Callable[[Array], Array]

    def mask(self, columns: Mapping[str, Array], scores: Array) -> Array:
        """The slice's rows among these.

        Args:
            columns: By name, `(rows,)` each.
            scores: The baseline's, `(rows, classes)` or `(rows,)`.
        """
        return self.test(_banded(scores) if self.column is None else columns[self.column])


def slice_rows(
    slicings: Sequence[Slicing], columns: Mapping[str, Array], scores: Array
) -> list[SliceRows]:
    """Divides rows as the config says; see `plan_slices`."""
    return [
        SliceRows(plan.name, plan.kind, plan.column, plan.mask(columns, scores))
        for plan in plan_slices(slicings, columns, scores)
    ]


def plan_slices(
    slicings: Sequence[Slicing], columns: Mapping[str, Array], scores: Array
) -> list[SlicePlan]:
    """Settles values, bands and windows from all rows, or from a sample of them.

    Args:
        slicings: How to divide.
        columns: Features and kept columns by name, `(rows,)` each.
        scores: The baseline's scores, `(rows, classes)` or `(rows,)`.

    Raises:
        InvalidInput: There is no such column, or it holds something else than one value a row.
    """
    found: list[SlicePlan] = []
    for slicing in slicings:
        if slicing.score_bands is not None:
            found += _score_bands(slicing.score_bands, scores)
            continue
        name = slicing.column or slicing.time or ""
        if name not in columns or columns[name].ndim != 1:
            raise InvalidInput(
                "there is no such column of one value a row",
                key="evaluation.slices",
                value=name,
                mend=f"use one of {', '.join(list(columns)[:8])}",
            )
        if slicing.time is not None:
            found += _windows(name, columns[name], slicing.windows)
        else:
            found += _values(name, columns[name], slicing.bands)
    return found


def _values(name: str, values: Array, bands: int) -> Iterator[SlicePlan]:
    missing = _missing(values)
    known, counts = np.unique(_comparable(values[~missing]), return_counts=True)
    if values.dtype.kind in "fi" and len(known) > bands:
        yield from _bands(name, "column", values[~missing], bands)
    else:
        common = known[np.argsort(-counts, kind="stable")[:MOST_VALUES]]
        for value in common:
            yield SlicePlan(
                f"{name} = {value}",
                "column",
                name,
                partial(_equal, value),
            )
        if len(known) > MOST_VALUES:
            yield SlicePlan(
                f"{name} = {len(known) - MOST_VALUES} other values",
                "column",
                name,
                lambda v: ~np.isin(_comparable(v), common) & ~_missing(v),
            )
    if missing.any():
        yield SlicePlan(f"{name} missing", "column", name, _missing)


def _missing(values: Array) -> Array:
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=bool)
    return np.isnan(values) if values.dtype.kind in "fM" else np.zeros(len(values), dtype=bool)


def _comparable(values: Array) -> Array:
    if values.dtype != object:
        return values
    return np.array(["" if value is None else str(value) for value in values], dtype=str)


def _bands(
    name: str, kind: Kind, values: Array, bands: int | Array, *, times: bool = False
) -> Iterator[SlicePlan]:
    """Bands with as many rows each, or between the given edges; the outer ones are open."""
    edges = bands
    if isinstance(edges, int):
        plain = values.astype(np.int64) if times else values
        edges = np.unique(np.quantile(plain, np.linspace(0, 1, edges + 1)))
        edges = edges.astype(np.int64).astype(values.dtype) if times else edges
    for low, high in itertools.pairwise(edges):
        first, last = low == edges[0], high == edges[-1]
        label = f"{low} to {high}" if times else f"{name} {low:.4g} to {high:.4g}"
        yield SlicePlan(
            label,
            kind,
            None if kind == "score_band" else name,
            partial(_between, low, high, first, last, times),
        )


def _equal(value: Any, values: Array) -> Array:
    found: Array = (_comparable(values) == value) & ~_missing(values)
    return found


def _begins(start: Any, unit: str, values: Array) -> Array:
    found: Array = _as_times(values).astype(f"datetime64[{unit}]") == start
    return found


def _between(low: Any, high: Any, first: bool, last: bool, times: bool, values: Array) -> Array:
    values = _as_times(values) if times else values
    above = ~_missing(values) if first else values >= low
    return above & (True if last else values < high)


def _banded(scores: Array) -> Array:
    """What score bands look at: of the positive class, of the predicted one, or the value."""
    if scores.ndim == 1:
        return scores
    return scores[:, 1] if scores.shape[1] == 2 else scores.max(axis=1)


def _score_bands(bands: int, scores: Array) -> Iterator[SlicePlan]:
    if scores.ndim == 1:
        yield from _bands("value", "score_band", scores, bands)
    else:
        yield from _bands("score", "score_band", scores, np.linspace(0, 1, bands + 1))


def _windows(name: str, values: Array, windows: str | int) -> Iterator[SlicePlan]:
    try:
        times = _as_times(values)
    except ValueError as error:
        raise InvalidInput(
            f"holds text that is no time ({error})", key="evaluation.slices", value=name
        ) from error
    times = times[~_missing(times)]
    if isinstance(windows, int):
        counted = times.dtype.kind != "M"
        yield from _bands(name, "time_window", times, windows, times=not counted)
        return
    if times.dtype.kind != "M":
        raise InvalidInput(
            f"holds no times that a {windows} could be read from",
            key="evaluation.slices",
            value=name,
            mend="give a number of windows",
        )
    unit = {"day": "D", "week": "W", "month": "M", "year": "Y"}[windows]
    for start in np.unique(times.astype(f"datetime64[{unit}]")):
        yield SlicePlan(
            f"week of {start.astype('datetime64[D]')}" if unit == "W" else str(start),
            "time_window",
            name,
            partial(_begins, start, unit),
        )


# Timestamps are read as nanoseconds since 1970; smaller numbers are counters of some kind.
_YEAR_1980_NS = 315_532_800_000_000_000


def _as_times(values: Array) -> Array:
    """To the second; numbers that are no timestamps stay as they are.

    Raises:
        ValueError: Text that is no time.
    """
    if values.dtype == object:
        return values.astype("datetime64[s]")
    if values.dtype.kind == "i" and values.min(initial=_YEAR_1980_NS) >= _YEAR_1980_NS:
        return values.astype("datetime64[ns]").astype("datetime64[s]")
    return values


def judge_slices(
    slices: Sequence[SliceRows],
    view: View,
    base: View | None,
    known: Spec,
    *,
    min_rows: int,
    min_class_rows: int,
    confidence: float,
    seed: int,
    resamples: int | None,
) -> tuple[Slice, ...]:
    """The primary metric on each slice, beside the baseline, corrected for their number.

    Args:
        slices: The rows.
        view: The model on the whole split.
        base: The baseline on the same rows.
        known: The metric.
        min_rows: With fewer rows a slice is not judged.
        min_class_rows: Nor with fewer rows of a class, where the metric needs every class.
        confidence: Two-sided level of the intervals shown.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.

    Notes:
        Each slice has two intervals of its difference. To pass, every slice has to be shown to
        be within its margin: an intersection-union test, whose level needs no correction
        (R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics
        24, 1982), so `difference` holds for the slice alone. To fail, one bad slice is enough,
        and one of many looks bad by chance: `simultaneous` holds for all at once (Bonferroni).
        `adjusted_p_value` is by Holm ("A simple sequentially rejective multiple test procedure",
        Scandinavian Journal of Statistics 6, 1979).
    """
    reasons = [_reason(s, view, known, min_rows, min_class_rows) for s in slices]
    many = sum(not reason for reason in reasons)
    found: list[Slice] = []
    for part, reason in zip(slices, reasons, strict=True):
        common: dict[str, Any] = {
            "name": part.name, "kind": part.kind, "column": part.column,
            "rows": int(part.rows.sum()),
        }  # fmt: skip
        if reason:
            found.append(Slice(**common, reason=reason))
            continue
        rows = np.flatnonzero(part.rows)
        beside = None if base is None else base.subset(rows)
        judged = prepare(view.subset(rows), beside, [known], seed=seed, resamples=resamples)[
            known.name
        ]
        found.append(
            Slice(
                **common,
                metric=leveled(single, judged, confidence),
                difference=None if base is None else leveled(paired, judged, confidence),
                simultaneous=None
                if base is None
                else leveled(paired, judged, confidence, among=many),
                flips=judged.flips,
                p_value=None if base is None else _p_value(judged),
            )
        )
    return adjusted(found)


def _reason(part: SliceRows, view: View, known: Spec, min_rows: int, min_class_rows: int) -> str:
    rows = int(part.rows.sum())
    if rows < min_rows:
        return f"{rows} rows, and {min_rows} are asked for"
    if not view.classes or known.name == "accuracy" or known.kind == "score":
        return ""
    counts = np.bincount(view.codes[part.rows], minlength=len(view.classes))
    present = counts[view.class_counts > 0]
    if (present > 0).sum() < 2:
        return f"all {rows} rows have one class"
    if present.min() < min_class_rows:
        absent = view.classes[int(np.where(view.class_counts > 0, counts, rows + 1).argmin())]
        return (
            f"{int(present.min())} rows of the class {absent!r}, and {min_class_rows} are asked for"
        )
    return ""


def _p_value(judged: Judged) -> float:
    """Two-sided, of no difference: McNemar's for accuracy, else twice the bootstrap's tail."""
    if judged.known.name == "accuracy" and judged.flips and judged.flips.p_value is not None:
        return judged.flips.p_value
    gaps = judged.draws[:, 0] - judged.draws[:, 1]
    gaps = gaps[np.isfinite(gaps)]
    below, above = (gaps <= 0).sum() + 1, (gaps >= 0).sum() + 1
    return min(1.0, 2 * float(min(below, above)) / (len(gaps) + 1))


def adjusted(slices: Sequence[Slice]) -> tuple[Slice, ...]:
    """The slices with their p-values adjusted by Holm for those that have one."""
    order = sorted(
        (s.p_value if s.p_value is not None else math.inf, i) for i, s in enumerate(slices)
    )
    many = sum(s.p_value is not None for s in slices)
    largest, found = 0.0, list(slices)
    for rank, (p_value, position) in enumerate(order[:many]):
        largest = max(largest, min(1.0, (many - rank) * p_value))
        found[position] = slices[position].model_copy(update={"adjusted_p_value": largest})
    return tuple(found)
