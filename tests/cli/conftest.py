"""Runs of the command that tests watch, stop and kill."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from trimgate import processes


class Running:
    """`trimgate run` in a process of its own, whose output is read line by line."""

    def __init__(self, config: Path, *arguments: str, **options) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "trimgate", "run", str(config), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
        )  # fmt: skip

    def until(self, ending: str) -> "Running":
        """Reads on to the line that ends so."""
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if self.lines[-1].endswith(ending):
                return self
        pytest.fail(f"no line ends with {ending!r}: {self.lines} {self.process.stderr.read()}")

    def below(self) -> list[int]:
        """Pids of the processes of the task that was said to start: a shell and Python."""
        deadline = time.monotonic() + 20
        while len(found := processes.descendants(self.process.pid)) < 2:
            assert time.monotonic() < deadline, "no task was started"
            time.sleep(0.02)
        return found

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Sends a signal to this process alone; returns exit code and standard error."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> tuple[int, str]:
        out, err = self.process.communicate(timeout=300)
        self.lines += out.splitlines()
        return self.process.returncode, err

    def started(self) -> list[str]:
        """Titles of the tasks that were carried out."""
        return [line[9:].removesuffix(": ...") for line in self.lines if line.endswith(": ...")]


@pytest.fixture(scope="session")
def helpers():
    """What the tests of this folder share."""
    return SimpleNamespace(
        Running=Running, alive=alive, gone=gone, half_written=half_written,
        quick_config=quick_config,
    )  # fmt: skip


def gone(pids: list[int], seconds: float = 20) -> bool:
    """Whether all these processes end."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="session")
def project(cancer, tmp_path_factory) -> Path:
    """A folder of its own with a config whose run is as short as can be."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("model.skops", "rows.parquet"):
        (folder / name).write_bytes((cancer / name).read_bytes())
    quick_config(folder)
    return folder


def quick_config(folder: Path, file: str = "optimize.yaml", **changes: object) -> Path:
    config = {
        "name": "cancer",
        "model": {"path": "model.skops"},
        "data": {"path": "rows.parquet", "label": "target", "split": {"method": "random"}},
        "metric": "accuracy",
        "target": {"profile": "cloud-cpu", "batch_sizes": [1]},
        "recipes": [{"steps": [{"technique": "optimize_graph"}]}],
        "benchmark": {"seconds": 0.5, "processes": 1, "min_rounds": 20, "control_tolerance": 0.9},
        "gate": {"max_drop": {"accuracy": 0.02}},
        "mlflow": {"enabled": False},
        **changes,
    }
    path = folder / file
    path.write_text(yaml.safe_dump(config))
    return path


def half_written(folder: Path) -> list[str]:
    """Whatever a writer left in the middle of its work."""
    # the store keeps the folder in which it writes
    found = (f for f in folder.rglob("*.partial*") if f.suffix != ".yaml")
    return [str(f) for f in found if f.name != ".partial" or any(f.iterdir())]
