"""Processes that end with the one that started them."""

import os
import subprocess
import sys

CODE = """
import sys, time
from trimgate.directories import writing
from trimgate.processes import end_with_reader
end_with_reader()
with writing(sys.argv[1]) as partial:
    (partial / "file").write_text("half")
    print("writes", flush=True)
    time.sleep(60)
"""


def test_a_task_whose_run_was_killed_leaves_nothing_half_written(tmp_path):
    task = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TRIMGATE_ENDS_WITH_READER": "1"},
    )  # fmt: skip
    assert task.stdout.readline() == "writes\n"
    assert list(tmp_path.iterdir())
    task.stdout.close()  # as when the reader is gone
    assert task.wait(30) == 143, task.stderr.read()
    assert not list(tmp_path.iterdir())
    task.stderr.close()
