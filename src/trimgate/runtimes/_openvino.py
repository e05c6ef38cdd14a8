"""OpenVINO on the CPU; it reads `model.onnx` directly, quantized (QDQ) graphs included.

Options (`RuntimeChoice.options`):

- `pinning` (False): bind threads to cores. Off, because every process would bind to the same
  cores of a shared machine.
- `hint` (`latency`): what the engine aims at: `latency` or `throughput`.
- `streams` (1): calls that are computed side by side; 0 leaves it to the engine.
- `threads` (0): at most so many threads; 0 takes what the target grants.

The precision is always stated to the engine and read back: left alone, it computes `f32` models
in `bf16` where the CPU can.

Notes:
    Importing `openvino` reports its use to Google Analytics through the package
    `openvino-telemetry` and writes an identifier into the home directory. That package is hidden
    during the import, so that OpenVINO falls back to its own stub, which sends nothing.
"""

import ctypes
import importlib
import importlib.metadata
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimgate import environment
from trimgate.errors import NotApplicable
from trimgate.models.directory import ONNX_FILE, ModelInfo
from trimgate.models.scores import to_scores
from trimgate.runtimes._base import Array, Runtime, Session
from trimgate.runtimes._support import (
    Option,
    absent,
    bad_option,
    bad_threads,
    granted,
    no_onnx,
    require,
)

_log = logging.getLogger("trimgate.runtimes.openvino")

_DEFAULTS: dict[str, Option] = {"pinning": False, "hint": "latency", "streams": 1, "threads": 0}
_HINTS = ("latency", "throughput")
_TELEMETRY = "openvino_telemetry"


class OpenVinoSession(Session):
    """A model compiled by OpenVINO."""

    def __init__(self, compiled: Any, info: ModelInfo) -> None:
        self.info = info
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._output = compiled.output(info.score_output)

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        """See `Session.predict`."""
        self._request.infer(inputs, share_inputs=True)
        # The engine reuses its output buffer, so the scores are copied out of it.
        return to_scores(np.array(self._request.get_tensor(self._output).data), self.info)

    def close(self) -> None:
        """Frees the model; the session cannot be used afterwards."""
        self._request = self._compiled = None


class OpenVino(Runtime):
    """OpenVINO on the CPU."""

    name = "openvino"

    def missing(self) -> str | None:
        """See `Runtime.missing`."""
        return absent("openvino", "openvino")

    def refusal(self, info: ModelInfo) -> str | None:
        """See `Runtime.refusal`."""
        if problem := bad_options(info):
            return f"openvino{problem}"
        if any(tensor.dtype == "string" for tensor in info.inputs):
            return "OpenVINO takes no string tensors; use the runtime onnxruntime"
        if info.family == "trees":
            return "OpenVINO has no tree ensembles; use the runtime onnxruntime or daal4py"
        return unsupported(info)

    def load(self, directory: Path, info: ModelInfo, *, threads: int) -> Session:
        """See `Runtime.load`."""
        require("openvino", "openvino")
        ov = _import()
        path = directory / ONNX_FILE
        try:
            compiled = ov.Core().compile_model(str(path), "CPU", settings(info, threads))
        except RuntimeError as error:
            raise NotApplicable(f"OpenVINO cannot load it: {_brief(error)}", file=path) from error
        taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if taken != info.runtime.precision:
            raise NotApplicable(
                f"OpenVINO computes in {taken}, not in {info.runtime.precision} as asked", file=path
            )
        return OpenVinoSession(compiled, info)


def settings(info: ModelInfo, threads: int) -> dict[str, str | int | bool]:
    """What the engine is told, by the names of its own properties."""
    chosen = {**_DEFAULTS, **info.runtime.options}
    told: dict[str, str | int | bool] = {
        "INFERENCE_PRECISION_HINT": info.runtime.precision,
        "INFERENCE_NUM_THREADS": granted(chosen, threads),
        "PERFORMANCE_HINT": str(chosen["hint"]).upper(),
        "ENABLE_CPU_PINNING": bool(chosen["pinning"]),
    }
    if chosen["streams"]:
        told["NUM_STREAMS"] = int(chosen["streams"])
    return told


def bad_options(info: ModelInfo) -> str | None:
    """What is wrong with the options, to be read after the engine's name; or None."""
    options = info.runtime.options
    if problem := bad_option(options, _DEFAULTS):
        return f" {problem}"
    if options.get("hint", "latency") not in _HINTS:
        return f": hint must be one of {', '.join(_HINTS)}"
    if problem := bad_threads(options):
        return f": {problem}"
    return None


def unsupported(info: ModelInfo) -> str | None:
    """Why OpenVINO cannot compute this model on this CPU, whoever calls it; or None."""
    if info.runtime.precision == "bf16" and not environment.has_bfloat16():
        return (
            f"this CPU ({environment.cpu_model()}) has no bfloat16 instructions "
            "(avx512_bf16 or amx_bf16), so it would be emulated and slow"
        )
    if info.runtime.precision == "f16" and "amx_fp16" not in environment.cpu_flags():
        return "this CPU has no float16 arithmetic (amx_fp16); use f32 or bf16"
    return no_onnx(info)


def _import() -> Any:
    """Imports openvino without its telemetry."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    preload_tbb()
    hidden = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail
    try:
        module = importlib.import_module("openvino")
    finally:
        del sys.modules[_TELEMETRY]
        if hidden is not None:
            sys.modules[_TELEMETRY] = hidden
    _log.debug("openvino %s is loaded without telemetry", module.__version__)
    return module


def preload_tbb() -> None:
    """Loads the TBB of the package `tbb` before OpenVINO's own older one.

    Both have the same library name, so the first to come is the one in the process; with the
    older one, daal4py could not be loaded any more.
    """
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == "libtbb.so.12":
            ctypes.CDLL(str(Path(str(file.locate())).resolve()))


def _brief(error: Exception) -> str:
    """The line of an OpenVINO error that says what is wrong, without its call trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "not supported" in line or "No conversion" in line]
    last = lines[-1] if lines else type(error).__name__
    return (telling[0] if telling else last)[:300]


RUNTIME = OpenVino()
