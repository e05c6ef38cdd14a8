"""The parameters of an optimize_graph step."""

from typing import Literal

from pydantic import Field

from trimgate.techniques._base import StepConfig
from trimgate.techniques.optimize_graph._optimize import Level

_LEVELS: dict[Level, str] = {
    "none": "raw ONNX",
    "basic": "ONNX",
    "extended": "fused ONNX",
    "transformer": "fused transformer",
}


class OptimizeGraphConfig(StepConfig):
    """Parameters of `optimize_graph`.

    Attributes:
        opset: Version of the default ONNX operator set to export to, or to convert to where the
            model has its ONNX form already.
        level: `none` exports only. `basic` folds constants, and writes scalers and imputers as
            standard operators; the graph stays portable (OpenVINO, Triton, other CPUs).
            `extended` fuses operators into those that only ONNX Runtime has, and `transformer`
            also fuses attention, normalization with its residual, and GELU with its bias.
        offline: Save the graph that ONNX Runtime makes at load on this very CPU, so that it loads
            faster and in less memory; it runs on ONNX Runtime and on CPUs with the same
            instructions only, which is checked at load.
        layout: Under `offline`: `blocked` also writes convolutions in the layout that this CPU
            reads in blocks (NCHWc); `plain` leaves them as they are.
        external_data: Put the weights into a file beside the graph, which is mapped into memory;
            with `offline` in the layout of the kernels, so that nothing is copied at load.
        score_tolerance: Largest difference of a score to the original model that counts as equal
            (relative for regression).
        row_share: Share of the sample's rows that must have equal scores, and share that must
            get the same label.
    """

    technique: Literal["optimize_graph"] = "optimize_graph"
    opset: int | None = Field(default=None, ge=15, le=21)
    level: Level = "basic"
    offline: bool = False
    layout: Literal["blocked", "plain"] = "blocked"
    external_data: bool = False
    score_tolerance: float = Field(default=1e-4, gt=0)
    row_share: float = Field(default=0.999, gt=0, le=1)

    @property
    def portable(self) -> bool:
        """Whether engines other than ONNX Runtime can read the result."""
        return self.level in ("none", "basic") and not self.offline

    def title(self) -> str:
        """What kind of graph it leaves."""
        words = _LEVELS[self.level]
        if self.offline:
            words += " for this CPU"
        return f"{words}, weights apart" if self.external_data else words
