"""Whole runs with every task in its image, and runs that fail or are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from containers_support import CORE
from kfp import dsl

from trimgate.ops.kfp_containers import Containers
from trimgate.ops.kfp_local import TaskFailed, run_local
from trimgate.report import CardInput

pytestmark = pytest.mark.containers


@pytest.fixture
def place(cancer, tmp_path_factory) -> Path:
    """A config whose paths the containers' user may write to."""
    folder = tmp_path_factory.mktemp("run")
    # pytest's folders are for their owner alone
    for above in (folder, folder.parent, folder.parent.parent, cancer, cancer.parent):
        above.chmod(0o755)
    text = (cancer / "optimize.yaml").read_text()
    (folder / "optimize.yaml").write_text(
        text + "mlflow: {tracking_uri: 'sqlite:///mlflow/mlflow.db'}\n"
    )
    return folder


@pytest.mark.timeout(1200)
def test_whole_pipeline(core, place):
    done = subprocess.run(
        [sys.executable, "-m", "trimgate", "run", str(place / "optimize.yaml"), "--containers"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (card_file,) = place.glob("trimgate-runs/*/card.json")
    card = CardInput.model_validate_json(card_file.read_bytes())
    assert card.selection.winner != "baseline"
    assert card.verdict.outcome == "pass", card.verdict
    assert card.winner_test.metrics["accuracy"].interval.value > 0.9
    assert all(card.served.checks.values()), card.served
    assert (place / "mlflow/mlflow.db").is_file()
    assert list((place / "trimgate-store").rglob("model.onnx"))
    if os.getuid() == 0:  # the tasks wrote as the images' user
        (written,) = place.glob(
            "trimgate-runs/work-containers/optimize-*/gate/verdict/verdict.json"
        )
        assert written.stat().st_uid == 65532


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def end_at_once(code: int):
    """Ends with an exit code.

    Args:
        code: The exit code.
    """
    import os

    os._exit(code)


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def take_memory(megabytes: int):
    """Takes memory.

    Args:
        megabytes: How much.
    """
    print(len(bytearray(megabytes * 2**20)))


def attempt(task, tmp_path: Path, **options) -> None:
    @dsl.pipeline(name="attempt")
    def pipeline():
        task().set_display_name("attempt")

    tmp_path.chmod(0o777)
    run_local(
        pipeline,
        {},
        root=tmp_path / "work",
        log=tmp_path / "log.txt",
        on_event=lambda event: None,
        cache=False,
        containers=Containers(image=CORE, **options),
    )


def test_a_container_that_fails_at_once_is_a_failure(core, tmp_path):
    for code in (1, 7):
        with pytest.raises(TaskFailed, match="'attempt' failed"):
            attempt(lambda code=code: end_at_once(code=code), tmp_path)


def test_too_much_memory_is_said(core, tmp_path):
    with pytest.raises(TaskFailed, match="out of memory"):
        attempt(lambda: take_memory(megabytes=2000), tmp_path, memory_mb=256)


def _heed_ctrl_c():
    """A shell's background jobs are started to ignore it, and hand that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_leaves_no_container(engine, core, place):
    before = {c.id for c in engine.containers.list(all=True)}
    with subprocess.Popen(
        [sys.executable, "-m", "trimgate", "run", str(place / "optimize.yaml"), "--containers"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_heed_ctrl_c,
    ) as run:
        try:
            deadline = time.monotonic() + 300
            while {c.id for c in engine.containers.list()} <= before:
                assert run.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            run.send_signal(signal.SIGINT)
            assert run.wait(60) == 130
        finally:
            run.kill()
    assert {c.id for c in engine.containers.list(all=True)} == before
