"""The component `reject`."""

from .component import reject

__all__ = ["reject"]
