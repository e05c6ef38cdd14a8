"""Neural Compressor 3, which reads torch alone: static INT8 by PT2E, compiled by torch.

Its model is a torch program and no file that another engine reads, so it is timed here, by
trimgate's protocol, beside the FP32 ONNX file on ONNX Runtime in the same process. Runs in its
own environment: `python inc_torch.py JOB.json` (see `peers.py`).
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import convert, get_default_static_config, prepare
from safetensors.torch import load_file


def main() -> None:
    """Writes scores of the test rows and timing samples to `out`."""
    job = json.loads(Path(sys.argv[1]).read_text())
    sys.path += job["path"]
    torch.set_num_threads(1)
    torch.manual_seed(job["seed"])
    folder, out = Path(job["rows"]), Path(job["out"])
    rows, test = np.load(folder / "train.npy"), np.load(folder / "test.npy")
    module_name, _, function = job["builder"].partition(":")
    module = getattr(importlib.import_module(module_name), function)(**job["arguments"])
    module.load_state_dict(load_file(job["weights"]))
    module.eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    example = (torch.from_numpy(rows[:2]),)
    exported = export(module, example_inputs=example, dynamic_shapes=({0: batch},))
    ready = prepare(exported, get_default_static_config())
    with torch.no_grad():
        for begin in range(0, len(rows), 32):
            ready(torch.from_numpy(rows[begin : begin + 32]))
    quantized = torch.compile(convert(ready), dynamic=True)
    with torch.inference_mode():
        scores = [quantized(part) for part in torch.from_numpy(test).split(32)]
        np.save(out / "scores.npy", torch.cat(scores).float().numpy())
        _time(job, quantized, test)


def _time(job: dict, quantized: object, test: np.ndarray) -> None:
    from trimgate.judge.benchmark import BASELINE, CANDIDATE, CONTROL, BenchmarkSettings, interleave

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(job["onnx"], options, providers=["CPUExecutionProvider"])
    settings = BenchmarkSettings(seconds=job["seconds"], processes=1)
    samples = {}
    for size in job["batch_sizes"]:
        part = np.ascontiguousarray(test[:size])
        tensor = torch.from_numpy(part)

        def before(part: np.ndarray = part) -> object:
            return session.run(None, {job["input"]: part})

        def after(tensor: torch.Tensor = tensor) -> object:
            return quantized(tensor)

        variants = {BASELINE: before, CONTROL: before, CANDIDATE: after}
        samples[size] = interleave(variants, settings).model_dump(mode="json")
    (Path(job["out"]) / "samples.json").write_text(json.dumps(samples))
    (Path(job["out"]) / "claims.json").write_text("{}")


if __name__ == "__main__":
    main()
