"""How much CPU time a task spends on imports before it begins.

    python benchmarks/imports.py [--processes 15]

Each line is the median of fresh processes, less that of an empty one; lines are run in turn.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys

import _bench

STATEMENTS = {
    "a task of the pipeline": "from trimgate import tasks",
    "of it, NumPy and pydantic": "import numpy, pydantic",
    "for comparison, scikit-learn": "import sklearn.ensemble",
}


def cpu_seconds(statement: str) -> float:
    """User and system time of a fresh process that runs a statement; compiled, as in an image."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Prints one line for each statement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, default=15, help="per line; %(default)s")
    given = parser.parse_args()
    taken: dict[str, list[float]] = {statement: [] for statement in ("", *STATEMENTS.values())}
    for statement in taken:
        cpu_seconds(statement)  # writes bytecode, fills the page cache
    for _ in range(given.processes):
        for statement, seconds in taken.items():
            seconds.append(cpu_seconds(statement))
    empty = statistics.median(taken[""])
    rows = [
        (what, f"`{statement}`", f"{statistics.median(taken[statement]) - empty:.2f} s")
        for what, statement in STATEMENTS.items()
    ]
    print(f"{_bench.machine()}\n\n{_bench.markdown(('What', 'Statement', 'CPU time'), rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
