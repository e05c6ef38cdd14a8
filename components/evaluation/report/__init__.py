"""The component `report`."""

from .component import report

__all__ = ["report"]
