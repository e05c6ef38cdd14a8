"""The component `select`."""

from .component import select

__all__ = ["select"]
