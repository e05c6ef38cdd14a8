"""`trimgate doctor`."""

import argparse
import importlib.metadata
import json
import re
from typing import Any

from rich.table import Table

from trimgate.cli._common import console
from trimgate.environment import cpu_flags, describe

_GOOD = {
    "avx2": "256-bit float arithmetic",
    "avx512f": "512-bit float arithmetic",
    "avx512_vnni": "native INT8 (static INT8 pays)",
    "avx_vnni": "native INT8 (static INT8 pays)",
    "amx_int8": "INT8 matrix tiles",
    "avx512_bf16": "native BF16",
    "amx_bf16": "BF16 matrix tiles (OpenVINO BF16 pays)",
}


def run(arguments: argparse.Namespace) -> int:
    """Prints what this machine offers and what is missing for which extra."""
    from trimgate import runtimes

    engines = runtimes.available()
    extras = missing_by_extra()
    machine = describe()
    if arguments.json:
        print(json.dumps({"machine": machine, "runtimes": engines, "extras": extras}, indent=2))
        return 0
    out = console()
    flags = cpu_flags()
    table = Table("CPU flag", "here", "what for", title="Processor", title_justify="left")
    for flag, use in _GOOD.items():
        table.add_row(flag, "yes" if flag in flags else "no", use)
    out.print(_facts(machine))
    out.print(table)
    table = Table("runtime", "state", title="Runtimes", title_justify="left")
    for name, why in engines.items():
        table.add_row(name, why or "ready")
    out.print(table)
    table = Table("extra", "state", title="Extras", title_justify="left")
    for name, missing in extras.items():
        install = f"missing {', '.join(missing)}: pip install 'trimgate[{name}]'"
        table.add_row(name, install.replace("[", "\\[") if missing else "ready")
    out.print(table)
    return 0


def missing_by_extra() -> dict[str, list[str]]:
    """Distributions that each extra names and that are not installed."""
    required = importlib.metadata.requires("trimgate") or []
    needs: dict[str, list[str]] = {}
    for line in required:
        found = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?.*extra == ['\"]([\w-]+)['\"]", line)
        if not found:
            continue
        name, inner, extra = found.groups()
        needs.setdefault(extra, [])
        needs[extra] += [f"[{i}" for i in inner.split(",")] if inner else [name]
    return {
        extra: sorted({name for name in _flat(extra, needs) if not _installed(name)})
        for extra in needs
        if extra not in ("test", "all")
    }


def _flat(extra: str, needs: dict[str, list[str]]) -> list[str]:
    names = []
    for name in needs[extra]:
        names += _flat(name[1:], needs) if name.startswith("[") else [name]
    return names


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _facts(machine: dict[str, Any]) -> Table:
    table = Table("what", "value", title="Machine", title_justify="left")
    for key, value in machine.items():
        if key in ("flags", "cpu_flags"):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        table.add_row(key.replace("_", " "), str(value))
    return table
