"""Reduce dimensions: a few components in place of the columns, inside the served model."""

from trimgate.techniques.reduce_dimensions._config import ReduceDimensionsConfig
from trimgate.techniques.reduce_dimensions._modules import build_projected
from trimgate.techniques.reduce_dimensions._technique import ReduceDimensions

TECHNIQUE = ReduceDimensions()

__all__ = ["TECHNIQUE", "ReduceDimensions", "ReduceDimensionsConfig", "build_projected"]
