"""The smoke test: serve the winner for real, query it, and time it beside the baseline."""

import gc
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.judge import load
from trimgate.judge.benchmark import BASELINE, CANDIDATE
from trimgate.judge.records import BASELINE_SERVED, Interval, LoadResult, Served
from trimgate.models.directory import ModelInfo, read
from trimgate.serving import _tensors
from trimgate.serving._client import HttpClient, RequestFailed, grpc_infer, infer_request
from trimgate.serving._tensors import Array
from trimgate.serving.curl import instance
from trimgate.serving.process import RunningServer, start
from trimgate.serving.server import Address

Floats = NDArray[np.float64]
_Body = tuple[bytes, dict[str, str]]

logger = logging.getLogger("trimgate.serving")

CHECKS = (
    "ready",
    "metadata",
    "v1_json",
    "v2_json",
    "v2_binary",
    "grpc",
    "bad_request",
    "metrics",
)
"""Every check; one that could not be made counts as not held."""

_GOLDEN = 32
_RESAMPLES = 2000
# Connections of the load test: so many that requests wait in the server, as they would in service.
_CONNECTIONS = 16
# Of what one connection alone does; both models surely carry it.
_SHARE = 0.3
_MOST_RATE = 300.0


def smoke_test(
    winner: str | Path,
    baseline: str | Path | None,
    rows: Dataset,
    *,
    threads: int = 1,
    requests: int = 400,
    seconds: float = 10.0,
    rates: Sequence[float] = (),
    load_seconds: float = 0.0,
    timeout: float = 300.0,
    seed: int = 0,
) -> Served:
    """Starts the real server on the winner, checks its answers, and times it.

    The answers to the first 32 rows over V1 JSON, V2 JSON, V2 binary and gRPC must equal those of
    a session in this process to 1e-6 (relative, as float32). The latency is that of one-row V2
    requests with binary tensors over kept-alive connections; winner and baseline are asked in
    pairs, in random order, and compared by the median of the paired ratios.

    Args:
        winner: Model directory.
        baseline: Model directory to time beside it, or None.
        rows: Rows to send.
        threads: Intra-op threads of each server.
        requests: Timed requests of each server, at most.
        seconds: Time for them, at most.
        rates: Requests per second of the open-loop load test (`trimgate.judge.load`); left out,
            one that both models surely carry: 0.3 of what a single connection does, at most 300.
        load_seconds: Time for each rate; 0 leaves the load test out.
        timeout: Seconds that a server has to become ready.
        seed: For the order of the pairs and the bootstrap.

    Returns:
        The record. What goes wrong with a server stands in `errors`, and its check does not hold;
        `requests` is 0 where nothing was timed.

    Raises:
        InvalidInput: A directory is not a model directory, or there are no rows.
    """
    if not len(rows):
        raise InvalidInput("there are no rows to send")
    info = read(winner)
    checks = dict.fromkeys(CHECKS, False)
    if baseline is not None:
        read(baseline)
        checks[BASELINE_SERVED] = False
    errors: list[str] = []
    times: tuple[Floats, Floats | None] = (np.empty(0), None)
    loads: list[LoadResult] = []
    # The servers start side by side. The pool ends before the stack does, so none is left over.
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool, _noting("server", errors):

        def launch(directory: str | Path) -> RunningServer:
            return stack.enter_context(start(directory, threads=threads, timeout=timeout))

        pending = None if baseline is None else pool.submit(launch, baseline)
        servers = [launch(winner)]
        bodies = [_bodies(info, rows)]
        checks |= check_answers(servers[0].address, winner, rows, threads=threads, errors=errors)
        if baseline is not None and pending is not None:
            with _noting("the baseline's server", errors):
                servers.append(pending.result())
                bodies.append(_bodies(read(baseline), rows))
                checks[BASELINE_SERVED] = True
        with _noting("latency", errors):
            times = _time(servers, bodies, requests, seconds, random.Random(seed))  # noqa: S311
        if load_seconds and len(times[0]):
            slower = max(float(np.median(t)) for t in times if t is not None)
            with _noting("load", errors):
                for rate in rates or (round(min(_MOST_RATE, _SHARE / slower), 1),):
                    loads.append(_under_load(servers, bodies, rate, load_seconds, seed))
    return _record(info, checks, times, errors, seed).model_copy(update={"load": tuple(loads)})


def check_answers(
    address: Address,
    directory: str | Path,
    rows: Dataset,
    *,
    errors: list[str],
    threads: int = 1,
) -> dict[str, bool]:
    """Asks a server that nobody else has asked, and compares with a session in this process.

    Args:
        address: Where it answers.
        directory: The model directory that it serves.
        rows: Rows to send; the first 32 are.
        errors: Gets why a check does not hold.
        threads: Intra-op threads of the session.

    Returns:
        Whether each of `CHECKS` holds.
    """
    from trimgate import models, runtimes

    info, rows = read(directory), rows.take(slice(_GOLDEN))
    inputs = models.build_inputs(info, rows.features)
    session = runtimes.load(directory, threads=threads)
    expected = _tensors.outputs(info, session.predict(inputs))
    session.close()
    sent = _tensors.request_tensors(info, rows.features)
    name = address.name

    with HttpClient(address.url, name) as client:

        def ready() -> None:
            _expect(
                client.get(f"/v2/models/{client.name}/ready")["ready"], "the model is not ready"
            )
            _expect(client.get("/v2/health/ready")["ready"], "the server is not ready")

        def metadata() -> None:
            told = client.get(f"/v2/models/{client.name}")
            _expect(told["parameters"]["digest"] == info.digest, "the digest differs")
            _expect(told["parameters"]["labels"] == list(info.labels), "the labels differ")
            given = [(t["name"], t["datatype"], tuple(t["shape"])) for t in told["inputs"]]
            specs = _tensors.request_specs(info)
            wanted = [(t.name, _tensors.DATATYPES[t.dtype], t.shape) for t in specs]
            _expect(given == wanted, f"the inputs are {given}")

        def v1_json() -> None:
            answers = client.predict([instance(info, rows, i) for i in range(len(rows))])
            if info.task != "regression":
                given = {
                    "probabilities": np.array([list(a["probabilities"].values()) for a in answers]),
                    "label": np.array([a["label"] for a in answers], expected["label"].dtype),
                }
            else:
                given = {"value": np.array(answers)}
            same(given, expected)

        def v2_json() -> None:
            same(client.infer(sent, binary=False), expected)

        def v2_binary() -> None:
            same(client.infer(sent), expected)

        def grpc() -> None:
            _expect(address.grpc is not None, "there is no gRPC port")
            same(grpc_infer(str(address.grpc), name, sent), expected)

        def bad_request() -> None:
            for body in (b'{"instances": [[', json.dumps({"instances": [{"?": 1}]}).encode()):
                try:
                    client.request("POST", f"/v1/models/{client.name}:predict", body, {})
                except RequestFailed as error:
                    _expect(error.code == 400, f"a bad request gives {error}")
                else:
                    _expect(False, "a bad request gives 200")

        def metrics() -> None:
            # 4 good requests and 2 bad ones were sent, and nobody else knows the port.
            labels = {"model": name, "digest": info.digest}
            counted = {
                code: client.metric("trimgate_requests_total", code=code, **labels)
                for code in ("200", "400")
            }
            _expect(counted == {"200": 4.0, "400": 2.0}, f"the counters are {counted}")

        parts: Sequence[Callable[[], None]] = (
            ready,
            metadata,
            v1_json,
            v2_json,
            v2_binary,
            grpc,
            bad_request,
            metrics,
        )
        held = {}
        for name_of, part in zip(CHECKS, parts, strict=True):
            before = len(errors)
            with _noting(name_of, errors):
                part()
            held[name_of] = len(errors) == before
    return held


@contextmanager
def _noting(what: str, errors: list[str]) -> Iterator[None]:
    """Turns what fails in the block, whatever it is, into a line of `errors`."""
    try:
        yield
    except Exception as error:
        logger.debug("%s", what, exc_info=error)
        errors.append(f"{what}: {error or type(error).__name__}")


def _expect(held: object, otherwise: str) -> None:
    if not held:
        raise AssertionError(otherwise)


def same(given: dict[str, Array], expected: dict[str, Array], tolerance: float = 1e-6) -> None:
    """Compares served outputs with those of a session, to `tolerance` (relative, as float32).

    Raises:
        AssertionError: They differ; the message says in what.
    """
    _expect(given.keys() == expected.keys(), f"the outputs are {sorted(given)}")
    for name, wanted in expected.items():
        got = given[name]
        _expect(got.shape == wanted.shape, f"{name} has the shape {got.shape}")
        if wanted.dtype.kind != "f":
            different = int((got != wanted).sum())
            _expect(not different, f"{name} differs in {different} of {len(wanted)} rows")
            continue
        wanted = wanted.astype(np.float32).astype(np.float64)
        off = np.abs(got.astype(np.float32) - wanted) - tolerance * np.abs(wanted)
        most = np.abs(got - wanted).max()
        _expect(off.max() <= tolerance / 10, f"{name} differs by up to {most:.3g}")


def _bodies(info: ModelInfo, rows: Dataset) -> list[_Body]:
    """One-row requests, made before the clock runs; texts are tokenized by the server."""
    return [
        infer_request(_tensors.request_tensors(info, rows.take(slice(i, i + 1)).features))
        for i in range(min(len(rows), 256))
    ]


def _time(
    servers: Sequence[RunningServer],
    bodies: Sequence[Sequence[_Body]],
    requests: int,
    seconds: float,
    order: random.Random,
) -> tuple[Floats, Floats | None]:
    """Seconds of each request of the winner, and of the baseline's request in the same pair."""
    times: list[list[float]] = [[] for _ in servers]
    with ExitStack() as stack:
        clients = [stack.enter_context(HttpClient(s.url, s.address.name)) for s in servers]
        for client, own in zip(clients, bodies, strict=True):
            for position in range(20):
                client.send(*own[position % len(own)])
        if gc.isenabled():
            gc.disable()
            stack.callback(gc.enable)
        end = time.perf_counter() + seconds
        for number in range(requests):
            for which in order.sample(range(len(clients)), len(clients)):
                body = bodies[which][number % len(bodies[which])]
                clients[which].send(*body)  # the first one after a switch finds cold caches
                begin = time.perf_counter()
                clients[which].send(*body)
                times[which].append(time.perf_counter() - begin)
            if time.perf_counter() > end:
                break
    arrays = [np.array(t) for t in times]
    return arrays[0], arrays[1] if len(arrays) > 1 else None


def _under_load(
    servers: Sequence[RunningServer],
    bodies: Sequence[Sequence[_Body]],
    rate: float,
    seconds: float,
    seed: int,
) -> LoadResult:
    """One-row requests that arrive whatever is answered yet, to winner and baseline in turn."""
    with ExitStack() as stack:

        def connect(server: RunningServer, own: Sequence[_Body]) -> load.Call:
            client = stack.enter_context(HttpClient(server.url, server.address.name))

            def call(number: int) -> None:
                try:
                    client.send(*own[number % len(own)])
                except OSError:
                    client.close()  # the next request opens it again
                    raise

            return call

        variants = {
            role: stack.enter_context(load.Workers(partial(connect, server, own), _CONNECTIONS))
            for role, server, own in zip((CANDIDATE, BASELINE), servers, bodies, strict=False)
        }
        blocks = load.load_blocks(variants, rate=rate, seconds=seconds, seed=seed)
    return load.summarise_load(blocks, where="server", rate=rate, concurrency=_CONNECTIONS)


def _record(
    info: ModelInfo,
    checks: dict[str, bool],
    times: tuple[Floats, Floats | None],
    errors: list[str],
    seed: int,
) -> Served:
    own, other = times
    quantiles = np.quantile(own, [0.5, 0.95, 0.99]) if len(own) else np.zeros(3)
    return Served(
        model=info.digest,
        checks=checks,
        latency=None if other is None else _paired_ratio(other, own, seed),
        p50=float(quantiles[0]),
        p95=float(quantiles[1]),
        p99=float(quantiles[2]),
        baseline_p50=None if other is None else float(np.median(other)),
        requests=len(own),
        errors=tuple(errors),
    )


def _paired_ratio(numerator: Floats, denominator: Floats, seed: int) -> Interval:
    """Median of the paired ratios, with its percentile bootstrap interval."""
    ratios = numerator / denominator
    draws = np.random.default_rng(seed).choice(ratios, (_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return Interval(
        value=float(np.median(ratios)),
        low=float(low),
        high=float(high),
        method="median of paired ratios of one-row V2 binary REST requests, bootstrap",
    )
