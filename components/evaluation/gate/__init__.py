"""The component `gate`."""

from .component import gate

__all__ = ["gate"]
