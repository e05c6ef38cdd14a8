"""The component `import_model`."""

from .component import import_model

__all__ = ["import_model"]
