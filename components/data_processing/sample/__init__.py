"""The component `sample`."""

from .component import sample

__all__ = ["sample"]
