"""The evaluate task: the operating point, slices, and rows that are judged in batches."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from skops import io

from trimgate import tasks
from trimgate.data import Dataset
from trimgate.judge import records
from trimgate.models.directory import read

ROWS, COLUMNS = 6000, 12


def rows_of(count, seed=0):
    rng = np.random.default_rng(seed)
    values = {f"x{i}": rng.normal(size=count) for i in range(COLUMNS)}
    odds = values["x0"] + 0.5 * values["x1"] - 2
    labels = (rng.random(count) < 1 / (1 + np.exp(-2 * odds))).astype(np.int64)
    beside = {
        "country": np.array(["DE", "FR"])[rng.integers(0, 2, count)].astype(object),
        "time": np.datetime64("2026-01-01", "ns").astype(np.int64)
        + np.arange(count) * (90 * 86_400 * 10**9 // count),
    }
    return Dataset(values, labels, beside)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A logistic regression, a worse one, and rows."""
    folder = tmp_path_factory.mktemp("evaluate")
    train = rows_of(3000, seed=1)
    train.save(folder / "train")
    rows_of(2000, seed=2).save(folder / "validation")
    rows_of(ROWS).save(folder / "test")
    frame = train.frame()
    for name, known in (("baseline", frame), ("candidate", frame.assign(x1=0.0))):
        model = LogisticRegression().fit(known, train.labels)
        io.dump(model, folder / f"{name}.skops")
        tasks.import_model(
            str(folder / f"{name}.skops"), str(folder / "train"), str(folder / name), name=name,
            builder="", builder_arguments={}, allow_pickle=False, task="", scores="",
            source_digest="",
        )  # fmt: skip
    return folder


SETTINGS = {
    "operating_point": {"recall_at_precision": 0.7},
    "costs": {"false_positive": 1, "false_negative": 20},
    "slices": [{"column": "country"}, {"time": "time", "windows": "month"}, {"score_bands": 4}],
}


def evaluate(world, out, name, *, baseline=None, **settings):
    tasks.evaluate(
        str(world / name), str(world / "test"), str(out), split="test", name=name,
        metric="average_precision", baseline=baseline, chosen_on=str(world / "validation"),
        settings={**SETTINGS, **settings}, confidence=0.95, extra_metrics=["roc_auc"], seed=0,
    )  # fmt: skip
    return records.load(records.Evaluation, out / "evaluation.json")


@pytest.fixture(scope="module")
def judged(world, tmp_path_factory):
    """Baseline and candidate, at once and in batches."""
    folder = tmp_path_factory.mktemp("judged")
    found = {}
    for way, more in (("whole", {}), ("stream", {"stream_rows": 1000})):
        base = evaluate(world, folder / f"{way}-base", "baseline", **more)
        candidate = evaluate(
            world, folder / way, "candidate", baseline=str(folder / f"{way}-base"), **more
        )
        found[way] = base, candidate
    return found


def test_the_threshold_comes_from_validation_and_is_each_models_own(judged):
    base, candidate = judged["whole"]
    points = base.operating_point, candidate.operating_point
    assert points[0].threshold != points[1].threshold
    assert [p.chosen_on for p in points] == [1000, 1000]
    assert {"f1_at_point", "recall_at_point", "cost"} <= candidate.metrics.keys()
    cost = candidate.metrics["cost"].interval
    assert cost.low < points[1].cost < cost.high


def test_slices_are_made_of_columns_that_the_model_does_not_take(judged):
    slices = {part.name: part for part in judged["whole"][1].slices}
    assert "country = FR" in slices
    assert slices["2026-02"].kind == "time_window"
    assert slices["country = FR"].difference.high < 0  # worse everywhere
    assert slices["country = FR"].adjusted_p_value < 0.05
    assert sum(part.rows for n, part in slices.items() if n.startswith("score")) == ROWS


def test_batches_give_what_the_whole_gives(judged):
    for whole, stream in zip(judged["whole"], judged["stream"], strict=True):
        assert stream.data == whole.data
        assert stream.confusion == whole.confusion
        assert (stream.flips, stream.operating_point) == (whole.flips, whole.operating_point)
        assert stream.metrics.keys() == whole.metrics.keys()
        for name, metric in whole.metrics.items():
            near = 3e-3 if name in ("roc_auc", "average_precision") else 1e-9
            other = stream.metrics[name].interval
            assert other.value == pytest.approx(metric.interval.value, abs=near), name
            if name == "ece":  # BCa takes the bias of its bootstrap out, the blocks do not
                continue
            widths = (x.high - x.low for x in (other, metric.interval))
            assert next(widths) / next(widths) == pytest.approx(1, abs=0.4), name
        for name, difference in whole.differences.items():
            near = 3e-3 if name in ("roc_auc", "average_precision") else 1e-9
            assert stream.differences[name].value == pytest.approx(difference.value, abs=near)
        assert [(s.name, s.kind, s.rows) for s in stream.slices] == [
            (s.name, s.kind, s.rows) for s in whole.slices
        ]
        for one, other in zip(whole.slices, stream.slices, strict=True):
            assert bool(one.reason) == bool(other.reason)
            if one.metric:
                assert other.metric.value == pytest.approx(one.metric.value, abs=0.03)
        assert [b.rows for b in stream.calibration.bins] == [b.rows for b in whole.calibration.bins]
        assert {c.kind for c in stream.curves} == {"roc", "precision_recall"}
        assert all(len(c.x) <= 200 for c in (*stream.curves, *whole.curves))


def peak(world, test, out):
    """Peak memory in MiB of a process that judges the rows in batches."""
    code = (
        "import sys; from pathlib import Path; from trimgate import tasks\n"
        "world, test, out = sys.argv[1:]\n"
        "tasks.evaluate(f'{world}/candidate', test, out, split='test', name='c',"
        " metric='average_precision', baseline=None, chosen_on=None, settings={'stream_rows': 1},"
        " confidence=0.95, extra_metrics=[], seed=0)\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print('peak', status.partition('VmHWM:')[2].split()[0])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(world), str(test), str(out)],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return int(ran.stdout.rpartition("peak ")[2].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_rows(world, tmp_path):
    sizes = (200_000, 600_000)
    for size in sizes:
        rows_of(size).save(tmp_path / str(size))
    small, large = (peak(world, tmp_path / str(s), tmp_path / f"out-{s}") for s in sizes)
    held = (sizes[1] - sizes[0]) * (COLUMNS + 4) * 8 / 2**20  # what the further rows would take
    assert large - small < held / 3
    record = records.load(records.Evaluation, tmp_path / f"out-{sizes[1]}" / "evaluation.json")
    assert record.rows == sizes[1]


def test_the_baseline_must_have_seen_the_same_rows(world, tmp_path):
    from trimgate.errors import InvalidInput

    evaluate(world, tmp_path / "base", "baseline", stream_rows=1000)
    other = tmp_path / "world"
    other.mkdir()
    for name in ("candidate", "validation"):
        (other / name).symlink_to(world / name)
    rows_of(ROWS, seed=9).save(other / "test")
    for rows in (1000, 10**9):
        with pytest.raises(InvalidInput, match="made on other rows"):
            evaluate(
                other, tmp_path / f"out-{rows}", "candidate", baseline=str(tmp_path / "base"),
                stream_rows=rows,
            )  # fmt: skip
        assert not (tmp_path / f"out-{rows}").exists()
    assert read(world / "candidate").digest != read(world / "baseline").digest
