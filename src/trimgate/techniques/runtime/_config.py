"""The parameters of a runtime step."""

from typing import Literal

from pydantic import Field

from trimgate.models.directory import ONNX_RUNTIMES, RuntimeName
from trimgate.techniques._base import Form, StepConfig

PREFERENCE: tuple[RuntimeName, ...] = (
    "onnxruntime",
    "openvino",
    "daal4py",
    "native",
    "openvino-ep",
    "torch",
)
"""Which engine is taken of two that are as fast as each other: the first."""

_NAMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "openvino-ep": "ONNX Runtime with OpenVINO",
    "torch": "torch.compile",
    "auto": "fastest engine",
}


class RuntimeConfig(StepConfig):
    """Parameters of the step `runtime`.

    Attributes:
        engine: `onnxruntime`, `openvino`, `openvino-ep` (OpenVINO inside ONNX Runtime),
            `daal4py` (compiled trees), `torch` (torch.compile) or `native`. `auto` measures
            those that apply at the target's batch sizes and takes the fastest; where one is
            faster for few rows and another for many, both, and the number of rows in a call
            decides.
        precision: What the engine computes in.
        options: The engine's own options (see its module in `trimgate.runtimes`).
        engines: What `auto` compares; left out, what the target allows but `openvino-ep` and
            `torch`, which take long to load.
        tune_options: Measure the engine's session options and keep those that are faster.
        seconds: Of measuring for each batch size.
    """

    technique: Literal["runtime"] = "runtime"
    engine: RuntimeName | Literal["auto"]
    precision: Literal["f32", "bf16", "f16"] = "f32"
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    engines: tuple[RuntimeName, ...] = ()
    tune_options: bool = False
    seconds: float = Field(default=3.0, gt=0)

    @property
    def form(self) -> Form:
        """The form of the model that the engine reads."""
        return "onnx" if self.engine == "auto" or self.engine in ONNX_RUNTIMES else "trainable"

    def title(self) -> str:
        """The engine, and the precision where it is not the usual one."""
        name = _NAMES.get(self.engine, self.engine)
        if self.precision != "f32":
            name += f" {self.precision.upper()}"
        return f"{name}, tuned" if self.tune_options else name
