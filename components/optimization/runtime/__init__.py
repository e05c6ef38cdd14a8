"""The component `runtime`."""

from .component import runtime

__all__ = ["runtime"]
