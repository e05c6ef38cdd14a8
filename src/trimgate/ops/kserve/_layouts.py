"""A model in the layout of another model server, to be published beside the model directory.

Both layouts are versioned folders, and KServe mounts the storage URI at `/mnt/models`:

- Triton: `<name>/1/model.onnx` and `<name>/config.pbtxt`
- OpenVINO Model Server: `1/model.onnx`
"""

import json
import shutil
from pathlib import Path
from typing import Literal

from trimgate.directories import writing
from trimgate.errors import InvalidInput
from trimgate.models.directory import ONNX_FILE, ModelInfo, TensorSpec, read

_ENGINES = {"triton": "onnxruntime", "openvino": "openvino"}
_TRITON = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16",
    "float32": "FP32", "float64": "FP64", "string": "STRING",
}  # fmt: skip


def write_layout(
    model: str | Path,
    out: str | Path,
    kind: Literal["triton", "openvino"],
    *,
    name: str | None = None,
    threads: int = 1,
    gpu: bool = False,
) -> Path:
    """Writes the ONNX form of a model in another server's layout; the model is not changed.

    Args:
        model: The model directory; its files are verified.
        out: A new folder.
        kind: The server.
        name: The InferenceService's name; the model's when left out.
        threads: For Triton: intra-op threads of a session.
        gpu: For Triton: run on a GPU.

    Returns:
        `out`.

    Raises:
        InvalidInput: The model has no ONNX form, was judged on another engine than the server's,
            or takes text, which these servers do not tokenize.
    """
    info = read(model, verify=True)
    _check(info, Path(model), kind)
    name = name or info.name
    with writing(out) as folder:
        version = folder / "1" if kind == "openvino" else folder / name / "1"
        version.mkdir(parents=True)
        for file in info.files:
            if file.startswith(ONNX_FILE):  # weights may stand in a file of their own
                shutil.copyfile(Path(model) / file, version / file)
        if kind == "triton":
            config = triton_config(info, name, threads=threads, gpu=gpu)
            (folder / name / "config.pbtxt").write_text(config)
    return Path(out)


def triton_config(info: ModelInfo, name: str, *, threads: int = 1, gpu: bool = False) -> str:
    """Triton's `config.pbtxt`: the tensors as `model.json` says, the batch among their dimensions.

    Args:
        info: The model.
        name: Its name in Triton, which is that of its folder.
        threads: Intra-op threads of a session.
        gpu: Run on a GPU.
    """
    parts = [f"name: {json.dumps(name)}", 'backend: "onnxruntime"', "max_batch_size: 0"]
    parts += [_tensors("input", info.inputs), _tensors("output", info.outputs)]
    kind = "KIND_GPU" if gpu else "KIND_CPU"
    parts.append(f"instance_group [\n  {{ count: 1 kind: {kind} }}\n]")
    for key, value in (("intra_op_thread_count", threads), ("inter_op_thread_count", 1)):
        parts.append(
            f'parameters {{\n  key: "{key}"\n  value: {{ string_value: "{value}" }}\n}}'
        )
    return "\n".join(parts) + "\n"


def openvino_arguments(model: str | Path, *, threads: int = 1) -> tuple[str, ...]:
    """Arguments that make the OpenVINO Model Server compute as the model was judged.

    They belong into `Serving.arguments`.

    Args:
        model: The model directory.
        threads: Threads of the engine.
    """
    info = read(model)
    plugin = {"INFERENCE_PRECISION_HINT": info.runtime.precision, "INFERENCE_NUM_THREADS": threads}
    return (f"--plugin_config={json.dumps(plugin, separators=(',', ':'))}",)


def _check(info: ModelInfo, model: Path, kind: str) -> None:
    if not info.has_onnx:
        raise InvalidInput(
            "has no ONNX form, which is what this server reads", file=model,
            mend="serve it with the runtime `trimgate`",
        )  # fmt: skip
    if info.tokenizer is not None:
        raise InvalidInput(
            f"takes text, and nothing in {kind} would tokenize it", file=model,
            mend="serve it with the runtime `trimgate`",
        )  # fmt: skip
    engines = {choice.name for choice in info.runtime.engines()}
    if engines != {_ENGINES[kind]}:
        raise InvalidInput(
            f"was judged on {' and '.join(sorted(engines))}, and {kind} would run it on "
            f"{_ENGINES[kind]}",
            file=model, mend="serve it with the runtime `trimgate`, or judge it on that engine",
        )  # fmt: skip


def _tensors(kind: str, tensors: tuple[TensorSpec, ...]) -> str:
    entries = []
    for tensor in tensors:
        dims = ", ".join(map(str, tensor.shape))
        entries.append(
            f"  {{ name: {json.dumps(tensor.name)} data_type: TYPE_{_TRITON[tensor.dtype]} "
            f"dims: [ {dims} ] }}"
        )
    return f"{kind} [\n" + ",\n".join(entries) + "\n]"
