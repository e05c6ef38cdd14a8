"""Refuses an object before it leaves: by its kind's schema, KServe's webhook rules and ours.

The API server drops a misspelt field without a word unless it is asked to be strict, and a Git
repository takes everything; so what is wrong is said here.
"""

import difflib
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trimgate.errors import InvalidInput, MissingExtra
from trimgate.ops.kserve import _rules
from trimgate.ops.kserve._schemas import Kind, kinds


def validate(obj: Mapping[str, Any], *, file: str | Path | None = None) -> None:
    """Checks an object that is about to be written or applied.

    Args:
        obj: An InferenceService, InferenceGraph, ServingRuntime or ClusterServingRuntime.
        file: Where it stands, for messages.

    Raises:
        InvalidInput: The first problem: its path, the value and the mend.
        MissingExtra: jsonschema is not installed.
    """
    for problem in problems(obj):
        raise InvalidInput(
            problem.problem, file=file, key=problem.key, value=problem.value, mend=problem.mend
        )


def problems(obj: Mapping[str, Any]) -> list[InvalidInput]:
    """All problems of an object, misspelt keys first; empty when it is sound.

    Raises:
        InvalidInput: It is of no kind that KServe knows.
        MissingExtra: jsonschema is not installed.
    """
    kind = kind_of(obj)
    found = [_explain(error) for error in _validator(kind.name).iter_errors(obj)]
    if found:
        # A misspelt key often leaves a required one missing: name the typo first.
        return sorted(found, key=lambda problem: problem.problem != _UNKNOWN)
    return list(_rules.check(obj))


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """The kind of an object.

    Raises:
        InvalidInput: KServe has no such kind.
    """
    name = str(obj.get("kind"))
    if name not in kinds():
        raise InvalidInput(
            "is no kind of KServe that is checked here", key="kind", value=obj.get("kind"),
            mend=_close(name, kinds()),
        )  # fmt: skip
    return kinds()[name]


_UNKNOWN = "unknown key"


@functools.cache
def _validator(kind: str) -> Any:
    try:
        from jsonschema import Draft202012Validator, ValidationError, validators
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "jsonschema", "kserve-cluster") from error

    def unique(_: Any, keys: list[str], items: Any, schema: Any) -> Iterable[ValidationError]:
        """Lists that are maps by some keys hold each once."""
        seen = set()
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict):
                place = tuple(repr(item.get(key)) for key in keys)
                if place in seen:
                    yield ValidationError(f"has two entries with the same {' and '.join(keys)}")
                seen.add(place)

    made = validators.extend(Draft202012Validator, {"x-kubernetes-list-map-keys": unique})
    return made(kinds()[kind].schema)


def _explain(error: Any) -> InvalidInput:
    path, value = list(error.absolute_path), error.instance
    shown = value if isinstance(value, str | int | float) else None
    rule, wanted = error.validator, error.validator_value
    if rule == "additionalProperties":
        known = error.schema.get("properties", {})
        name = next(key for key in value if key not in known)
        return InvalidInput(_UNKNOWN, key=_path([*path, name]), mend=_close(name, known))
    if rule == "required":
        name = next(key for key in wanted if key not in value)
        return InvalidInput("the key is missing", key=_path([*path, name]), mend=f"add `{name}`")
    if rule == "type":
        problem, mend = f"must be {_a(wanted)}, and is {_kind(value)}", None
    elif rule == "anyOf":
        problem = f"must be {' or '.join(_a(one['type']) for one in wanted)}, and is {_kind(value)}"
        mend = None
    elif rule == "enum":
        problem, mend = f"must be one of {', '.join(map(repr, wanted))}", _close(value, wanted)
    elif rule == "pattern":
        problem, mend = f"does not match {wanted}", None
    else:
        problem, mend = error.message, None
    return InvalidInput(problem, key=_path(path), value=shown, mend=mend)


def _path(parts: Iterable[str | int]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _close(name: object, known: Iterable[object]) -> str | None:
    """What may have been meant."""
    names = [str(one) for one in known]
    lower = {one.lower(): one for one in names}
    found = difflib.get_close_matches(str(name).lower(), lower, n=1)
    if found:
        return f"did you mean {lower[found[0]]!r}?"
    return f"known are {', '.join(sorted(names))}" if 0 < len(names) <= 12 else None


_KINDS = {
    dict: "a mapping", list: "a list", str: "a string", bool: "a boolean", int: "a number",
    float: "a number", type(None): "empty",
}  # fmt: skip
_TYPES = {"object": "a mapping", "array": "a list", "integer": "a whole number"}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _a(name: str) -> str:
    return _TYPES.get(name, f"a {name}")
