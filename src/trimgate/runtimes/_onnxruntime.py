"""ONNX Runtime.

Options (`RuntimeChoice.options`):

- `device` (`cpu`): `cpu` or `gpu`. With `gpu` the CUDA provider must really take the session;
  a fallback to the CPU is refused.
- `allow_spinning` (False): let idle threads spin. Faster on a quiet machine, worse on a
  loaded one, and it burns CPU time.
- `arena` (True): keep freed memory for the next call. Off: slower, and less resident memory.
- `memory_pattern` (True): plan the memory of a call once for each shape of its inputs.
- `parallel` (False): run independent nodes of the graph at the same time.
- `threads` (0): at most so many intra-op threads; 0 takes what the target grants.
- `optimization` (`all`): graph optimization at load: `all`, `extended`, `basic`, `disabled`. A
  graph that was optimized offline has `disabled`.

It computes in the precision of the graph's tensors, so the only precision to state is `f32`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimgate.errors import NotApplicable
from trimgate.models.directory import ONNX_FILE, ModelInfo
from trimgate.models.scores import to_scores
from trimgate.runtimes._base import Array, Runtime, Session
from trimgate.runtimes._support import Option, bad_option, bad_threads, granted, no_onnx

DEFAULTS: dict[str, Option] = {
    "device": "cpu",
    "allow_spinning": False,
    "arena": True,
    "memory_pattern": True,
    "parallel": False,
    "threads": 0,
    "optimization": "all",
}
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


class OnnxRuntimeSession(Session):
    """A model loaded by ONNX Runtime."""

    def __init__(self, session: Any, info: ModelInfo) -> None:
        self.info = info
        self._session = session
        self._outputs = [info.score_output]

    def predict(self, inputs: Mapping[str, Array]) -> Array:
        """See `Session.predict`."""
        return to_scores(self._session.run(self._outputs, inputs)[0], self.info)

    def close(self) -> None:
        """Frees the model; the session cannot be used afterwards."""
        self._session = None


class OnnxRuntime(Runtime):
    """ONNX Runtime on the CPU or on an NVIDIA GPU."""

    name = "onnxruntime"

    def missing(self) -> str | None:
        """None: it is a dependency of trimgate itself."""
        return None

    def refusal(self, info: ModelInfo) -> str | None:
        """See `Runtime.refusal`."""
        options = info.runtime.options
        if problem := bad_option(options, DEFAULTS):
            return f"onnxruntime {problem}"
        if options.get("optimization", "all") not in _LEVELS:
            return f"onnxruntime: optimization must be one of {', '.join(_LEVELS)}"
        device = str(options.get("device", "cpu"))
        if device not in _PROVIDERS:
            return "onnxruntime: device must be cpu or gpu"
        if reason := bad_threads(options):
            return f"onnxruntime: {reason}"
        if info.runtime.precision == "bf16":
            return (
                "ONNX Runtime has no bfloat16 kernels on the CPU; "
                "use the runtime openvino with precision bf16"
            )
        if info.runtime.precision != "f32":
            return (
                "ONNX Runtime computes in the precision of the graph; "
                "state f32 here and quantize with scheme fp16 instead"
            )
        if device == "gpu" and (reason := missing_gpu()):
            return reason
        return no_onnx(info)

    def load(self, directory: Path, info: ModelInfo, *, threads: int) -> Session:
        """See `Runtime.load`."""
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        chosen = {**DEFAULTS, **info.runtime.options}
        options = session_options(chosen, threads)
        provider = _PROVIDERS[str(chosen["device"])]
        path = directory / ONNX_FILE
        try:
            session = ort.InferenceSession(str(path), options, providers=[provider])
        except (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented) as e:
            raise NotApplicable(f"ONNX Runtime cannot load it: {e}", file=path) from e
        taken = session.get_providers()
        if taken[0] != provider:
            raise NotApplicable(
                f"ONNX Runtime fell back from {provider} to {taken[0]}",
                file=path,
                mend="check the GPU driver and the CUDA libraries, or choose the device cpu",
            )
        kinds = {output.name: output.type for output in session.get_outputs()}
        kind = kinds.get(str(info.score_output))
        if kind is None or not kind.startswith("tensor("):
            raise NotApplicable(
                f"the output {info.score_output!r} is {kind or 'missing'}, not a tensor",
                file=path,
                mend="export the model with zipmap switched off",
            )
        return OnnxRuntimeSession(session, info)


def session_options(chosen: Mapping[str, Option], threads: int) -> Any:
    """An `onnxruntime.SessionOptions` from the options of this module, all of them given."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = granted(chosen, threads)
    options.inter_op_num_threads = granted(chosen, threads) if chosen["parallel"] else 1
    modes = ort.ExecutionMode
    options.execution_mode = modes.ORT_PARALLEL if chosen["parallel"] else modes.ORT_SEQUENTIAL
    level = _LEVELS[str(chosen["optimization"])]
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.enable_cpu_mem_arena = bool(chosen["arena"])
    options.enable_mem_pattern = bool(chosen["memory_pattern"])
    options.log_severity_level = 4  # what fails is raised, and told by who catches it
    spinning = "1" if chosen["allow_spinning"] else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    return options


def missing_gpu() -> str | None:
    """Why ONNX Runtime cannot compute on a GPU here, or None."""
    import onnxruntime as ort

    if _PROVIDERS["gpu"] in ort.get_available_providers():
        return None
    return (
        "the target asks for a GPU, but this ONNX Runtime has no CUDA provider; "
        "install onnxruntime-gpu in place of onnxruntime"
    )


RUNTIME = OnnxRuntime()
