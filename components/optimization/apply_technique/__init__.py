"""The component `apply_technique`."""

from .component import apply_technique

__all__ = ["apply_technique"]
