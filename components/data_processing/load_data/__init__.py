"""The component `load_data`."""

from .component import load_data

__all__ = ["load_data"]
