"""The component `prune`."""

from .component import prune

__all__ = ["prune"]
