"""The component `benchmark`."""

from .component import benchmark

__all__ = ["benchmark"]
