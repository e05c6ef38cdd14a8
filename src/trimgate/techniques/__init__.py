"""Optimization techniques: one folder each, found by name.

A technique is a sub-package whose module attribute `TECHNIQUE` is a `Technique`. Adding a folder
adds a technique; there is no list to keep.
"""

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from trimgate.errors import InvalidInput
from trimgate.techniques._base import (
    STAGES,
    Context,
    Form,
    Stage,
    StepConfig,
    Suggestion,
    Technique,
    child,
    did,
    trains_anew,
)

__all__ = [
    "STAGES",
    "Context",
    "Form",
    "Stage",
    "StepConfig",
    "Suggestion",
    "Technique",
    "child",
    "did",
    "get",
    "names",
    "parse_step",
    "trains_anew",
]


@functools.cache
def _all() -> dict[str, Technique[Any]]:
    found: dict[str, Technique[Any]] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        if not module.ispkg:
            continue
        technique = getattr(importlib.import_module(f"{__name__}.{module.name}"), "TECHNIQUE", None)
        if isinstance(technique, Technique):
            found[technique.name] = technique
    return found


def names() -> list[str]:
    """Names of the techniques that are there, sorted."""
    return sorted(_all())


def get(name: str) -> Technique[Any]:
    """The technique of that name.

    Raises:
        InvalidInput: There is none.
    """
    if name not in _all():
        raise InvalidInput(
            "is not a technique", key="technique", value=name, mend=f"use one of {names()}"
        )
    return _all()[name]


def parse_step(step: Mapping[str, Any]) -> StepConfig:
    """Checks one step of a recipe as a user writes it.

    Args:
        step: `{"technique": "<name>", <parameter>: <value>, ...}`.

    Returns:
        The technique's own configuration.

    Raises:
        InvalidInput: The technique or a parameter does not exist, or a value is wrong.
    """
    if not isinstance(step.get("technique"), str):
        raise InvalidInput(
            "a step needs the name of a technique",
            key="technique",
            value=step.get("technique"),
            mend=f"use one of {names()}",
        )
    technique = get(step["technique"])
    try:
        config: StepConfig = technique.config.model_validate(dict(step))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "step"
        mend = None
        if first["type"] == "extra_forbidden":
            known = [name for name in technique.config.model_fields if name != "technique"]
            mend = f"{technique.name} takes {', '.join(known) or 'no parameters'}"
        raise InvalidInput(
            first["msg"], key=f"{technique.name}.{place}", value=first.get("input"), mend=mend
        ) from error
    return config
