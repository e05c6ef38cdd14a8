"""A model in the layout of another model server, published inside the model directory.

Both layouts are versioned folders, and KServe mounts the storage URI at `/mnt/models`; files beside
the folders are ignored by both servers, and the folders by trimgate's own:

- Triton: `<name>/1/model.onnx` and `<name>/config.pbtxt`
- OpenVINO Model Server: `1/model.onnx`
"""

import json
import shutil
from pathlib import Path
from typing import Literal

from trimgate.errors import InvalidInput
from trimgate.models.directory import ONNX_FILE, ModelInfo, RuntimeName, TensorSpec, read

Layout = Literal["triton", "openvino"]

ENGINES: dict[Layout, RuntimeName] = {"triton": "onnxruntime", "openvino": "openvino"}
"""What the servers run a model on."""

_TRITON = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16",
    "float32": "FP32", "float64": "FP64", "string": "STRING",
}  # fmt: skip


def add_layout(
    model: str | Path,
    kind: Layout,
    *,
    name: str | None = None,
    threads: int = 1,
    gpu: bool = False,
) -> list[str]:
    """Adds the ONNX form of a model in another server's layout to the model directory.

    `model.json` does not speak of it, so that the model's digest stays; who publishes the directory
    signs it, and lists its digests, with the rest.

    Args:
        model: The model directory; its files are verified.
        kind: The server.
        name: The InferenceService's name; the model's when left out.
        threads: For Triton: intra-op threads of a session.
        gpu: For Triton: run on a GPU.

    Returns:
        The files that were added, by name.

    Raises:
        InvalidInput: The model has no ONNX form, was judged on another engine than the server's,
            or takes text, which these servers do not tokenize.
    """
    folder = Path(model)
    info = read(folder, verify=True)
    _check(info, folder, kind)
    name = name or info.name
    added = folder / ("1" if kind == "openvino" else name)
    version = added if kind == "openvino" else added / "1"
    version.mkdir(parents=True)
    # weights may stand in a file of their own
    for file in (file for file in info.files if file.startswith(ONNX_FILE)):
        shutil.copyfile(folder / file, version / file)
    if kind == "triton":
        config = triton_config(info, name, threads=threads, gpu=gpu)
        (added / "config.pbtxt").write_text(config)
    return sorted(p.relative_to(folder).as_posix() for p in added.rglob("*") if p.is_file())


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


def openvino_arguments(info: ModelInfo, *, threads: int = 1) -> tuple[str, ...]:
    """Arguments that make the OpenVINO Model Server compute as the model was judged.

    They belong into `Serving.arguments`.

    Args:
        info: The model.
        threads: Threads of the engine.
    """
    plugin = {"INFERENCE_PRECISION_HINT": info.runtime.precision, "INFERENCE_NUM_THREADS": threads}
    return (f"--plugin_config={json.dumps(plugin, separators=(',', ':'))}",)


def _check(info: ModelInfo, model: Path, kind: Layout) -> None:
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
    if engines != {ENGINES[kind]}:
        raise InvalidInput(
            f"was judged on {' and '.join(sorted(engines))}, and {kind} would run it on "
            f"{ENGINES[kind]}",
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
