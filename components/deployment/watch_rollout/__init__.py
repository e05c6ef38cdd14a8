"""The component `watch_rollout`."""

from .component import watch_rollout

__all__ = ["watch_rollout"]
