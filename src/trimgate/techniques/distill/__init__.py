"""Distill: a smaller model learns from a larger one, beside the same model without a teacher."""

from trimgate.techniques.distill._config import DistillConfig, LossWeights, Student
from trimgate.techniques.distill._technique import Distill

TECHNIQUE = Distill()

__all__ = ["TECHNIQUE", "Distill", "DistillConfig", "LossWeights", "Student"]
