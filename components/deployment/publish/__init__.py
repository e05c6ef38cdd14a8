"""The component `publish`."""

from .component import publish

__all__ = ["publish"]
