"""The component `reduce_dimensions`."""

from .component import reduce_dimensions

__all__ = ["reduce_dimensions"]
