"""A request that can be pasted into a shell."""

import json
import shlex
from typing import Any
from urllib.parse import quote

import numpy as np

from trimgate.data.dataset import Dataset
from trimgate.models.directory import ModelInfo

_ONE_LINE = 900
_LONGEST_ARGUMENT = 100_000


def curl_example(info: ModelInfo, rows: Dataset, url: str, *, name: str | None = None) -> str:
    """A `curl` command that asks a server for one prediction.

    Args:
        info: The served model.
        rows: The first one is sent.
        url: Base URL of the server.
        name: The model's name in the URLs, if it is not that of `info`.

    Returns:
        The command: with named features on one line where that is short, else with a list of
        values; an array too long for a command line is replaced by zeros that Python writes.
    """
    target = shlex.quote(f"{url}/v1/models/{quote(name or info.name, safe='')}:predict")
    curl = f"curl -s {target} -H 'Content-Type: application/json'"
    row = instance(info, rows, 0)
    command = ""
    if isinstance(row, dict):
        command = f"{curl} -d {_quoted(row)}"
        row = list(row.values())
    if not command or len(command) > _ONE_LINE:
        command = f"{curl} -d {_quoted(row)}"
    if len(command) > _LONGEST_ARGUMENT:
        zeros = "0"
        for size in reversed(np.asarray(row).shape):
            zeros = f"[{zeros}]*{size}"
        program = f"import json; print(json.dumps({{'instances': [{zeros}]}}))"
        command = f'python3 -c "{program}" | {curl} --data-binary @-'
    return command


def instance(info: ModelInfo, rows: Dataset, position: int) -> Any:
    """A row as a V1 request holds it, with no more digits than the model sees.

    Returns:
        A mapping from every feature to its value, or the nested list of the only array feature.
    """
    specs = {feature: spec for spec in info.inputs for feature in spec.features}
    names = list(info.features) or list(specs)
    values = {}
    for name in names:
        spec = specs.get(name)
        dtype = "float32" if spec is None or spec.dtype == "string" else spec.dtype
        values[name] = _plain(rows.features[name][position], dtype)
    if len(names) == 1 and not rows.is_table:
        return values[names[0]]
    return values


def _plain(value: Any, dtype: str) -> Any:
    """A feature's value as JSON; NaN and None become null."""
    if isinstance(value, np.ndarray):
        return [_plain(item, dtype) for item in value]
    if value is None or value != value:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 2**24:
            return int(value)
        return float(str(np.dtype(dtype).type(value))) if dtype.startswith("float") else value
    return value


def _quoted(row: Any) -> str:
    body = json.dumps({"instances": [row]}, separators=(",", ":"), allow_nan=False)
    return shlex.quote(body.replace("'", "\\u0027"))
