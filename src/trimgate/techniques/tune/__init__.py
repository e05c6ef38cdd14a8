"""Tune: better training hyperparameters, or better parameters of another step."""

from trimgate.techniques.tune._config import Choices, Range, Subset, TuneConfig
from trimgate.techniques.tune._technique import Tune

TECHNIQUE = Tune()

__all__ = ["TECHNIQUE", "Choices", "Range", "Subset", "Tune", "TuneConfig"]
