"""Export to ONNX, and a graph without what can be computed beforehand."""

from trimgate.techniques.optimize_graph._config import OptimizeGraphConfig
from trimgate.techniques.optimize_graph._optimize import optimize_file
from trimgate.techniques.optimize_graph._technique import TECHNIQUE, OptimizeGraph

__all__ = ["TECHNIQUE", "OptimizeGraph", "OptimizeGraphConfig", "optimize_file"]
