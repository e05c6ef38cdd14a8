"""Definitions of the custom kinds in the manifests: as JSON Schema, and for an API server."""

import functools
import gzip
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from trimgate.ops.kserve._make_schemas import strict
from trimgate.ops.kserve._schemas import kinds

FILE = Path(__file__).parent / "manifests/crds.json.gz"


def definitions() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions, without KServe's."""
    return json.loads(gzip.decompress(FILE.read_bytes()))


@functools.cache
def custom_kinds() -> dict[tuple[str, str], Draft202012Validator]:
    """What refuses unknown keys and wrong values in `spec`, by apiVersion and kind."""
    found = {}
    for crd in definitions():
        for version in crd["spec"]["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            found[f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]] = (
                schema["properties"]["spec"]
            )
    made = {key: strict(spec) for key, spec in found.items()}
    made |= {(k.api_version, name): k.schema["properties"]["spec"] for name, k in kinds().items()}
    return {
        key: Draft202012Validator(
            {"type": "object", "additionalProperties": False, "properties": {"spec": spec}}
        )
        for key, spec in made.items()
    }
