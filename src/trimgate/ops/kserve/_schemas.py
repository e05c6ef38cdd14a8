"""The strict schemas of KServe's kinds; `_make_schemas` writes the file."""

import functools
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("schemas.json.gz")

_LABEL = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)"
_KEY = rf"^([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_LABEL}$"
_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

METADATA: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": _NAME, "maxLength": 63},
        "namespace": {"type": "string", "pattern": _NAME, "maxLength": 63},
        "resourceVersion": {"type": "string"},
        "labels": {
            "type": "object",
            "propertyNames": {"pattern": _KEY},
            "additionalProperties": {"type": "string", "pattern": rf"^{_LABEL}?$"},
        },
        "annotations": {
            "type": "object",
            "propertyNames": {"pattern": _KEY},
            "additionalProperties": {"type": "string"},
        },
    },
}
"""What trimgate writes of an object's metadata; the server fills in the rest."""


@dataclass(frozen=True)
class Kind:
    """A kind of object that KServe knows.

    Attributes:
        api_version: Its group and version.
        name: Such as `InferenceService`.
        plural: As in the API's paths.
        namespaced: Whether an object stands in a namespace.
        schema: JSON Schema of an object.
    """

    api_version: str
    name: str
    plural: str
    namespaced: bool
    schema: dict[str, Any]


@functools.cache
def kinds() -> dict[str, Kind]:
    """The kinds by name."""
    found = {}
    for key, entry in json.loads(gzip.decompress(FILE.read_bytes())).items():
        api_version, _, name = key.rpartition("/")
        schema = {
            "type": "object",
            "required": ["apiVersion", "kind", "metadata", "spec"],
            "additionalProperties": False,
            "properties": {
                "apiVersion": {"enum": [api_version]},
                "kind": {"enum": [name]},
                "metadata": METADATA,
                "spec": entry["spec"],
            },
        }
        found[name] = Kind(api_version, name, entry["plural"], entry["namespaced"], schema)
    return found
