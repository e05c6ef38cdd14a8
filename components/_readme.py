"""Writes each component's README from its docstring, its interface and its technique's config.

`python -m trimgate.components._readme` writes them; with `--check` it lists those that are out of
step and exits 1.
"""

import argparse
import ast
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from docstring_parser import parse

from trimgate import techniques


def main() -> int:
    """Writes or checks every README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=Path("components"))
    arguments = parser.parse_args()
    stale = []
    for file in sorted(arguments.root.glob("*/*/component.py")):
        target, text = file.with_name("README.md"), readme(file)
        if not target.is_file() or target.read_text() != text:
            stale.append(target)
            if not arguments.check:
                target.write_text(text)
    for target in stale:
        print(f"{target}: {'out of step' if arguments.check else 'written'}")
    return 1 if stale and arguments.check else 0


def readme(file: Path) -> str:
    """The README of one component, from its source."""
    category, name = file.parts[-3:-1]
    function = next(
        node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)
    )
    doc = parse(ast.get_docstring(function) or "")
    described = {p.arg_name: " ".join((p.description or "").split()) for p in doc.params}
    parts = [f"# {name.replace('_', ' ').capitalize()}", doc.short_description or ""]
    if doc.long_description:
        parts.append(" ".join(doc.long_description.split()))
    rows = []
    positional = function.args.args
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(function.args.defaults))
    for argument, default in zip(positional, [*defaults, *function.args.defaults], strict=True):
        kind = ast.unparse(argument.annotation).replace("dsl.", "") if argument.annotation else ""
        shown = "" if default is None else f"`{ast.unparse(default)}`"
        rows.append(f"| `{argument.arg}` | `{kind}` | {shown} | {described[argument.arg]} |")
    table = ["| Parameter | Type | Default | Description |", "|---|---|---|---|", *rows]
    parts += ["## Interface", "\n".join(table)]
    if doc.returns:
        parts.append(f"Returns: {' '.join((doc.returns.description or '').split())}")
    if category == "optimization" and name in techniques.names():
        parts += _technique(name)
    parts += [
        "## Use",
        "```python\nfrom trimgate.components."
        f"{category}.{name} import {name}\n```\n\nThe library does the work, without Kubeflow too: "
        f"`{_library(function)}`.",
    ]
    return "\n\n".join(parts) + "\n" + _measured(file.with_name("README.md"))


def _measured(readme: Path) -> str:
    """What `benchmarks/techniques.py` wrote at the end of a README: numbers are not generated."""
    _, found, rest = (readme.read_text() if readme.is_file() else "").partition("\n## Measured\n")
    return found + rest


def _library(function: ast.FunctionDef) -> str:
    """The library function that the body calls."""
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("tasks.")
    ]
    return f"trimgate.{next(c for c in calls if not c.startswith('tasks.log_'))}"


def _technique(name: str) -> list[str]:
    technique = techniques.get(name)
    module = importlib.import_module(f"trimgate.techniques.{name}")
    about = parse(inspect.getdoc(type(technique)) or "")
    text = [about.short_description or "", about.long_description or ""]
    notes = [m.description or "" for m in about.meta if m.args and m.args[0] == "notes"]
    return [
        "## Parameters",
        "As a step of a recipe: `{technique: " + name + ", <parameter>: <value>}`.",
        _parameters(technique.config),
        "## What it does",
        *(" ".join(t.split()) for t in (*text, inspect.getdoc(module) or "", *notes) if t.strip()),
    ]


def _parameters(config: type[Any]) -> str:
    described = {
        p.arg_name: " ".join((p.description or "").split())
        for p in parse(inspect.getdoc(config) or "").params
    }
    rows = ["| Parameter | Default | Description |", "|---|---|---|"]
    for key, field in config.model_fields.items():
        if key == "technique":
            continue
        value = None if field.is_required() else field.get_default(call_default_factory=True)
        default = "required" if field.is_required() else f"`{_shown(value)}`"
        rows.append(f"| `{key}` | {default} | {described.get(key, '')} |")
    return "\n".join(rows)


def _shown(value: Any) -> str:
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    return json.dumps(value, default=list)


if __name__ == "__main__":
    sys.exit(main())
