"""The component `select_features`."""

from .component import select_features

__all__ = ["select_features"]
