"""Adds the packages of Debian that are installed here to a CycloneDX SBOM, at build time.

python3 add_debian.py SBOM OUT
"""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

FIELDS = "${Package}\t${Version}\t${Architecture}\n"


def main(source: str, out: str) -> None:
    """Reads one SBOM and writes the longer one."""
    sbom = json.loads(Path(source).read_bytes())
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
            {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "purl": purl,
            }
        )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps(sbom, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
