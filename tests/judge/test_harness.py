"""Real models, timed in real fresh processes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.judge import _child, harness
from trimgate.judge.benchmark import BenchmarkSettings
from trimgate.judge.harness import MeasurementError, run_benchmark
from trimgate.models import ModelSource, export_onnx, import_model, load_trainable
from trimgate.models.directory import ONNX_FILE, RuntimeChoice, read, seal, writing
from trimgate.targets import Target

QUICK = BenchmarkSettings(seconds=0.4, processes=2, min_rounds=12, resamples=200)
TARGET = Target(name="cloud-cpu", batch_sizes=(1, 64))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Boosted trees as they were trained, the same as ONNX, and rows."""
    from sklearn.datasets import load_breast_cancer
    from xgboost import XGBClassifier

    folder = tmp_path_factory.mktemp("models")
    matrix, labels = load_breast_cancer(return_X_y=True)
    data = Dataset({f"f{c}": matrix[:, c] for c in range(matrix.shape[1])}, labels)
    data.save(folder / "rows")
    XGBClassifier(n_estimators=50, max_depth=4, n_jobs=1).fit(matrix, labels).save_model(
        folder / "trees.ubj"
    )
    info = import_model(
        ModelSource(path=folder / "trees.ubj", name="trees"), data, folder / "baseline"
    )
    with writing(folder / "candidate") as partial:
        changes = export_onnx(load_trainable(folder / "baseline"), info, data, partial / ONNX_FILE)
        served = info.model_copy(
            update={**changes, "parent": info.digest, "runtime": RuntimeChoice(name="onnxruntime")}
        )
        seal(partial, served)
    return folder


@pytest.fixture(scope="module")
def benchmark(models):
    return run_benchmark(
        models / "baseline", models / "candidate", models / "rows", TARGET, QUICK, name="onnx"
    )


def test_every_batch_size_is_timed_in_every_process(models, benchmark):
    assert benchmark.baseline_model == read(models / "baseline").digest
    assert benchmark.model == read(models / "candidate").digest
    assert [batch.batch_size for batch in benchmark.batches] == [1, 64]
    for batch in benchmark.batches:
        assert batch.processes in (2, 4), "as many again where the timing came out void"
        assert batch.wall.low <= batch.wall.value <= batch.wall.high
        assert batch.candidate.p50 > 0
        assert batch.rounds >= 12
    assert benchmark.candidate.size == read(models / "candidate").size
    assert benchmark.settings["threads"] == 1


def test_footprints_are_of_fresh_processes(benchmark):
    for footprint in (benchmark.baseline, benchmark.candidate):
        assert footprint.peak_rss >= footprint.base_rss > 10 * 2**20
        assert footprint.cold_start > footprint.load > 0
    assert benchmark.candidate.peak_rss < benchmark.baseline.peak_rss


def test_a_footprint_that_is_known_is_taken_over(models, benchmark):
    again = run_benchmark(
        models / "baseline", models / "candidate", models / "rows",
        Target(name="t", batch_sizes=(1,)),
        QUICK.model_copy(update={"seconds": 0.1, "processes": 1}), "again",
        baseline_footprint=benchmark.baseline,
    )  # fmt: skip
    assert again.baseline == benchmark.baseline


def test_the_program_reads_a_job_and_writes_json(models):
    data = Dataset.load(models / "rows")
    from trimgate.models import build_inputs

    inputs = build_inputs(read(models / "candidate"), data.features)
    _child.write_inputs(models / "inputs", inputs)
    job = {
        "mode": "footprint",
        "model": str(models / "candidate"),
        "inputs": str(models / "inputs"),
        "rows": len(data),
        "batch_sizes": [1],
        "threads": 1,
    }
    done = subprocess.run(
        [sys.executable, "-m", "trimgate.judge.harness"],
        input=json.dumps(job), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert set(json.loads(done.stdout)["result"]) == {"peak_rss", "base_rss", "cold_start", "load"}


def test_inputs_come_back_as_they_were(tmp_path):
    inputs = {
        "x": np.arange(12, dtype=np.float32).reshape(6, 2),
        "colour": np.array([["red"], ["bläu"], ["__missing__"]] * 2, dtype=object),
    }
    _child.write_inputs(tmp_path / "i", inputs)
    back = _child.read_inputs(tmp_path / "i", [5, 0, 0])
    np.testing.assert_array_equal(back["x"], inputs["x"][[5, 0, 0]])
    assert back["x"].dtype == np.float32
    assert back["colour"].tolist() == [["__missing__"], ["red"], ["red"]]
    assert back["colour"].dtype == object


def test_a_model_that_cannot_be_loaded_is_named(models, tmp_path):
    broken = tmp_path / "broken"
    with writing(broken) as partial:
        (partial / ONNX_FILE).write_bytes(b"not a graph")
        seal(partial, read(models / "candidate").model_copy(update={"files": {}}))
    with pytest.raises(NotApplicable, match="ONNX Runtime cannot load it"):
        run_benchmark(models / "baseline", broken, models / "rows", TARGET, QUICK)


def test_a_process_that_takes_too_long_is_given_up(models):
    settings = QUICK.model_copy(update={"timeout": 0.05})
    with pytest.raises(MeasurementError, match=r"more than 0\.05 s"):
        run_benchmark(models / "baseline", models / "candidate", models / "rows", TARGET, settings)


def test_rows_that_are_no_data_set_are_refused(models, tmp_path):
    with pytest.raises(InvalidInput, match="is not a data set"):
        run_benchmark(models / "baseline", models / "candidate", tmp_path, TARGET, QUICK)


@pytest.fixture(scope="module")
def busy(models):
    """Everything that a target may ask for at once."""
    target = Target(
        name="edge", batch_sizes=(1,), rates=(150.0,), concurrency=2, enforce=True, cpus=1,
        memory_limit_mb=1024, price_per_hour=0.1, traffic=100,
    )  # fmt: skip
    settings = QUICK.model_copy(
        update={"seconds": 0.2, "processes": 1, "load_seconds": 2.0, "loadgen": True,
                "loadgen_seconds": 0.2}
    )  # fmt: skip
    return run_benchmark(
        models / "baseline", models / "candidate", models / "rows", target, settings
    )


def test_the_target_s_rate_is_offered_to_both_models(busy):
    (loaded,) = busy.load
    assert (loaded.where, loaded.rate, loaded.concurrency) == ("session", 150.0, 2)
    for point in (loaded.baseline, loaded.candidate):
        assert point.requests > 80
        assert point.errors == 0
        assert len(point.quantiles) == 23
        if not point.dropped:  # as on a machine that does nothing else
            assert 0 < point.p50 <= point.p95 <= point.p99
    assert loaded.baseline.requests == loaded.candidate.requests
    assert (loaded.p99_ratio is None) <= bool(loaded.baseline.dropped or loaded.candidate.dropped)


def test_several_callers_are_measured(busy):
    (found,) = busy.concurrent
    assert (found.callers, found.kind, found.batch_size) == (2, "threads", 1)
    assert found.candidate > 0
    assert found.ratio.low <= found.ratio.value <= found.ratio.high


def test_callers_may_be_processes(models, benchmark):
    target = Target(name="t", batch_sizes=(1,), concurrency=2, callers="processes")
    found = run_benchmark(
        models / "baseline", models / "candidate", models / "rows", target,
        QUICK.model_copy(update={"seconds": 0.1, "processes": 1, "load_seconds": 1.6}),
        baseline_footprint=benchmark.baseline,
    ).concurrent[0]  # fmt: skip
    assert (found.callers, found.kind) == (2, "processes")
    assert found.baseline > 0


def test_the_record_says_what_was_limited_and_what_it_costs(busy):
    assert busy.limits["cpus"].startswith("affinity to 1 of")
    assert "1024 MiB" in busy.limits["memory"]
    assert busy.standing["limits"].startswith("measured: held to 1 cores and 1024 MiB")
    assert busy.cost.price == "price_per_hour"
    assert busy.cost.baseline_month == pytest.approx(0.1 * 730)
    assert busy.energy.source in ("estimate", "rapl")
    assert busy.energy.candidate > 0
    first = busy.batches[0]
    assert busy.cost.candidate == pytest.approx(1e6 * first.candidate.cpu * 0.1 / 3600)
    assert set(first.warmup) == {"baseline", "candidate"}
    assert (busy.busy != "") == (first.state != "clean")


def test_loadgen_gives_its_verdict_of_each_scenario_and_model(busy):
    found = {(run.scenario, run.variant) for run in busy.loadgen}
    assert found == {
        (scenario, variant)
        for scenario in ("SingleStream", "Offline", "Server")
        for variant in ("baseline", "candidate")
    }
    for run in busy.loadgen:
        assert run.valid or run.reason
        if run.scenario == "Offline":
            assert run.per_second > 0
        else:
            assert 0 < run.p50 <= run.p99


def test_a_candidate_that_needs_more_memory_than_the_target_has_is_refused(models, benchmark):
    target = Target(name="tiny", batch_sizes=(1,), enforce=True, memory_limit_mb=20)
    with pytest.raises(NotApplicable, match="does not run within the 20 MiB of tiny"):
        run_benchmark(
            models / "baseline", models / "candidate", models / "rows", target, QUICK,
            baseline_footprint=benchmark.baseline,
        )  # fmt: skip


def test_a_machine_that_is_too_busy_is_said_in_words(make_benchmark):
    void = make_benchmark(state="void", control=1.1).batches
    told = harness._busy("quick", void, {"load_average": [9.5, 1, 1], "cores": 2})
    assert "load 9.5 on 2 cores" in told
    assert "nothing may be concluded" in told
    assert harness._busy("quick", make_benchmark().batches, {}) == ""
