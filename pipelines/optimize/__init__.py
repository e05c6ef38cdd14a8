"""The `optimize` pipeline."""

from .pipeline import Parameters, build, compile_yaml

__all__ = ["Parameters", "build", "compile_yaml"]
