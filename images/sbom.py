"""Completes a CycloneDX SBOM of Python packages at build time: Debian's packages, and purls.

    python3 sbom.py SBOM OUT

Scanners go by the purl, which cyclonedx-bom leaves out for wheels that were installed from a
folder; all of them come from the lock.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

FIELDS = "${Package}\t${Version}\t${Architecture}\n"


def main(source: str, out: str) -> None:
    """Reads one SBOM and writes the longer one."""
    sbom = json.loads(Path(source).read_bytes())
    for part in sbom["components"]:
        name = re.sub(r"[-_.]+", "-", part["name"]).lower()
        part.setdefault("purl", f"pkg:pypi/{name}@{quote(part['version'], safe='')}")
    listed = subprocess.run(
        ["dpkg-query", "--show", "--showformat", FIELDS],  # noqa: S607 - Debian's own
        capture_output=True,
        text=True,
        check=True,
    )
    for line in listed.stdout.splitlines():
        name, version, architecture = line.split("\t")
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={architecture}"
        sbom["components"].append(
            {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps(sbom, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
