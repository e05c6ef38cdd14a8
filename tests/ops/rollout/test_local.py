"""The whole story on one machine: real model servers, a real repository, a real watcher."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from rollouts import Clients, config_repository, released

from trimgate.ops.git import ConfigRepository, PushRejected, ReleaseLog
from trimgate.ops.release import start_canary
from trimgate.ops.rollout.platforms import GoldenCheck, LocalObserver
from trimgate.ops.rollout.policy import RolloutPolicy
from trimgate.ops.rollout.position import position
from trimgate.ops.rollout.watch import watch

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
            "promote": {"store": "store", "repository": "config.git"},
            "rollout": ROLLOUT,
        }
        (folder / "optimize.yaml").write_text(yaml.safe_dump(config))
        self.url = None

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
    log = (folder / "platform.log").open("wb")
    platform = subprocess.Popen(
        told.command("serve", "--port", "0", "--interval", "0.2", "--stop-on-eof"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    try:
        line = platform.stdout.readline()
        assert "answers at" in line, (folder / "platform.log").read_text()
        told.url = line.split()[-1]
        told.only_stable()
        yield told
    finally:
        platform.terminate()
        platform.wait(60)
        platform.stdin.close()
        platform.stdout.close()
        log.close()


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
