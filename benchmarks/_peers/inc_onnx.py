"""Neural Compressor 2.6, the last with ONNX: its accuracy-driven tuning of static INT8.

Runs in its own environment: `python inc_onnx.py JOB.json` (see `peers.py`).
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from _rows import Rows
from neural_compressor import PostTrainingQuantConfig, quantization
from neural_compressor.config import AccuracyCriterion, TuningCriterion


class Loader:
    """Rows as Neural Compressor takes them: batches of inputs and labels."""

    batch_size = 1

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[tuple[Any, np.ndarray]]:
        for index in range(len(self.rows)):
            batch = self.rows.row(index)
            (single, *others) = batch.values()
            yield batch if others else single, self.rows.labels[index : index + 1]


def main() -> None:
    """Tunes, writes the model to `out`, and what its own evaluation gave."""
    job = json.loads(Path(sys.argv[1]).read_text())
    out = Path(job["out"])
    rows, held = Rows(job, "train"), Rows(job, "validation")
    seen: list[float] = []

    def accuracy(model: onnx.ModelProto) -> float:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        guesses = [session.run(None, held.row(i))[0].argmax(1) for i in range(len(held))]
        seen.append(float(np.mean(np.concatenate(guesses) == held.labels)))
        return seen[-1]

    config = PostTrainingQuantConfig(
        approach="auto" if job["mask"] else "static",  # dynamic too, for texts
        quant_format="QDQ",
        calibration_sampling_size=[len(rows)],
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=job["tolerance"]),
        tuning_criterion=TuningCriterion(max_trials=job["trials"]),
    )
    tuned = quantization.fit(
        onnx.load(job["onnx"]), config, calib_dataloader=Loader(rows), eval_func=accuracy
    )
    if tuned is None:
        sys.exit("found no model within the tolerance")
    tuned.save(str(out / "model.onnx"))
    claims = {"accuracy": max(seen[1:], default=None), "from": seen[0], "trials": len(seen) - 1}
    (out / "claims.json").write_text(json.dumps(claims))


if __name__ == "__main__":
    main()
