"""From a trained model to a rollout that undoes itself, on this machine.

Optimizes the fraud model and releases it; rolls a good canary out; then three bad ones, which are
rolled back; and shows the Git history. Requests are made of real payments.
"""

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent))

from plant import plant

from trimgate.config import load_config
from trimgate.data import Dataset, as_dataset, read_columns
from trimgate.models.directory import read
from trimgate.ops import promotion
from trimgate.ops.release import ReleasedModel
from trimgate.serving import read_state
from trimgate.serving.curl import instance
from trimgate.tasks import local_platform_state, releases_of

HERE = Path(__file__).parent
CONFIG = HERE / "optimize.yaml"
ROWS = HERE.parent / "fraud" / "creditcard.parquet"
BAD = {
    "wrong": "a canary that scores a seventh of the payments wrongly",
    "slow": "a canary that is right, and slow",
    "failing": "a canary that gives no answer to a seventh of the payments",
}


def main() -> None:
    """Tells the story."""
    config = load_config(CONFIG)
    releases = releases_of(config.promote)
    title("Optimize, judge, and release to staging")
    if trimgate("run", str(CONFIG), "--fail-on-reject", check=False) != 0:
        sys.exit("nothing passed the gate, so there is nothing to roll out; try again on a machine "
                 "that is less busy")  # fmt: skip
    winner = stable(releases, "staging")
    title("Release to production, and serve it on this machine")
    promotion.promote(releases, "fraud", "production", winner)
    trimgate("rollout", "serve", "fraud", "--config", str(CONFIG), "--port", "0", "--detach")
    state = read_state(local_platform_state(config.promote, "fraud", "production"))
    if state is None:
        sys.exit("the local platform does not run")
    rows = as_dataset(read_columns(ROWS), "Class", ("Time",), ROWS)
    source = Path(winner.storage_uri.removeprefix("file://"))
    try:
        with tempfile.TemporaryDirectory() as folder, Payments(state.url, source, rows):
            title("A good canary: the same model, built again")
            canary(releases, source, Path(folder, "same"), "same")
            watch(0)
            for kind, what in BAD.items():
                title(what[0].upper() + what[1:])
                canary(releases, source, Path(folder, kind), kind)
                watch(3)
        title("The history of production")
        repository = releases.access.url
        git = [shutil.which("git") or "git", "-C", repository]
        subprocess.run(
            [*git, "log", "--format=%h %ad %s", "--date=format:%H:%M:%S", "--", "overlays"],
            check=True,
        )
        print("\nthe last commit:\n", flush=True)
        subprocess.run([*git, "show", "--format=%B"], check=True)
    finally:
        trimgate("stop", str(CONFIG))


def stable(releases: promotion.Releases, environment: str) -> ReleasedModel:
    """The model that gets the traffic."""
    model = promotion.current(releases, "fraud", environment).stable
    if model is None:
        sys.exit(f"nothing is released to {environment}")
    return model


def canary(releases: promotion.Releases, source: Path, out: Path, kind: str) -> None:
    """Releases a copy of the model as a faulty pipeline would: it claims to have passed."""
    digest = plant(source, out, kind, slow=200).digest
    model = ReleasedModel(
        storage_uri=str(out),
        digest=digest,
        run=stable(releases, "production").run,
        verdict="pass",
        promoted=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    promotion.promote(releases, "fraud", "production", model, canary=10)


def watch(expected: int) -> None:
    """Watches the rollout, which ends as it should."""
    code = trimgate(
        "rollout", "watch", "fraud", "--config", str(CONFIG), "--rows", str(ROWS), check=False
    )
    if code != expected:
        sys.exit(f"the watcher ended with {code}, not {expected}")


def trimgate(*arguments: str, check: bool = True) -> int:
    """Runs the command, and shows it."""
    shown = [Path(a).name if "/" in a else a for a in arguments]
    print(f"$ trimgate {' '.join(shown)}", flush=True)
    return subprocess.run([sys.executable, "-m", "trimgate", *arguments], check=check).returncode


def title(text: str) -> None:
    """Begins a chapter."""
    print(f"\n== {text}", flush=True)


class Payments:
    """Sends one payment after the other from four connections, 120 a second at most."""

    def __init__(self, url: str, model: Path, rows: Dataset) -> None:
        info = read(model)
        newest = rows.take(slice(len(rows) - 2000, len(rows)))
        self._bodies = [
            json.dumps({"instances": [instance(info, newest, i)]}).encode() for i in range(2000)
        ]
        self._url = urlsplit(url)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(4)]
        self.answers: dict[int, int] = {}

    def _send(self, number: int) -> None:
        connection = http.client.HTTPConnection(str(self._url.hostname), self._url.port, timeout=30)
        while not self._stop.is_set():
            begun = time.monotonic()
            body = self._bodies[number % len(self._bodies)]
            connection.request(
                "POST", "/v1/models/fraud:predict", body, {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            answer.read()
            self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
            number += 4
            time.sleep(max(0.0, 4 / 120 - (time.monotonic() - begun)))
        connection.close()

    def __enter__(self) -> "Payments":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        told = ", ".join(f"{count} with {code}" for code, count in sorted(self.answers.items()))
        print(f"\nrequests answered meanwhile: {told}", flush=True)


if __name__ == "__main__":
    main()
