"""The whole story on one machine: real model servers, a real repository, a real watcher."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from kfp import dsl
from report.sample_cards import passing
from rollouts import Clients, config_repository, released
from trimgate.components.deployment.watch_rollout import watch_rollout

from trimgate.config import load_config
from trimgate.models.directory import read, seal
from trimgate.ops import promotion
from trimgate.ops.git import ConfigRepository, PushRejected, ReleaseLog
from trimgate.ops.kfp_local import run_local
from trimgate.ops.publish import Trust, publish
from trimgate.ops.release import start_canary
from trimgate.ops.rollout.local import LocalPlatform, _Server
from trimgate.ops.rollout.platforms import GoldenCheck, LocalObserver
from trimgate.ops.rollout.policy import RolloutPolicy
from trimgate.ops.rollout.position import position
from trimgate.ops.rollout.watch import watch
from trimgate.processes import descendants
from trimgate.tasks import releases_of, store_of

ROLLOUT = {
    "interval": 0.3,
    "minimum_seconds": 0.5,
    "minimum_requests": 20,
    "ready_timeout": 900,
    "step_timeout": 900,
    "steps": [25, 50, 100],
    "max_disagreement": 0.05,
    "max_error_rate": 0.1,
    "max_latency_ratio": {"p50": 4},
}


class Story:
    """A platform in a process of its own, and watchers here."""

    def __init__(self, folder, models, rows):
        self.folder, self.rows = folder, rows
        self.access = config_repository(folder, models["stable"])
        rows.save(folder / "rows")
        config = {
            "name": "small",
            "model": {"path": "model.onnx"},
            "data": {"path": "rows.parquet", "label": "label"},
            "promote": {
                "store": "store", "repository": "config.git",
                "environments": {"staging": {}, "production": {"mode": "commit"}},
            },
            "rollout": ROLLOUT,
        }
        (folder / "optimize.yaml").write_text(yaml.safe_dump(config))
        self.url = self.platform = None

    def start(self):
        """The platform, in a process of its own."""
        with (self.folder / "platform.log").open("ab") as log:
            self.platform = subprocess.Popen(
                self.command("serve", "--port", "0", "--interval", "0.2", "--stop-on-eof"),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        line = self.platform.stdout.readline()
        assert "answers at" in line, (self.folder / "platform.log").read_text()
        self.url = line.split()[-1]

    def stop(self, how=signal.SIGTERM):
        self.platform.send_signal(how)
        self.platform.wait(60)
        self.platform.stdin.close()
        self.platform.stdout.close()

    def command(self, action, *more):
        return [
            sys.executable, "-m", "trimgate", "rollout", action, "small",
            "--config", str(self.folder / "optimize.yaml"), *more,
        ]  # fmt: skip

    def canary(self, log, directory):
        log.change(lambda release: start_canary(release, released(directory), 25), "Canary, 25 %")

    def watch(self, log, **changes):
        """The end, and what was said until then."""
        said = []
        golden = GoldenCheck(Path, self.rows)
        platform = LocalObserver(lambda: self.url, golden)
        policy = RolloutPolicy(**{**ROLLOUT, **changes})
        return watch(log, platform, policy, say=said.append), said

    def state(self):
        with urllib.request.urlopen(self.url + "/trimgate/state", timeout=30) as answer:
            return json.load(answer)

    def until(self, holds, seconds=900):
        deadline = time.monotonic() + seconds
        while not holds(self.state()):
            assert time.monotonic() < deadline, self.state()
            time.sleep(0.1)

    def only_stable(self):
        self.until(lambda state: len(state["variants"]) == 1 and state["applied"])


@pytest.fixture(scope="module")
def story(tmp_path_factory, models, rows):
    folder = tmp_path_factory.mktemp("story")
    told = Story(folder, models, rows)
    told.start()
    try:
        told.only_stable()
        yield told
    finally:
        told.stop()


@pytest.fixture
def log(story):
    with ConfigRepository.open(story.access) as copy:
        yield ReleaseLog(copy, "small", "production")


@pytest.mark.parametrize(
    ("kind", "checks"),
    [
        ("wrong", {"agreement", "agreement by label"}),
        ("slow", {"latency p50"}),
        ("failing", {"errors", "agreement", "agreement by label"}),
    ],
)
def test_a_bad_canary_rolls_itself_back(story, log, models, rows, kind, checks):
    before = log.current()
    story.canary(log, models[kind])
    with Clients(story.url, rows) as clients:
        # One golden input: a wrong or a failing model answers that row as it should.
        ended, said = story.watch(log, golden=1)
        story.only_stable()
    assert ended.state == "rolled back"
    last = [event.decision for event in said if event.decision][-1]
    assert checks & {check.rule for check in last.checks if check.outcome == "fail"}, last
    assert set(clients.answers) == {200}, clients.answers  # the stable model stood in
    assert log.current() == before
    newest, *_ = entries = log.entries()
    assert newest.message.startswith("Revert the canary at")
    assert last.reason in newest.message
    assert f"This reverts commit {entries[1].revision}" in newest.message


def test_a_tampered_model_is_never_served(story, log, models, tmp_path):
    evil = tmp_path / "evil"
    shutil.copytree(models["same"], evil)
    before = log.current()
    story.canary(log, evil)
    (evil / "model.onnx").write_bytes((models["wrong"] / "model.onnx").read_bytes())
    ended, _ = story.watch(log)
    assert ended.state == "rolled back"
    assert "was altered" in ended.reason
    assert log.current() == before


def test_a_canary_whose_server_is_killed_is_rolled_back(story, log, models, rows):
    before = log.current()
    story.canary(log, models["same"])
    story.until(lambda state: state["percent"] == 25)
    ended = threading.Event()

    def kill():
        """The canary's process, and what is started in its place."""
        while not ended.wait(0.05):
            for pid in descendants(story.platform.pid):
                with contextlib.suppress(OSError):
                    if os.fsencode(models["same"]) in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with Clients(story.url, rows) as clients:
            rolled_back, _ = story.watch(log)
    finally:
        ended.set()
        killer.join()
    story.only_stable()
    assert rolled_back.state == "rolled back"
    assert "the server ended with exit code -9" in rolled_back.reason
    assert "of them not at all" in rolled_back.reason
    assert set(clients.answers) == {200}, clients.answers
    assert log.current() == before
    assert rolled_back.reason in log.entries()[0].message


def test_a_platform_that_is_killed_comes_back_to_the_same_state(story, log, models):
    story.canary(log, models["same"])
    story.until(lambda state: state["percent"] == 25)
    before = story.state()
    children = descendants(story.platform.pid)
    story.stop(signal.SIGKILL)
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "its model servers are left"
        time.sleep(0.1)
    story.start()
    story.until(lambda state: state["percent"] == 25)
    after = story.state()
    assert after["revision"] == before["revision"]
    assert [(v["variant"], v["digest"], v["state"]) for v in after["variants"]] == [
        (v["variant"], v["digest"], "ready") for v in before["variants"]
    ]
    log.rollback()
    story.only_stable()


def test_a_model_that_is_not_signed_is_never_served(models, keys):
    platform = LocalPlatform(
        None, Path, name="small", environment="production", trust=Trust(verify_key=keys / "a.pub")
    )
    server = _Server(released(models["same"]))
    asyncio.run(platform._begin(server))
    assert (server.state, server.final, server.running) == ("failed", True, None)
    assert "the model is not signed" in server.reason


def test_without_traffic_and_with_a_closed_repository_nothing_is_half_done(story, log, models):
    story.canary(log, models["same"])
    story.until(lambda state: state["percent"] == 25)
    hook = Path(story.access.url) / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho closed for today >&2\nexit 1\n")
    hook.chmod(0o755)
    platform = LocalObserver(lambda: story.url, GoldenCheck(Path, story.rows))
    with pytest.raises(PushRejected, match="closed for today"):
        watch(log, platform, RolloutPolicy(**{**ROLLOUT, "step_timeout": 1}), patience=0)
    assert position(log.entries()).state == "running"
    hook.unlink()
    ended, _ = story.watch(log, step_timeout=1)  # another watcher, later
    assert ended.state == "rolled back"
    assert "no proof" in ended.reason
    assert "the canary had 0 of at least 20" in ended.reason
    story.only_stable()


def test_good_canary_is_promoted_though_the_watcher_is_killed(story, log, models, rows):
    good = released(models["same"])
    story.canary(log, models["same"])
    with Clients(story.url, rows) as clients:
        first = subprocess.Popen(
            story.command("watch", "--rows", str(story.folder / "rows"), "--json"),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        for line in first.stdout:  # killed outright after it has committed the next step
            if json.loads(line)["kind"] == "commit":
                break
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        first.stdout.close()
        assert position(log.entries()).share == 50
        ended, _ = story.watch(log)
        story.only_stable()
    assert ended.state == "promoted", ended
    assert set(clients.answers) == {200}, clients.answers  # no request was lost on the way
    entries = log.entries()
    assert entries[0].release.stable.digest == good.digest
    assert [entry.message.splitlines()[0] for entry in entries][:3] == [
        "Canary promoted to stable", "Canary from 25 to 50 %", "Canary, 25 %",
    ]  # fmt: skip


def test_a_pipeline_rolls_out_what_staging_has(story, models, rows, tmp_path):
    section = load_config(story.folder / "optimize.yaml").promote
    model = tmp_path / "another"  # of no other test
    shutil.copytree(models["same"], model)
    seal(model, read(model).model_copy(update={"family": "other"}))
    card = passing(run="run-2", name="small", winner=read(model))
    uri = publish(model, card, store_of(section))
    candidate = released(model).model_copy(update={"storage_uri": uri, "run": "run-2"})
    promotion.promote(releases_of(section), "small", "staging", candidate)

    @dsl.pipeline(name="roll-out")
    def pipeline(rows_uri: str) -> str:
        given = dsl.importer(artifact_uri=rows_uri, artifact_class=dsl.Dataset, reimport=False)
        return watch_rollout(
            rows=given.output, name="small", source="staging", store=section.store,
            target={"threads": 1}, policy={**ROLLOUT, "environment": "production"},
            settings=section.model_dump(mode="json", exclude={"store"}, exclude_none=True),
        ).output  # fmt: skip

    def run():
        return run_local(
            pipeline, {"rows_uri": str(story.folder / "rows")}, root=tmp_path / "work",
            log=tmp_path / "log.txt", on_event=lambda event: None, cache=False,
        ).outputs  # fmt: skip

    with Clients(story.url, rows) as clients:
        assert list(run().values()) == ["promoted"], (tmp_path / "log.txt").read_text()
    assert set(clients.answers) == {200}, clients.answers
    stable = promotion.current(releases_of(section), "small", "production").stable
    assert (stable.digest, stable.storage_uri, stable.run) == (candidate.digest, uri, "run-2")
