"""Neural Compressor 3, which reads torch alone: static INT8 by PT2E, compiled by torch.

Its model is a torch program and no file that another engine reads, so it is timed here, by
trimgate's protocol, beside the FP32 ONNX file on ONNX Runtime in the same process. Runs in its
own environment: `python inc_torch.py JOB.json` (see `peers.py`).
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from _rows import Batch, Rows
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import convert, get_default_static_config, prepare
from safetensors.torch import load_file


def main() -> None:
    """Writes scores of the test rows and timing samples to `out`."""
    job = json.loads(Path(sys.argv[1]).read_text())
    sys.path += job["path"]
    torch.set_num_threads(1)
    torch.manual_seed(job["seed"])
    out = Path(job["out"])
    rows, test = Rows(job, "train"), Rows(job, "test")
    module_name, _, function = job["builder"].partition(":")
    module = getattr(importlib.import_module(module_name), function)(**job["arguments"])
    module.load_state_dict(load_file(job["weights"]))
    module.eval()
    free = {0: torch.export.Dim("batch", min=1, max=1024)}
    if job["mask"]:
        free[1] = torch.export.Dim("tokens", min=2, max=512)
    example = _tensors(rows, slice(0, 2))
    exported = export(module, example_inputs=example, dynamic_shapes=(free,) * len(example))
    ready = prepare(exported, get_default_static_config())
    with torch.no_grad():
        for begin in range(0, len(rows), 32):
            ready(*_tensors(rows, slice(begin, begin + 32)))
    quantized = torch.compile(convert(ready), dynamic=True)
    with torch.inference_mode():
        scores = [
            quantized(*_tensors(test, slice(begin, begin + 32)))
            for begin in range(0, len(test), 32)
        ]
        np.save(out / "scores.npy", torch.cat(scores).float().numpy())
        _time(job, quantized, test)


def _tensors(rows: Rows, chosen: slice) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in rows[chosen].values())


def _time(job: dict, quantized: Any, test: Rows) -> None:
    from trimgate.judge.benchmark import BASELINE, CANDIDATE, CONTROL, BenchmarkSettings, interleave

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(job["onnx"], options, providers=["CPUExecutionProvider"])
    settings = BenchmarkSettings(seconds=job["seconds"], processes=1)
    samples = {}
    for size in job["batch_sizes"]:
        part = test[:size]
        tensors = _tensors(test, slice(0, size))

        def before(part: Batch = part) -> object:
            return session.run(None, part)

        def after(tensors: tuple[torch.Tensor, ...] = tensors) -> object:
            return quantized(*tensors)

        variants = {BASELINE: before, CONTROL: before, CANDIDATE: after}
        samples[size] = interleave(variants, settings).model_dump(mode="json")
    (Path(job["out"]) / "samples.json").write_text(json.dumps(samples))
    (Path(job["out"]) / "claims.json").write_text("{}")


if __name__ == "__main__":
    main()
