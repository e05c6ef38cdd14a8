"""OpenVINO inside ONNX Runtime: the plug-in execution provider of `onnxruntime-ep-openvino`.

What OpenVINO has no operator for is computed by ONNX Runtime, so that graphs run which OpenVINO
alone refuses. The plug-in offers itself on Intel's CPUs only.

Options: those of the runtime `openvino`.

Notes:
    Threads and precision are stated by OpenVINO's own properties (`load_config`): the plug-in's
    `num_of_threads` was seen to be ignored, and `precision: FP32` to be computed in bfloat16. As
    neither can be read back, the step `runtime` compares the scores with the parent's.
"""

import functools
import json
from pathlib import Path
from typing import Any

from trimgate.errors import NotApplicable
from trimgate.models.directory import ONNX_FILE, ModelInfo
from trimgate.runtimes import _onnxruntime, _openvino
from trimgate.runtimes._base import Runtime, Session
from trimgate.runtimes._support import absent, require

_PACKAGE, _EXTRA = "onnxruntime_ep_openvino", "openvino-ep"
_REGISTERED = "trimgate.openvino"


class OpenVinoProvider(Runtime):
    """OpenVINO as an execution provider of ONNX Runtime, on the CPU."""

    name = "openvino-ep"

    def missing(self) -> str | None:
        """See `Runtime.missing`."""
        return absent(_PACKAGE, _EXTRA) or (None if _devices() else _NO_DEVICE)

    def refusal(self, info: ModelInfo) -> str | None:
        """See `Runtime.refusal`."""
        if problem := _openvino.bad_options(info):
            return f"openvino-ep{problem}"
        if info.runtime.precision == "f16":
            return "openvino-ep computes in f32 or bf16"
        if info.family == "trees":
            return "OpenVINO has no tree ensembles; use the runtime onnxruntime or daal4py"
        return _openvino.unsupported(info)

    def load(self, directory: Path, info: ModelInfo, *, threads: int) -> Session:
        """See `Runtime.load`."""
        require(_PACKAGE, _EXTRA)
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        path = directory / ONNX_FILE
        devices = _devices()
        if not devices:
            raise NotApplicable(_NO_DEVICE, file=path, mend="use the runtime openvino")
        told = {key: _text(value) for key, value in _openvino.settings(info, threads).items()}
        options = _onnxruntime.session_options(_onnxruntime.DEFAULTS, threads)
        options.add_provider_for_devices(devices[:1], {"load_config": json.dumps({"CPU": told})})
        try:
            session = ort.InferenceSession(str(path), options)
        except (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented,
                state.InvalidArgument, state.EPFail) as error:  # fmt: skip
            raise NotApplicable(f"openvino-ep cannot load it: {error}", file=path) from error
        taken = session.get_providers()
        if taken[0] != devices[0].ep_name:
            raise NotApplicable(
                f"ONNX Runtime fell back from {devices[0].ep_name} to {taken[0]}",
                file=path,
                mend="use the runtime openvino or onnxruntime",
            )
        return _onnxruntime.OnnxRuntimeSession(session, info)


_NO_DEVICE = (
    "the OpenVINO plug-in of ONNX Runtime offers no CPU on this machine (it takes Intel's only)"
)


@functools.cache
def _devices() -> tuple[Any, ...]:
    """The CPUs that the plug-in offers; registers it once in this process."""
    import onnxruntime as ort
    import onnxruntime_ep_openvino as plugin

    _openvino.preload_tbb()
    ort.register_execution_provider_library(_REGISTERED, plugin.get_library_path())
    return tuple(
        device
        for device in ort.get_ep_devices()
        if device.ep_name == plugin.get_ep_name()
        and device.device.type == ort.OrtHardwareDeviceType.CPU
    )


def _text(value: str | int | bool) -> str:
    return ("YES" if value else "NO") if isinstance(value, bool) else str(value)


RUNTIME = OpenVinoProvider()
