"""Numbers as people read them: units, three significant digits, proper signs, thin spaces."""

import math
import re
from typing import Literal, NamedTuple

from trimgate.judge.records import Interval

THIN = "\u202f"  # narrow no-break space: never breaks a number from its unit
MINUS = "\u2212"
TIMES = "\u00d7"
NONE = "\u2013"

Style = Literal[
    "plain", "percent", "ratio", "points", "difference", "seconds", "bytes", "mebibytes"
]

_SUPERSCRIPT = str.maketrans(
    "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
)
_LABELS = {
    "auc": "AUC", "roc": "ROC", "f1": "F1", "rmse": "RMSE", "mse": "MSE", "mae": "MAE",
    "mape": "MAPE", "r2": "R²", "ece": "ECE", "pr": "PR", "mcc": "MCC", "rss": "RSS",
    "cpu": "CPU", "mb": "MB", "ms": "ms", "p50": "p50", "p95": "p95", "p99": "p99",
}  # fmt: skip
# A metric whose name has one of these words lies in [0, 1]; the first four read as percent.
_PERCENT = ("accuracy", "precision", "recall", "agreement")
_SHARES = ("auc", "f1", "average_precision", "ap", *_PERCENT)


class Cell(NamedTuple):
    """A shown value and, apart, its shown interval (empty when there is none)."""

    value: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".rstrip()


def decimals(value: float, digits: int = 3) -> int:
    """Decimal places that show `value` with so many significant digits."""
    if value == 0 or not math.isfinite(value):
        return digits - 1
    return max(0, digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}")))))


def number(value: float | None, digits: int = 3, *, places: int | None = None) -> str:
    """A number with three significant digits, or with so many decimal `places`."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return f"{MINUS if value < 0 else ''}\u221e"
    size = abs(value)
    if places is None and size != 0 and not 1e-4 <= size < 1e7:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        power = str(int(exponent)).translate(_SUPERSCRIPT)
        return f"{mantissa.replace('-', MINUS)}{THIN}{TIMES}{THIN}10{power}"
    places = decimals(value, digits) if places is None else places
    text = f"{value:,.{places}f}".replace(",", THIN)
    if not text.strip("-0." + THIN):
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(text: str) -> str:
    """Puts a plus before a shown number that is neither negative nor zero."""
    return text if text[:1] in (MINUS, NONE) or not re.search("[1-9\u221e]", text) else "+" + text


def count(value: int | None) -> str:
    """A whole number with thin spaces between the thousands."""
    return NONE if value is None else f"{value:,}".replace(",", THIN).replace("-", MINUS)


def seconds(value: float | None) -> str:
    """A duration given in seconds, in ns, µs, ms, s or min."""
    if value is None or not math.isfinite(value):
        return number(value)
    rounded = abs(float(f"{value:.2e}"))
    if rounded >= 120:
        return f"{number(value / 60)}{THIN}min"
    scales = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
    scale, unit = next(
        (s for s in scales if rounded >= s[0]), scales[0] if value == 0 else scales[-1]
    )
    return f"{number(value / scale)}{THIN}{unit}"


def size(value: float | None) -> str:
    """Bytes, in B, KB, MB or GB (1 KB is 1000 bytes)."""
    if value is None or not math.isfinite(value):
        return number(value)
    rounded = abs(float(f"{value:.2e}"))
    if rounded < 1000:
        return f"{round(value)}{THIN}B"
    scale, unit = next(s for s in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")) if rounded >= s[0])
    return f"{number(value / scale)}{THIN}{unit}"


def percent(value: float, digits: int = 3) -> str:
    """A share as percent."""
    return f"{number(value * 100, digits)}{THIN}%"


def with_interval(interval: Interval | None, style: Style, digits: int = 3) -> Cell:
    """An interval as value and "[low, high]", all with the same decimals.

    `points` are percentage points (0.01 of the metric); `points` and `difference` are signed.
    """
    if interval is None:
        return Cell(NONE)
    value, low, high = interval.value, interval.low, interval.high
    if style in ("seconds", "bytes"):
        show = seconds if style == "seconds" else size
        return Cell(show(value), f"[{show(low)}, {show(high)}]")
    if style in ("percent", "points"):
        value, low, high = 100 * value, 100 * low, 100 * high
    widest = max((abs(x) for x in (value, low, high) if math.isfinite(x)), default=0.0)
    if style == "points":
        places = 2 if widest < 10 else 1
    elif style == "percent":
        places = 2
    else:
        places = decimals(widest if style == "difference" else value, digits)
        if style == "plain" and abs(value) < 1:
            places = max(4, places)
    texts = [number(x, places=min(places, 8)) for x in (value, low, high)]
    if style in ("points", "difference"):
        texts = [signed(t) for t in texts]
    unit = {
        "percent": f"{THIN}%",
        "points": f"{THIN}pt",
        "ratio": TIMES,
        "mebibytes": f"{THIN}MiB",
    }.get(style, "")
    return Cell(texts[0] + unit, f"[{texts[1]}, {texts[2]}]")


def is_share(metric: str) -> bool:
    """Whether a metric lies in [0, 1], so that its differences read as percentage points."""
    words = metric.lower().split("_")
    return any(w in words for w in _SHARES)


def metric_style(metric: str) -> Style:
    """How values of a metric are shown."""
    words = metric.lower().split("_")
    shown_as_percent = any(w in words for w in _PERCENT) and "average" not in words
    return "percent" if shown_as_percent else "plain"


def difference_style(metric: str) -> Style:
    """How differences of a metric are shown."""
    return "points" if is_share(metric) else "difference"


def words(name: str) -> str:
    """A snake_case name as words: `roc_auc` is "ROC AUC"."""
    return " ".join(_LABELS.get(w, w) for w in name.replace("_", " ").split())


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
