"""The component `screen`."""

from .component import screen

__all__ = ["screen"]
