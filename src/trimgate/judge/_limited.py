"""Runs a command within limits. A script of its own: only the standard library is loaded.

`python _limited.py '{"cpus": [0], "data": bytes, "groups": ["/sys/fs/cgroup/..."]}' command...`
enters the control groups, sets the limits on itself, and becomes the command.
"""

import json
import os
import resource
import sys
from pathlib import Path


def main() -> None:
    """Sets the limits that the first argument names and becomes the rest."""
    limits = json.loads(sys.argv[1])
    for group in limits["groups"]:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    if limits["cpus"]:
        os.sched_setaffinity(0, limits["cpus"])
    if limits["data"]:
        resource.setrlimit(resource.RLIMIT_DATA, (limits["data"], limits["data"]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 (no shell is meant)


if __name__ == "__main__":
    main()
