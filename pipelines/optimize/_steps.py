"""Puts a recipe step into its technique's component."""

import importlib
import importlib.util
from typing import Any

from kfp import dsl

from trimgate.techniques import StepConfig

_COMPONENTS = "trimgate.components.optimization"


def technique_task(step: StepConfig, **inputs: Any) -> dsl.PipelineTask:
    """The task of a recipe step.

    A technique without a component of its own goes through `apply_technique`.

    Args:
        step: The step; parameters that are None are left unset.
        **inputs: What every technique's component takes: model, rows, metric, target, ...
    """
    inputs["parameters"] = step.model_dump(mode="json", exclude={"technique"}, exclude_none=True)
    name = step.technique
    if importlib.util.find_spec(f"{_COMPONENTS}.{name}") is None:
        name, inputs["technique"] = "apply_technique", name
    module = importlib.import_module(f"{_COMPONENTS}.{name}")
    task: dsl.PipelineTask = getattr(module, name)(**inputs)
    return task
