"""The component `quantize`."""

from .component import quantize

__all__ = ["quantize"]
