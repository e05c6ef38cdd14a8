"""What each component takes at most, in the logs of runs: memory, and CPU time.

    python benchmarks/task_resources.py RUN [RUN ...]

RUN is a folder of `trimgate-runs`. Every task ends with a line that says what it took. The numbers
stand in `pipelines/optimize/_platform.py`, and are what a cluster is asked for.
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

TASK = re.compile(r"- Executing task '([^']+)'")
TAKEN = re.compile(r"^\s*resources (\{.*\})\s*$")


def read(log: Path) -> dict[str, list[dict[str, float]]]:
    """What the tasks of a run took, by component."""
    taken: dict[str, list[dict[str, float]]] = defaultdict(list)
    name = ""
    for line in log.read_text(errors="replace").splitlines():
        if found := TASK.search(line):
            # the second task of a component ends with -2
            name = re.sub(r"-\d+$", "", found[1]).replace("-", "_")
        elif found := TAKEN.match(line):
            taken[name].append(json.loads(found[1]))
    return taken


def main(runs: list[str]) -> None:
    """Prints a line per component."""
    every: dict[str, list[dict[str, float]]] = defaultdict(list)
    for run in runs:
        for name, taken in read(Path(run) / "log.txt").items():
            every[name] += taken
    if not every:
        sys.exit("no task said what it took: was the run made by this version?")
    print(f"{'component':<18} {'tasks':>5} {'memory MiB':>11} {'CPU seconds':>12}")
    for name, taken in sorted(every.items()):
        memory = max(t["peak_rss_mb"] for t in taken)
        seconds = max(t["cpu_seconds"] for t in taken)
        print(f"{name:<18} {len(taken):>5} {memory:>11.0f} {seconds:>12.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
