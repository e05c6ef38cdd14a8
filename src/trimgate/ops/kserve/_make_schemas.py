"""Writes `schemas.json.gz` from KServe's CustomResourceDefinitions.

`python -m trimgate.ops.kserve._make_schemas CRD.yaml ...`, with the files of KServe's folder
`config/crd/full`. Each kind's schema becomes a strict JSON Schema: what the API server would
silently drop is refused.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from trimgate.ops.kserve._schemas import FILE

_KEPT = (
    "anyOf", "enum", "items", "maxLength", "maximum", "minItems", "minLength", "minimum",
    "pattern", "required", "type", "x-kubernetes-list-map-keys",
)  # fmt: skip
_INT32 = {"minimum": -(2**31), "maximum": 2**31 - 1}


def main(files: list[str]) -> int:
    """Writes the file."""
    schemas: dict[str, Any] = {}
    for file in files:
        crd = yaml.load(Path(file).read_text(), Loader=yaml.CSafeLoader)["spec"]
        kind, group = crd["names"]["kind"], crd["group"]
        for version in crd["versions"]:
            spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
            schemas[f"{group}/{version['name']}/{kind}"] = {
                "plural": crd["names"]["plural"],
                "namespaced": crd["scope"] == "Namespaced",
                "spec": strict(spec),
            }
    text = json.dumps(schemas, separators=(",", ":"), sort_keys=True)
    # The same definitions give the same bytes.
    FILE.write_bytes(gzip.compress(text.encode(), mtime=0))
    return 0


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of a CustomResourceDefinition as JSON Schema, without descriptions.

    Objects take no other keys than the schema names, unless it says so.
    """
    made = {key: schema[key] for key in _KEPT if key in schema}
    if "items" in made:
        made["items"] = strict(made["items"])
    if "anyOf" in made:
        made["anyOf"] = [{"type": one["type"]} for one in made["anyOf"]]
    elif schema.get("x-kubernetes-int-or-string"):
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("format") == "int32":
        made = _INT32 | made
    if "properties" in schema:
        made["properties"] = {k: strict(v) for k, v in schema["properties"].items()}
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        made["additionalProperties"] = strict(others)
    elif schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
