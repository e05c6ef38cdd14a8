"""The component `check_serving`."""

from .component import check_serving

__all__ = ["check_serving"]
