"""The component `tune`."""

from .component import tune

__all__ = ["tune"]
