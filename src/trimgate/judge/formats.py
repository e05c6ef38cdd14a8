"""What can be checked of targets that are not here: their format, operators and types.

Nothing in here is timed.
"""

import contextlib
import io
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.judge.records import FormatCheck
from trimgate.models.directory import ONNX_FILE, ModelInfo
from trimgate.targets import Target

# Shapes that depend on the values: a compiler for fixed shapes cannot place them.
_DYNAMIC = frozenset(
    {"NonZero", "Unique", "Compress", "Loop", "If", "Scan", "NonMaxSuppression", "Optional"}
)
_NEURON_TYPES = frozenset(
    {"FLOAT", "FLOAT16", "BFLOAT16", "INT32", "INT64", "BOOL", "FLOAT8E4M3FN", "FLOAT8E5M2"}
)
_SAME = 1e-5


def check_format(
    directory: Path, info: ModelInfo, target: Target, inputs: Mapping[str, NDArray[Any]]
) -> FormatCheck | None:
    """Whether a target's own format takes a model; None for targets whose format is ONNX.

    Args:
        directory: The model directory.
        info: Its record.
        target: Its device decides.
        inputs: A few rows, which the converted model must answer as the ONNX one does.
    """
    if target.device == "mobile":
        return _check_ort(directory, info, target, inputs)
    if target.device == "inferentia":
        return _check_neuron(directory, info, target)
    return None


def _check_ort(
    directory: Path, info: ModelInfo, target: Target, inputs: Mapping[str, NDArray[Any]]
) -> FormatCheck:
    """Converts to the ORT format, for ARM, and holds its operators against those allowed."""
    if not info.has_onnx:
        return FormatCheck(format="ort", unsupported=("it has no ONNX form to convert",))
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state
    from onnxruntime.tools.convert_onnx_models_to_ort import (
        OptimizationStyle,
        convert_onnx_models_to_ort,
    )

    failures = (state.Fail, state.InvalidGraph, state.NotImplemented, state.RuntimeException)
    notes = ["the size and the operators are checked here; its speed on the device is not measured"]
    with tempfile.TemporaryDirectory(prefix="trimgate-") as folder:
        out = Path(folder)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # the converter prints
                convert_onnx_models_to_ort(
                    directory / ONNX_FILE,
                    output_dir=out,
                    optimization_styles=[OptimizationStyle.Fixed],
                    target_platform="arm",
                    enable_type_reduction=True,
                )
            (model,) = out.glob("*.ort")
            size = model.stat().st_size
            config = next(out.glob("*.config")).read_text()
            session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
            plain = ort.InferenceSession(
                str(directory / ONNX_FILE), providers=["CPUExecutionProvider"]
            )
            name = [info.score_output]
            given, wanted = (s.run(name, dict(inputs))[0] for s in (session, plain))
        except failures as error:
            why = f"it cannot be converted to the ORT format: {str(error).splitlines()[0]}"
            return FormatCheck(format="ort", unsupported=(why,), notes=tuple(notes))
    lines = tuple(line for line in config.splitlines() if line and not line.startswith("#"))
    unsupported = list(_not_allowed(lines, target.operators or ()))
    if not np.issubdtype(given.dtype, np.number):
        differs = float((given != wanted).any())
    else:
        differs = float(np.max(np.abs(given.astype(float) - wanted.astype(float)), initial=0.0))
    if not differs <= _SAME:
        unsupported.append(f"converted, its scores differ by up to {differs:.3g}")
    else:
        notes.append(f"converted, it answers {len(given)} rows as the ONNX form does")
    if not target.operators:
        notes.append(
            "held against the full package of ONNX Runtime, which has every operator; name the "
            "`operators` of a reduced build to check against those"
        )
    return FormatCheck(
        format="ort",
        size=size,
        operators=lines,
        unsupported=tuple(unsupported),
        notes=tuple(notes),
    )


def read_operators(lines: Sequence[str]) -> dict[tuple[str, int], dict[str, Any]]:
    """A required-operators config of ONNX Runtime: by domain and opset, operators and types.

    Args:
        lines: `domain;opset;Name,Name{"inputs": {"0": ["float"]}}`; others are left out.

    Raises:
        ValueError: A line is not of that form.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for line in lines:
        if not line.strip() or line.startswith(("#", "!")):
            continue
        domain, opset, names = line.strip().split(";", 2)
        found[domain, int(opset)] = dict(_operators(names))
    return found


def _operators(text: str) -> Iterator[tuple[str, Any]]:
    """Names with their types; the types are JSON, with commas of their own."""
    decoder = json.JSONDecoder()
    while text:
        found = re.match(r"[\w.]+", text)
        if found is None:
            raise ValueError(f"not an operator: {text[:40]!r}")
        text = text[found.end() :]
        types = None
        if text.startswith("{"):
            types, end = decoder.raw_decode(text)
            text = text[end:]
        yield found[0], types
        text = text.removeprefix(",")


def _not_allowed(needed: Sequence[str], allowed: Sequence[str]) -> Iterator[str]:
    """What a model needs and a reduced build of ONNX Runtime does not have."""
    if not allowed:
        return
    there = read_operators(allowed)
    for (domain, opset), names in read_operators(needed).items():
        for name, types in names.items():
            have = there.get((domain, opset), {})
            if name not in have:
                yield f"the operator {domain} {name} of opset {opset} is not in the build"
            elif types and have[name] is not None and not _covers(have[name], types):
                yield f"the operator {domain} {name} is built for other types than {types}"


def _covers(have: Any, need: Any) -> bool:
    """Whether lists of types in `need` stand in `have`, at each place."""
    if isinstance(need, dict):
        return isinstance(have, dict) and all(
            key in have and _covers(have[key], value) for key, value in need.items()
        )
    if isinstance(need, list):
        return isinstance(have, list) and all(entry in have for entry in need)
    return bool(have == need)


def _check_neuron(directory: Path, info: ModelInfo, target: Target) -> FormatCheck:
    """Rules of the Neuron compiler for Inferentia2, held against the graph."""
    notes = (
        "checked by rules on the graph (operators, static shapes, types), not compiled: the Neuron "
        "compiler and the chip are not here, so nothing of it is measured",
        f"Neuron compiles fixed shapes: one model for each batch size ({_list(target)}), and "
        "requests of other sizes are padded",
    )
    if not info.has_onnx:
        why = "it has no graph form whose operators could be checked"
        return FormatCheck(format="neuron", unsupported=(why,), notes=notes)
    import onnx

    graph = onnx.load(directory / ONNX_FILE, load_external_data=False).graph
    operators: dict[str, set[str]] = {}
    for node in graph.node:
        operators.setdefault(node.domain or "ai.onnx", set()).add(node.op_type)
    problems = [
        f"the domain {domain} ({', '.join(sorted(names))}) is not one that Neuron compiles"
        for domain, names in sorted(operators.items())
        if domain != "ai.onnx"
    ]
    plain = operators.get("ai.onnx", set())
    if found := sorted(plain & _DYNAMIC):
        problems.append(f"the shape of what {', '.join(found)} give depends on the values")
    types = {
        onnx.TensorProto.DataType.Name(number)
        for number in (
            *(tensor.data_type for tensor in graph.initializer),
            *(value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)),
        )
    }
    if bad := sorted(types - _NEURON_TYPES):
        problems.append(f"tensors of type {', '.join(bad)} have no place on the chip")
    moving = [spec.name for spec in info.inputs if any(size < 0 for size in spec.shape[1:])]
    if moving:
        problems.append(
            f"{', '.join(moving)} has a dimension besides the batch that is not fixed; export it "
            "with a fixed length"
        )
    return FormatCheck(
        format="neuron",
        operators=tuple(f"{d};;{','.join(sorted(names))}" for d, names in operators.items()),
        unsupported=tuple(problems),
        notes=notes,
    )


def _list(target: Target) -> str:
    return ", ".join(map(str, target.batch_sizes))
