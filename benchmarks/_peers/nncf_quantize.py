"""NNCF: post-training quantization of the ONNX file, with its control of accuracy.

Runs in NNCF's own environment: `python nncf_quantize.py JOB.json` (see `peers.py`).
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import nncf
import numpy as np
import onnx
import onnxruntime
from _rows import Rows


def main() -> None:
    """Quantizes, writes the model to `out`, and what NNCF's own validation gave."""
    job = json.loads(Path(sys.argv[1]).read_text())
    out = Path(job["out"])
    rows, held = Rows(job, "train"), Rows(job, "validation")
    seen: list[float] = []
    open_: list[tuple[onnx.ModelProto, onnxruntime.InferenceSession]] = []

    def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
        """One for all the rows: its control of accuracy asks about each row by itself."""
        if not open_ or open_[0][0] is not model:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), providers=["CPUExecutionProvider"]
            )
            open_[:] = [(model, session)]
        return open_[0][1]

    def accuracy(model: onnx.ModelProto, data: Iterable[int]) -> float:
        session = session_of(model)
        index = list(data)
        right = [session.run(None, held.row(i))[0].argmax() == held.labels[i] for i in index]
        if len(index) == len(held):  # it also tries the function on a single row
            seen.append(float(np.mean(right)))
        return float(np.mean(right))

    quantized = nncf.quantize_with_accuracy_control(
        onnx.load(job["onnx"]),
        nncf.Dataset(range(len(rows)), rows.row),
        nncf.Dataset(range(len(held)), lambda i: i),
        accuracy,
        max_drop=job["tolerance"],
        drop_type=nncf.DropType.ABSOLUTE,
        subset_size=len(rows),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER if job["mask"] else None,
    )
    onnx.save(quantized, str(out / "model.onnx"))
    claims = {"accuracy": seen[-1], "from": seen[0], "rows": len(held)}
    (out / "claims.json").write_text(json.dumps(claims))


if __name__ == "__main__":
    main()
