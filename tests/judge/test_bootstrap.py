import math

import numpy as np
import pytest

from trimgate.judge._bootstrap import (
    accelerated_ends,
    cautious_ends,
    contributions,
    draw,
    ends,
    studentized,
    studentized_ends,
)
from trimgate.judge._view import View
from trimgate.judge.metrics import spec


def regression(errors):
    return View(np.zeros(len(errors)), np.asarray(errors, dtype=float), ())


def binary(positives, negatives, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [positives, negatives])
    score = 1 / (1 + np.exp(-(rng.normal(size=len(labels)) + 2.0 * labels)))
    return View(labels, np.stack([1 - score, score], axis=1), (0, 1))


def test_blocks_tell_the_standard_error_of_a_mean():
    errors = np.random.default_rng(0).normal(size=5000)
    parts = contributions(regression(errors), [spec("mae")], 0)
    assert [part.shape for part in parts] == [(100, 1)]
    assert parts[0].sum() == pytest.approx(0, abs=1e-12)
    error = math.sqrt(100 * parts[0][:, 0].var(ddof=1))
    assert error == pytest.approx(np.abs(errors).std() / math.sqrt(5000), rel=0.2)


def test_a_rare_class_has_its_own_blocks_of_one_row():
    parts = contributions(binary(30, 3000), [spec("roc_auc")], 0)
    assert [len(part) for part in parts] == [100, 30]


def test_bca_moves_towards_the_long_tail_and_leaves_a_symmetric_metric_alone():
    rng = np.random.default_rng(1)
    known = spec("mae")
    skewed = regression(rng.exponential(size=40) ** 2)
    shifts = []
    for view in (skewed, regression(rng.normal(3, 0.1, size=400))):
        drawn = draw([view], [known], 2000, 0)[:, 0, 0]
        parts = [part[:, 0] for part in contributions(view, [known], 0)]
        plain = ends(drawn, 0.9, view.rows)
        moved = accelerated_ends(drawn, known.function(view), parts, 0.9, view.rows)
        shifts.append([(m - p) / (plain[1] - plain[0]) for m, p in zip(moved, plain, strict=True)])
    assert min(shifts[0]) > 0.02
    assert np.abs(shifts[1]).max() < 0.05


def test_a_few_hard_rows_widen_the_bootstrap_t_interval_on_their_side():
    part = np.zeros(30)
    part[:2] = 1.0  # two rows of thirty carry the metric
    part -= part.mean()
    low, high = studentized_ends(0.0, [part], studentized([part], 0), 0.9)
    plain = ends(np.random.default_rng(0).choice(part, (2000, 30)).sum(axis=1), 0.9, 30)
    assert high > 1.5 * plain[1]
    assert np.isfinite([low, high]).all()


def test_rows_like_the_worst_are_added_as_agresti_and_coull_add_failures():
    rows, hit, z = 100, 3, 1.6448536
    part = np.where(np.arange(rows) < hit, -1.0, 0.0)
    low, high = cautious_ends(-hit / rows, [(part - part.mean()) / rows], [rows], 0.9)
    more = z * z / 2
    share = (hit + more) / (rows + more)
    assert low == pytest.approx(-share - z * math.sqrt(share * (1 - share) / (rows + more)), 0.02)
    assert -hit / rows < high < 0


def test_blocks_of_many_rows_hardly_feel_the_rows_added():
    part = np.random.default_rng(0).normal(size=100) / 1000
    part -= part.mean()
    error = math.sqrt(100 * part.var(ddof=1))
    low, high = cautious_ends(0.0, [part], [1_000_000], 0.9)
    assert (low, high) == pytest.approx((-1.645 * error, 1.645 * error), rel=0.01)
    few, _ = cautious_ends(0.0, [part], [100], 0.9)
    assert few < 1.1 * low


def test_no_spread_gives_a_point():
    part = np.zeros(50)
    assert studentized_ends(0.5, [part], studentized([part], 0), 0.95) == (0.5, 0.5)
