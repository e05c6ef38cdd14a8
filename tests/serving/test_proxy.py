"""The weighted proxy before a real model server and before servers that misbehave."""

import asyncio
import contextlib
import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import numpy as np
import pytest

from trimgate.ops.rollout import pairs
from trimgate.serving._client import HttpClient, infer_request
from trimgate.serving._ports import bind
from trimgate.serving.proxy import Backend, Proxy, Routes


class Echo(BaseHTTPRequestHandler):
    """Answers with its name, after a while, or with an error."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.pause)
        body = json.dumps({"predictions": [self.server.value]}).encode()
        self.send_response(self.server.code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # the proxy has given up
            self.wfile.write(body)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def echo():
    made = []

    def make(value, *, pause=0.0, code=200):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
        server.value, server.pause, server.code = value, pause, code
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        made.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield make
    for server, thread in made:
        server.shutdown()
        server.server_close()
        thread.join()


def drive(work, **settings):
    """Runs `work(proxy, session)` against a proxy on loopback."""

    async def run():
        proxy = Proxy("m", chance=random.Random(0), grace=5, **settings)
        await proxy.start(bind("127.0.0.1", 0, "--port"))
        try:
            async with aiohttp.ClientSession() as session:
                return await work(proxy, session)
        finally:
            await proxy.stop()

    return asyncio.run(run())


async def ask(proxy, session, path="/v1/models/m:predict"):
    async with session.post(proxy.url + path, json={"instances": [[1]]}) as answer:
        return answer.status, answer.headers["X-Trimgate-Variant"], await answer.json()


def sample(text, name, **labels):
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith(name + "{") and all(f'{k}="{v}"' in line for k, v in labels.items())
    )


async def metrics(proxy, session):
    async with session.get(proxy.url + "/metrics") as answer:
        return await answer.text()


def test_the_share_is_kept_and_changed_without_a_lost_request(echo):
    stable, canary = Backend("stable", echo(1), "a"), Backend("canary", echo(2), "b")

    async def work(proxy, session):
        seen = []
        proxy.route(Routes("r1", stable))
        running = [asyncio.create_task(ask(proxy, session)) for _ in range(50)]
        await asyncio.sleep(0)
        proxy.route(Routes("r2", stable, canary, 25))
        seen.append(Counter([(await task)[:2] for task in running]))
        seen.append(Counter([(await ask(proxy, session))[:2] for _ in range(400)]))
        proxy.route(Routes("r3", canary))
        seen.append(await ask(proxy, session))
        assert await proxy.drained(stable.url, 1)
        return seen, await metrics(proxy, session)

    (first, mixed, last), text = drive(work)
    assert {status for status, _ in first} == {200}
    assert 60 < mixed[200, "canary"] < 140
    assert last[2] == {"predictions": [2]}
    requests = "trimgate_proxy_requests_total"
    assert sample(text, requests, revision="r2", variant="canary") >= mixed[200, "canary"]
    assert sample(text, requests) == 451
    assert sample(text, "trimgate_proxy_request_seconds_count", digest="b", revision="r3") == 1


def test_a_slow_body_goes_to_the_server_that_is_there_when_it_has_come(echo):
    old, new = Backend("stable", echo(1), "a"), Backend("stable", echo(2), "b")

    async def work(proxy, session):
        proxy.route(Routes("r1", old))
        ended = asyncio.Event()

        async def body():
            yield b'{"instances":'
            await ended.wait()
            yield b" [[1]]}"

        async def slow():
            async with session.post(proxy.url + "/v1/models/m:predict", data=body()) as answer:
                return await answer.json()

        asked = asyncio.create_task(slow())
        await ask(proxy, session)  # the slow one has begun by then
        proxy.route(Routes("r2", new))
        assert await proxy.drained(old.url, 5)
        ended.set()
        return await asked

    assert drive(work) == {"predictions": [2]}


@pytest.mark.parametrize("fault", ["dead", "failing", "silent"])
def test_a_canary_that_fails_costs_nobody_an_answer(echo, fault):
    url = {
        "dead": lambda: "http://127.0.0.1:9",
        "failing": lambda: echo(2, code=503),
        "silent": lambda: echo(2, pause=3),
    }[fault]()
    stable, canary = Backend("stable", echo(1), "a"), Backend("canary", url, "b")
    found = []

    async def work(proxy, session):
        proxy.route(Routes("r", stable, canary, 100))
        answers = [await ask(proxy, session) for _ in range(3)]
        return answers, await metrics(proxy, session)

    def keep(routes, one, other):
        found.append((one.status, other.status))

    answers, text = drive(work, on_pair=keep, timeout=0.5)
    assert answers == [(200, "stable", {"predictions": [1]})] * 3
    code = {"dead": "502", "failing": "503", "silent": "504"}[fault]
    assert sample(text, "trimgate_proxy_requests_total", variant="canary", code=code) == 3
    assert sample(text, "trimgate_proxy_rescued_total") == 3
    assert found == [(200, int(code))] * 3


def test_no_model_yet_and_a_dead_stable_one(echo):
    async def work(proxy, session):
        before = await ask(proxy, session)
        proxy.route(Routes("r", Backend("stable", "http://127.0.0.1:9", "a")))
        return before, await ask(proxy, session)

    before, after = drive(work)
    assert before[0] == 503
    assert after[0] == 502
    assert "does not answer" in after[2]["error"]


def test_every_protocol_passes_through_and_pairs_are_read(server, cancer):
    both = [Backend(variant, server.url, "d") for variant in ("stable", "canary")]
    found = []

    def keep(routes, stable, canary):
        given = [(reply.body, pairs.json_bytes(reply.headers)) for reply in (stable, canary)]
        found.append(pairs.pair(given[0], given[1], random.Random(0)))

    async def work(proxy, session):
        proxy.route(Routes("r", both[0], both[1], 50))
        inputs = {
            spec.name: np.column_stack([cancer.rows.features[n][:3] for n in spec.features]).astype(
                spec.dtype
            )
            for spec in cancer.info.inputs
        }

        def asked():
            with HttpClient(proxy.url, "cancer") as client:
                binary = client.infer(inputs)
                text = client.infer(inputs, binary=False)
                rows = [[float(v[i]) for v in cancer.rows.features.values()] for i in range(3)]
                return binary, text, client.predict(rows), client.get("/v2/models/cancer")

        answers = await asyncio.to_thread(asked)
        deadline = time.monotonic() + 30  # nobody waits for the other model's answer
        while len(found) < 3 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return answers

    binary, text, rows, told = drive(work, on_pair=keep)
    with HttpClient(server.url, "cancer") as direct:
        assert direct.get("/v2/models/cancer") == told
    for name, values in binary.items():
        assert (values == text[name]).all()
    assert [row["label"] for row in rows] == list(binary["label"])
    assert len(found) == 3
    assert all(not p.failed and p.gap == 0 and p.stable == p.canary for p in found)
    assert {p.stable for p in found} <= {str(label) for label in cancer.info.labels}


def test_answers_that_cannot_be_compared():
    chance = random.Random(0)
    good = (b'{"predictions": [{"label": 1, "probabilities": {"0": 0.2, "1": 0.8}}]}', None)
    other = (b'{"predictions": [{"label": 0, "probabilities": {"0": 0.7, "1": 0.3}}]}', None)
    found = pairs.pair(good, other, chance)
    assert (found.stable, found.canary, round(found.gap, 6)) == ("1", "0", 0.5)
    for broken in (None, (b"<html>", None), (b'{"predictions": [1.0, 2.0]}', None)):
        assert pairs.pair(good, broken, chance).failed
    assert pairs.pair((b"{}", None), good, chance) is None
    value = pairs.pair((b'{"predictions": [10]}', None), (b'{"predictions": [11]}', None), chance)
    assert value.gap == pytest.approx(0.1)
    assert infer_request({"x": np.zeros((1, 1))})[1]["Inference-Header-Content-Length"]
