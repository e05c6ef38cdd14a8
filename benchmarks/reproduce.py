"""Checks the card of a scikit-learn run without trimgate: scikit-learn and ONNX Runtime alone.

    python benchmarks/reproduce.py examples/fraud/optimize.yaml [RUN_FOLDER]

Reads the rows and both models from their files, splits by time, scores the test rows, and times
single rows of both models in turn, in this process: as in the benchmark, calls of the fast model
are timed together until they last as long as the clock needs. Prints what it finds beside what the
card claims, and exits 1 when a claim does not hold.
"""

import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import onnxruntime
import pandas as pd
import yaml
from sklearn.metrics import average_precision_score
from skops import io

ROUNDS = 1000
SECONDS = 200e-6  # of a sample, at least


def main() -> int:
    """Reproduces quality and speed; 0 when both hold."""
    config_file = Path(sys.argv[1])
    folder = config_file.parent
    config = yaml.safe_load(config_file.read_text())
    runs = sorted(folder.glob("trimgate-runs/*/card.json"))
    card_file = Path(sys.argv[2], "card.json") if len(sys.argv) > 2 else runs[-1]
    card = json.loads(card_file.read_text())
    release = released(folder / "trimgate-store" / "releases.git", config["name"])
    digest = release["metadata"]["annotations"].get("trimgate.dev/digest")
    if card["winner"] is None or card["winner"]["digest"] != digest:
        sys.exit(f"{card_file}: its winner is not what is released")

    features, labels = test_rows(folder, config["data"])
    trained = io.load(folder / config["model"]["path"], trusted=untrusted(folder, config))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    place = urlsplit(release["spec"]["predictor"]["model"]["storageUri"]).path
    served = onnxruntime.InferenceSession(str(Path(unquote(place), "model.onnx")), options)
    name = served.get_inputs()[0].name
    matrix = features.to_numpy(np.float32)
    before = trained.predict_proba(features)[:, 1]
    after = next(a for a in served.run(None, {name: matrix}) if a.ndim == 2)[:, 1]
    found = average_precision_score(labels, after) - average_precision_score(labels, before)
    claimed = card["winner_test"]["differences"]["average_precision"]
    good = check("average precision, winner minus baseline", found, claimed, 1e-4)

    ratios = []
    generator = np.random.default_rng(0)
    rows = generator.integers(len(matrix), size=ROUNDS)
    inputs = [(features.iloc[[row]], matrix[[row]]) for row in rows]
    gc.disable()  # as the benchmark does
    for number, (frame, array) in enumerate(inputs):
        calls = [
            lambda f=frame: trained.predict_proba(f),
            lambda a=array: served.run(None, {name: a}),
        ]
        if number == 0:
            counts = [max(1, math.ceil(SECONDS / typical(call))) for call in calls]
        times = [0.0, 0.0]
        for which in generator.permutation(2):
            calls[which]()  # untimed: the caches belong to the other model
            began = time.perf_counter()
            for _ in range(counts[which]):
                calls[which]()
            times[which] = (time.perf_counter() - began) / counts[which]
        if number >= 50:
            ratios.append(times[0] / times[1])
    speed = card["benchmark"]["batches"][0]["wall"]
    good &= check("speed-up at one row, by wall time", float(np.median(ratios)), speed, 0.15, True)
    return 0 if good else 1


def released(repository: Path, name: str) -> dict:
    """What staging releases: the newest release file in the store's Git repository."""
    file = f"main:overlays/staging/{name}/release.yaml"
    command = ["git", "-C", str(repository), "show", file]
    return yaml.safe_load(subprocess.run(command, capture_output=True, check=True).stdout)


def test_rows(folder: Path, data: dict) -> tuple[pd.DataFrame, pd.Series]:
    """The newest fifth of the rows, without those that stand earlier."""
    rows = pd.read_parquet(folder / data["path"]).sort_values(data["split"]["by"], kind="stable")
    rows = rows.drop(columns=data["drop"])
    first = len(rows) - round(len(rows) * data["split"]["test"])
    known = set(map(tuple, rows[:first].to_numpy()))
    test = rows[first:]
    test = test[[tuple(row) not in known for row in test.to_numpy()]]
    return test.drop(columns=data["label"]), test[data["label"]]


def untrusted(folder: Path, config: dict) -> list[str]:
    """The types in the user's own model file."""
    return io.get_untrusted_types(file=folder / config["model"]["path"])


def typical(call: Callable[[], object]) -> float:
    """Median seconds of a call that follows its like."""
    times = []
    for _ in range(50):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def check(what: str, found: float, claimed: dict, slack: float, relative: bool = False) -> bool:
    """Prints both and says whether the finding lies in the claimed interval, with some slack."""
    low, high = claimed["low"], claimed["high"]
    low, high = (low * (1 - slack), high * (1 + slack)) if relative else (low - slack, high + slack)
    holds = low <= found <= high
    print(
        f"{what}: {found:.4g}; the card says {claimed['value']:.4g} "
        f"[{claimed['low']:.4g}, {claimed['high']:.4g}]: {'holds' if holds else 'DOES NOT HOLD'}"
    )
    return holds


if __name__ == "__main__":
    sys.exit(main())
