"""Neural Compressor 2.6, the last with ONNX: its accuracy-driven tuning of static INT8.

Runs in its own environment: `python inc_onnx.py JOB.json` (see `peers.py`).
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from neural_compressor import PostTrainingQuantConfig, quantization
from neural_compressor.config import AccuracyCriterion, TuningCriterion


class Rows:
    """A loader as Neural Compressor takes it: batches of inputs and labels."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray, batch_size: int = 1) -> None:
        self.rows, self.labels, self.batch_size = rows, labels, batch_size

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for begin in range(0, len(self.rows), self.batch_size):
            chosen = slice(begin, begin + self.batch_size)
            yield np.array(self.rows[chosen]), self.labels[chosen]


def main() -> None:
    """Tunes, writes the model to `out`, and what its own evaluation gave."""
    job = json.loads(Path(sys.argv[1]).read_text())
    folder, out = Path(job["rows"]), Path(job["out"])
    rows, held = np.load(folder / "train.npy"), np.load(folder / "validation.npy")
    labels, known = (np.load(folder / f"{s}-labels.npy") for s in ("train", "validation"))
    seen: list[float] = []

    def accuracy(model: onnx.ModelProto) -> float:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        guesses = [session.run(None, {job["input"]: b})[0].argmax(1) for b, _ in Rows(held, known)]
        seen.append(float(np.mean(np.concatenate(guesses) == known)))
        return seen[-1]

    config = PostTrainingQuantConfig(
        approach="static",
        quant_format="QDQ",
        calibration_sampling_size=[len(rows)],
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=job["tolerance"]),
        tuning_criterion=TuningCriterion(max_trials=job["trials"]),
    )
    tuned = quantization.fit(
        onnx.load(job["onnx"]), config, calib_dataloader=Rows(rows, labels), eval_func=accuracy
    )
    if tuned is None:
        sys.exit("found no model within the tolerance")
    tuned.save(str(out / "model.onnx"))
    claims = {"accuracy": max(seen[1:], default=None), "from": seen[0], "trials": len(seen) - 1}
    (out / "claims.json").write_text(json.dumps(claims))


if __name__ == "__main__":
    main()
