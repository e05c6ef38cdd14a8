"""The component `halve`."""

from .component import halve

__all__ = ["halve"]
