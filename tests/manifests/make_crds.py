"""Writes `crds.json.gz`: the definitions of the custom kinds that the manifests have.

    python tests/manifests/make_crds.py CRD.yaml ...

The files are those of the operators' releases (Argo CD, Flux, Prometheus Operator, External
Secrets, Sealed Secrets; all under the Apache License 2.0), without their descriptions. KServe's
come with trimgate.
"""

import gzip
import json
import sys
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("crds.json.gz")


def bare(value: object) -> object:
    """A schema without what is for people alone."""
    if isinstance(value, dict):
        # a property may be called description, too: its value is no text
        return {
            key: bare(inner)
            for key, inner in value.items()
            if not (key == "description" and isinstance(inner, str))
        }
    return [bare(inner) for inner in value] if isinstance(value, list) else value


def main(files: list[str]) -> None:
    """Writes the file."""
    found = []
    for file in files:
        crd = yaml.load(Path(file).read_text(), Loader=yaml.CSafeLoader)
        crd["metadata"] = {
            "name": crd["metadata"]["name"],
            "annotations": crd["metadata"].get("annotations", {}),
        }
        crd.pop("status", None)
        crd["spec"].pop("conversion", None)
        found.append(bare(crd))
    text = json.dumps(found, separators=(",", ":"), sort_keys=True)
    FILE.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main(sys.argv[1:])
