"""Numbers, units and intervals as text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimgate.judge.records import Interval
from trimgate.report import _format as f

THIN = f.THIN


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (3.14159, "3.14"),
        (-0.5, "−0.500"),
        (99.96, "100"),
        (484.4, "484"),
        (56746, f"56{THIN}746"),
        (3.2e-7, f"3.20{THIN}×{THIN}10⁻⁷"),
        (-1e-9, f"−1.00{THIN}×{THIN}10⁻⁹"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert f.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00 s"),
        (4.2e-9, "4.20 ns"),
        (98.4e-6, "98.4 µs"),
        (999.6e-6, "1.00 ms"),
        (0.31, "310 ms"),
        (1.42, "1.42 s"),
        (600.0, "10.0 min"),
        (None, "–"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert f.seconds(value) == text.replace(" ", THIN)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (999_999, "1.00 MB"), (350_000, "350 KB"), (2.5e9, "2.50 GB")],
)
def test_size(value: float, text: str) -> None:
    assert f.size(value) == text.replace(" ", THIN)


@pytest.mark.parametrize(
    ("low", "value", "high", "style", "text"),
    [
        (2.92, 3.1, 3.31, "ratio", "3.10× [2.92, 3.31]"),
        (0.7, 0.75, 0.8, "ratio", "0.750× [0.700, 0.800]"),
        (398, 450, 512, "ratio", "450× [398, 512]"),
        (-0.002, 0.001, 0.004, "points", "+0.10_pt [−0.20, +0.40]"),
        (0.0, 0.0, 0.0, "points", "0.00_pt [0.00, 0.00]"),
        (-0.4, -0.3, -0.2, "points", "−30.0_pt [−40.0, −20.0]"),
        (0.981, 0.985, 0.989, "percent", "98.50_% [98.10, 98.90]"),
        (0.7526, 0.784, 0.8154, "plain", "0.7840 [0.7526, 0.8154]"),
        (-41.3, -31.0, -20.7, "difference", "−31.0 [−41.3, −20.7]"),
        (110, 115.4, 120, "mebibytes", "115_MiB [110, 120]"),
    ],
)
def test_interval(low: float, value: float, high: float, style: f.Style, text: str) -> None:
    shown = f.with_interval(Interval(value=value, low=low, high=high), style)
    assert str(shown) == text.replace("_", THIN)


def test_missing_interval_is_a_dash() -> None:
    assert str(f.with_interval(None, "ratio")) == "–"


def test_metric_names_decide_the_unit() -> None:
    assert f.metric_style("balanced_accuracy") == "percent"
    assert f.metric_style("average_precision") == "plain"
    assert f.difference_style("average_precision") == "points"
    assert f.difference_style("roc_auc") == "points"
    assert f.difference_style("rmse") == "difference"
    assert f.words("roc_auc") == "ROC AUC"


@given(st.floats(1e-12, 1e12))
def test_number_keeps_three_digits(value: float) -> None:
    text = f.number(value).replace(THIN, "")
    mantissa, _, power = text.partition("×10")
    exponent = power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or "0"
    assert float(mantissa) * 10 ** int(exponent) == pytest.approx(value, rel=0.006)


@given(st.floats(1e-9, 1e5), st.sampled_from([f.seconds, f.size]))
def test_units_keep_the_value_readable(value: float, show: object) -> None:
    assert callable(show)
    number, _, unit = show(value).rpartition(THIN)
    assert 0 <= float(number.replace(THIN, "")) <= 1000 or unit in ("min", "GB")
