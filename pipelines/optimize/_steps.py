"""Finds a technique's component, and puts a recipe step into its parameters."""

import importlib
from collections.abc import Callable
from typing import Any

from trimgate.techniques import StepConfig


def technique_component(name: str) -> Callable[..., Any]:
    """The component of a technique: `trimgate.components.optimization.<name>`."""
    module = importlib.import_module(f"trimgate.components.optimization.{name}")
    component: Callable[..., Any] = getattr(module, name)
    return component


def technique_parameters(step: StepConfig) -> dict[str, Any]:
    """The step's parameters as KFP takes them: those that are None are left unset."""
    return step.model_dump(mode="json", exclude={"technique"}, exclude_none=True)
