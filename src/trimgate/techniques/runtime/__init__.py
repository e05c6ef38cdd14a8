"""Choose the engine that serves the model; the model itself stays as it is."""

from trimgate.techniques.runtime._config import RuntimeConfig
from trimgate.techniques.runtime._technique import RuntimeTechnique

__all__ = ["TECHNIQUE", "RuntimeConfig", "RuntimeTechnique"]

TECHNIQUE = RuntimeTechnique()
