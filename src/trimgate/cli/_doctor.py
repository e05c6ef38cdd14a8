"""`trimgate doctor`."""

import argparse
import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from trimgate.cli._common import console
from trimgate.environment import cpu_flags, describe
from trimgate.targets import PROFILES, standing

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
        found = {
            "machine": machine,
            "accelerators": _accelerators(),
            "runtimes": engines,
            "extras": extras,
            "targets": {name: standing(target) for name, target in PROFILES.items()},
        }
        print(json.dumps(found, indent=2))
        return 0
    out = console()
    flags = cpu_flags()
    table = _table("Machine")
    for key, value in _facts(machine):
        table.add_row(key, value)
    out.print(table)
    table = _table("Instructions", "here", "what for")
    for flag, use in _GOOD.items():
        table.add_row(flag, _yes(flag in flags), use)
    out.print(table)
    table = _table("Runtimes")
    for name, why in engines.items():
        table.add_row(name, Text(why, style="yellow") if why else _ready())
    out.print(table)
    table = _table("Targets", "quantity", "on this machine")
    for name, target in PROFILES.items():
        lacking = runtimes.missing_device(target.device)
        for number, (quantity, how) in enumerate(standing(target).items()):
            told = Text(how, style="" if how.startswith("measured") else "yellow")
            if lacking and how.startswith("measured"):
                told = Text(f"not here: {lacking}", style="yellow")
            table.add_row("" if number else name, quantity, told)
    out.print(table)
    table = _table("Extras")
    for name, missing in extras.items():
        mend = f"missing {', '.join(missing)}: pip install 'trimgate[{name}]'"
        table.add_row(name, Text(mend, style="yellow") if missing else _ready())
    out.print(table)
    return 0


def _table(title: str, *more: str) -> Table:
    """Two columns under a title, or more with heads."""
    table = Table(title, *(more or ("",)), box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.columns[0].min_width = 14
    table.columns[0].no_wrap = True
    return table


def _ready() -> Text:
    return Text("ready", style="green")


def _yes(here: bool) -> Text:
    return Text("yes", style="green") if here else Text("no", style="dim")


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
        # our own extras stand for what they name; those of others are their own matter
        own = inner and name == "trimgate"
        needs[extra] += [f"[{i}" for i in inner.split(",")] if own else [name]
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


def _facts(machine: dict[str, Any]) -> list[tuple[str, str]]:
    """The machine in words; what is not known or not limited is left out."""
    gib = 2**30
    facts = {
        "processor": machine["cpu"],
        "cores": machine["cores"],
        "cores granted": machine["cpu_limit"],
        "memory": f"{machine['memory'] / gib:.1f} GiB",
        "memory granted": machine["memory_limit"] and f"{machine['memory_limit'] / gib:.1f} GiB",
        "load": " ".join(f"{load:.1f}" for load in machine["load_average"]),
        "governor": machine["governor"],
        "system": f"{machine['os']}, Linux {machine['kernel']}, {machine['machine']}"
        if sys.platform == "linux"
        else f"{machine['os']} {machine['kernel']}, {machine['machine']}",
        "Python": machine["python"],
        "accelerator": ", ".join(_accelerators()) or "none found",
        "packages": ", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
    }
    return [(key, str(value)) for key, value in facts.items() if value is not None]


def _accelerators() -> list[str]:
    """Devices that the kernel shows, by their driver's device files."""
    kinds = {
        "NVIDIA GPU": "nvidia[0-9]*",
        "AWS Neuron": "neuron[0-9]*",
        "AMD GPU": "kfd",
        "Intel NPU": "accel/accel[0-9]*",
    }
    found = {kind: len(list(Path("/dev").glob(files))) for kind, files in kinds.items()}
    return [f"{count} {kind}" for kind, count in found.items() if count]
