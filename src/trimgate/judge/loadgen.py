"""MLPerf LoadGen as a second harness, for numbers in the industry's own scenarios.

It runs one model at a time, so that it compares nothing: the ratios come from the interleaved
timing. LoadGen plans its run from the latency or rate that it is told to expect, and ends early as
INVALID when that is far off; it is told what our own timing found. An INVALID result is reported
as such.
"""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from trimgate.errors import MissingExtra
from trimgate.judge.records import LoadGenRun

Scenario = Literal["SingleStream", "Offline", "Server"]
SCENARIOS: tuple[Scenario, ...] = ("SingleStream", "Offline", "Server")
# Server asks for this share of what one caller does, so that the queue stays short.
_SHARE = 0.5
_P99_BOUND = 20.0


def check_installed() -> None:
    """Imports LoadGen.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        import mlperf_loadgen  # noqa: F401
    except ImportError as error:
        raise MissingExtra("mlcommons-loadgen", "loadgen") from error


def run_loadgen(
    predict: Callable[[int], object],
    samples: int,
    *,
    scenario: Scenario,
    variant: Literal["baseline", "candidate"],
    seconds_per_call: float,
    seconds: float,
    seed: int,
) -> LoadGenRun:
    """One run of one scenario.

    Args:
        predict: Predicts the sample of that number.
        samples: How many there are.
        scenario: LoadGen's.
        variant: For the record.
        seconds_per_call: What our own timing found, which LoadGen is told to expect.
        seconds: The least time of the run. A Server run passes when its p99 stays below 20 times
            `seconds_per_call`.
        seed: Of LoadGen's order and arrivals.

    Raises:
        MissingExtra: LoadGen is not installed.
    """
    check_installed()
    import mlperf_loadgen as loadgen

    rate = 1 / seconds_per_call
    expected = {"SingleStream": seconds_per_call, "Offline": rate, "Server": _SHARE * rate}
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(seconds * 1e3)
    settings.min_query_count = 100
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = seed
    settings.single_stream_expected_latency_ns = max(1, round(seconds_per_call * 1e9))
    settings.offline_expected_qps = rate
    settings.server_target_qps = _SHARE * rate
    settings.server_target_latency_ns = round(_P99_BOUND * seconds_per_call * 1e9)
    settings.server_target_latency_percentile = 0.99

    def issue(queries: Sequence[Any]) -> None:
        for query in queries:
            predict(query.index)
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query.id, 0, 0)])

    with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
        output = loadgen.LogOutputSettings()
        output.outdir = folder
        output.copy_summary_to_stdout = False
        logs = loadgen.LogSettings()
        logs.log_output = output
        logs.enable_trace = False
        sut = loadgen.ConstructSUT(issue, lambda: None)
        library = loadgen.ConstructQSL(samples, samples, lambda _: None, lambda _: None)
        try:
            loadgen.StartTestWithLogSettings(sut, library, settings, logs, "")
        finally:
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(sut)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
    return _read(summary, scenario, variant, expected[scenario])


def _read(
    summary: str,
    scenario: Scenario,
    variant: Literal["baseline", "candidate"],
    expected: float,
) -> LoadGenRun:
    """What LoadGen's summary says."""
    fields: Mapping[str, str] = {
        key.strip(): value.strip()
        for key, found, value in (line.partition(":") for line in summary.splitlines())
        if found
    }

    def seconds(share: str) -> float | None:
        value = fields.get(f"{share} percentile latency (ns)")
        return None if value is None or scenario == "Offline" else float(value) * 1e-9

    per_second = next(
        (
            float(fields[key])
            for key in ("Samples per second", "Completed samples per second")
            if key in fields
        ),
        None,
    )
    valid = fields.get("Result is") == "VALID"
    told = re.findall(r"^ \* (.+)$", summary, re.MULTILINE)[:3]
    return LoadGenRun(
        scenario=scenario,
        variant=variant,
        valid=valid,
        reason="" if valid else "; ".join(told) or "LoadGen gave no verdict",
        p50=seconds("50.00"),
        p90=seconds("90.00"),
        p99=seconds("99.00"),
        per_second=per_second,
        expected=expected,
    )
