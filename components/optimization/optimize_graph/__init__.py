"""The component `optimize_graph`."""

from .component import optimize_graph

__all__ = ["optimize_graph"]
