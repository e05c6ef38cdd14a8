"""What is varied, and how the library of samplers sees it."""

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from trimgate.errors import InvalidInput
from trimgate.techniques.tune._config import Choices, Parameter, Range

_GRID_POINTS = 5


@dataclass(frozen=True)
class Space:
    """Parameters by name; each range is known to be whole numbers or fractions."""

    parameters: Mapping[str, Parameter]

    @classmethod
    def of(cls, parameters: Mapping[str, Parameter], present: Mapping[str, Any]) -> "Space":
        """Settles what the kinds of the present values tell.

        Args:
            parameters: By name, as the user or the defaults say.
            present: The values that the parameters have now, where they are known.
        """
        return cls({n: _settled(p, present.get(n)) for n, p in parameters.items()})

    def suggest(self, trial: Any) -> dict[str, Any]:
        """The values of a trial of Optuna."""
        values: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if isinstance(parameter, Range):
                low, high, step = parameter.low, parameter.high, parameter.step
                if parameter.integer:
                    values[name] = trial.suggest_int(
                        name, int(low), int(high), step=int(step or 1), log=parameter.log
                    )
                else:
                    values[name] = trial.suggest_float(
                        name, low, high, step=step, log=parameter.log
                    )
            elif isinstance(parameter, Choices):
                labels = _labels(parameter)
                chosen = trial.suggest_categorical(name, labels)
                values[name] = parameter.choices[_position(labels, chosen)]
            else:
                values[name] = [
                    item
                    for item in parameter.subset
                    if trial.suggest_categorical(f"{name}[{item}]", [False, True])
                ]
        return values

    def decoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a trial that is done, from Optuna's names."""
        return self.suggest(_Done(params))

    def encoded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as Optuna names them; those that the space does not hold are left out."""
        found: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if name not in values:
                continue
            value = values[name]
            if isinstance(parameter, Range):
                if _holds(parameter, value):
                    found[name] = int(value) if parameter.integer else float(value)
            elif isinstance(parameter, Choices):
                plain = list(value) if isinstance(value, tuple) else value
                same = [type(c) is type(plain) and c == plain for c in parameter.choices]
                if any(same):
                    found[name] = _labels(parameter)[same.index(True)]
            elif isinstance(value, (list, tuple)) and set(value) <= set(parameter.subset):
                found |= {f"{name}[{item}]": item in value for item in parameter.subset}
        return found

    def grid(self, most: int, seed: int) -> list[dict[str, Any]]:
        """Points of the grid, in random order, as Optuna names them.

        Args:
            most: At most so many.
            seed: Of the order.
        """
        axes: dict[str, list[Any]] = {}
        for name, parameter in self.parameters.items():
            if isinstance(parameter, Range):
                axes[name] = _points(parameter)
            elif isinstance(parameter, Choices):
                axes[name] = _labels(parameter)
            else:
                axes |= {f"{name}[{item}]": [False, True] for item in parameter.subset}
        size = math.prod(len(axis) for axis in axes.values())
        points = []
        for place in random.Random(seed).sample(range(size), min(most, size)):  # noqa: S311
            point, rest = {}, place
            for name, axis in axes.items():
                rest, position = divmod(rest, len(axis))
                point[name] = axis[position]
            points.append(point)
        return points

    def numbers(self) -> int:
        """How many parameters are ranges."""
        return sum(isinstance(parameter, Range) for parameter in self.parameters.values())

    def examples(self) -> Iterable[tuple[str, Any]]:
        """The ends of each range and each choice, to check them one by one."""
        for name, parameter in self.parameters.items():
            if isinstance(parameter, Range):
                whole = int if parameter.integer else float
                yield from ((name, whole(end)) for end in (parameter.low, parameter.high))
            elif isinstance(parameter, Choices):
                yield from ((name, choice) for choice in parameter.choices)
            else:
                yield name, list(parameter.subset)


@dataclass(frozen=True)
class _Done:
    """Answers as a trial does that was drawn before."""

    params: Mapping[str, Any]

    def suggest_int(self, name: str, *_: Any, **__: Any) -> Any:
        return self.params[name]

    suggest_float = suggest_categorical = suggest_int


def check_names(
    parameters: Iterable[str], known: Iterable[str], of: str, allowed: Callable[[str], bool]
) -> None:
    """Refuses names that are no parameters.

    Args:
        parameters: The names in the space.
        known: Names to propose.
        of: What they are parameters of, in words.
        allowed: Whether a name is one.

    Raises:
        InvalidInput: It proposes a name that is alike.
    """
    for name in parameters:
        if allowed(name):
            continue
        listed = sorted(set(known))
        lower = {one.lower(): one for one in listed}
        close = [lower[one] for one in get_close_matches(name.lower(), lower, n=1)]
        mend = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(listed[:20])}"
        raise InvalidInput(f"is no parameter of {of}", key=f"tune.space.{name}", mend=mend)


def _settled(parameter: Parameter, present: Any) -> Parameter:
    fraction = isinstance(present, float)
    if isinstance(parameter, Range) and parameter.integer is None:
        return parameter.model_copy(update={"integer": parameter.is_whole and not fraction})
    if isinstance(parameter, Choices):
        # in KFP parameters 1.0 arrives as 1, which can mean something else (max_features)
        mixed = any(isinstance(choice, float) for choice in parameter.choices)
        if fraction or mixed:
            return Choices(
                choices=tuple(
                    float(c) if isinstance(c, int) and not isinstance(c, bool) else c
                    for c in parameter.choices
                )
            )
    return parameter


def _holds(parameter: Range, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return False
    if parameter.integer and not float(value).is_integer():
        return False
    if not parameter.low <= value <= parameter.high:
        return False
    if parameter.step is None:
        return True
    steps = (float(value) - parameter.low) / parameter.step
    return abs(steps - round(steps)) < 1e-9


def _labels(parameter: Choices) -> list[Any]:
    """What stands for the choices: lists are written as JSON."""
    return [json.dumps(c) if isinstance(c, list) else c for c in parameter.choices]


def _position(labels: list[Any], chosen: Any) -> int:
    """Where it is among the labels; True is not 1 here."""
    return [type(label) is type(chosen) and label == chosen for label in labels].index(True)


def _points(parameter: Range) -> list[Any]:
    if parameter.step is not None or (
        parameter.integer and parameter.high - parameter.low < _GRID_POINTS
    ):
        step = parameter.step or 1
        count = math.floor((parameter.high - parameter.low) / step + 1e-9) + 1
        values = [parameter.low + step * k for k in range(count)]
    else:
        between = np.geomspace if parameter.log else np.linspace
        values = between(float(parameter.low), float(parameter.high), _GRID_POINTS).tolist()
        values = [min(max(v, parameter.low), parameter.high) for v in values]
    if parameter.integer:
        return list(dict.fromkeys(round(value) for value in values))
    return list(dict.fromkeys(float(value) for value in values))
