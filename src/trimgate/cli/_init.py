"""`trimgate init`."""

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from numpy.typing import NDArray

from trimgate.cli._common import add_to_path, check_output, console
from trimgate.config import parse_config, resolve_paths
from trimgate.data import read_head
from trimgate.errors import InvalidInput
from trimgate.ops.release import LONGEST_NAME
from trimgate.plan import Plan, make_plan

_LABELS = ("label", "target", "class", "y", "labels", "outcome")

_TEMPLATE = """\
# trimgate: what to optimize, and what the winner must prove. `trimgate run {output}` does it.
name: {name}

model:
  path: {model}
{model_extra}
data:
  path: {data}
  label: {label}
{drop}  # The gate looks at the test rows once; the model must not have been trained on them.
  split:
{split}
    validation: 0.2  # half guides the techniques, half ranks the candidates
    test: 0.2
  overlap: {overlap}  # rows that stand in two splits: refuse, drop or allow

# Chosen from the task and the class balance; any metric of `trimgate schema` will do.
metric: {metric}
objective: latency  # or throughput, size, memory
target: {target}  # or edge-cpu, gpu; see `trimgate doctor` for this machine
recipes: default  # from the model's family, the target and this CPU; or a list of your own

gate:
  confidence: 0.95
  max_drop:
    {metric}: {margin}  # the largest loss that you accept, shown by a paired test
  min_speedup: 1.05
"""


def run(arguments: argparse.Namespace) -> int:
    """Writes a config that has been tried on the model and its rows."""
    output = Path(arguments.output)
    check_output(output)
    if output.exists() and not arguments.force:
        raise InvalidInput("already exists", file=output, mend="--force replaces it")
    folder = output.resolve().parent
    add_to_path(folder)
    columns = read_head(Path(arguments.data))
    known = _known_features(arguments, columns)
    label = arguments.label or _guess_label(columns, known, arguments.data)
    if arguments.time and arguments.time not in columns:
        raise InvalidInput(
            "there is no such column", file=arguments.data, key="--time", value=arguments.time
        )
    raw = _first_draft(arguments, folder, label, list(columns), known)
    notes = []
    while True:
        try:
            plan = make_plan(resolve_paths(parse_config(raw), folder))
            break
        except InvalidInput as error:
            if "also stand in" not in error.problem or raw["data"]["overlap"] == "drop":
                raise
            raw["data"]["overlap"] = "drop"
            notes.append(f"{error.problem}; overlap: drop leaves them out")
    text = _render(raw, plan, arguments)
    parse_config(yaml.safe_load(text), file=output)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(output)
    out = console()
    for note in notes:
        out.print(f"note: {note}", highlight=False)
    out.print(
        f"{output}: {plan.model.framework} {plan.model.task} model, label {label}, "
        f"metric {plan.metric}, {len(plan.recipes)} recipes",
        highlight=False,
    )
    out.print(f"next: trimgate run {output}", highlight=False)
    return 0


def _known_features(arguments: argparse.Namespace, columns: Mapping[str, Any]) -> list[str] | None:
    """The features that the model knows by name, if it does."""
    from trimgate.models import ModelSource, feature_names, text_feature

    if arguments.text and arguments.text not in columns:
        raise InvalidInput(
            "there is no such column", file=arguments.data, key="--text", value=arguments.text
        )
    if Path(arguments.model).is_dir():
        others = {name: values for name, values in columns.items() if name != arguments.label}
        return [arguments.text or text_feature(Path(arguments.model), others)]
    return feature_names(
        ModelSource(
            path=Path(arguments.model),
            name="model",
            builder=arguments.builder,
            allow_pickle=arguments.allow_pickle,
        ),
        columns,
    )


def _name_of(file: Path) -> str:
    """A model's name from its file's."""
    name = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")
    if not name[:1].isalpha():
        name = f"model-{name}"
    return name[:LONGEST_NAME].strip("-")


def _first_draft(
    arguments: argparse.Namespace,
    folder: Path,
    label: str,
    columns: list[str],
    known: list[str] | None,
) -> dict[str, Any]:
    model: dict[str, Any] = {"path": _relative(arguments.model, folder)}
    if arguments.builder:
        model["builder"] = arguments.builder
    if arguments.builder_argument:
        model["builder_arguments"] = _builder_arguments(arguments.builder_argument)
    if arguments.allow_pickle:
        model["allow_pickle"] = True
    drop = [c for c in columns if c != label and known is not None and c not in known]
    split = (
        {"method": "temporal", "by": arguments.time} if arguments.time else {"method": "stratified"}
    )
    return {
        "name": arguments.name or _name_of(Path(arguments.model)),
        "model": model,
        "data": {
            "path": _relative(arguments.data, folder),
            "label": label,
            "drop": drop,
            "split": split,
            "overlap": "refuse",
        },
        "target": arguments.target,
    }


def _render(raw: dict[str, Any], plan: Plan, arguments: argparse.Namespace) -> str:
    model, data = raw["model"], raw["data"]
    extra = ""
    if "builder" in model:
        extra += f"  builder: {model['builder']}  # makes the module that the weights go into\n"
    if "builder_arguments" in model:
        extra += f"  builder_arguments: {_scalar(model['builder_arguments'])}\n"
    if "allow_pickle" in model:
        extra += "  allow_pickle: true  # runs code from the file: only for files you made\n"
    drop = ""
    if data["drop"]:
        drop = f"  drop: {_scalar(data['drop'])}  # columns that the model does not take\n"
    split = f"    method: {data['split']['method']}  # temporal (needs `by`), stratified or random"
    if "by" in data["split"]:
        split += f"\n    by: {_scalar(data['split']['by'])}  # the newest rows are the test"
    return _TEMPLATE.format(
        output=arguments.output,
        name=raw["name"],
        model=_scalar(model["path"]),
        model_extra=extra,
        data=_scalar(data["path"]),
        label=_scalar(data["label"]),
        drop=drop,
        split=split,
        overlap=data["overlap"],
        metric=plan.metric,
        target=raw["target"],
        margin=_margin(plan),
    )


def _margin(plan: Plan) -> float:
    """One point for shares; for errors in the label's unit 2 % of the label's spread."""
    if plan.model.task != "regression" or plan.metric == "r2":
        return 0.01
    from trimgate.plan import load_data

    spread = float(load_data(plan.config).labels("train").std())
    return float(f"{0.02 * spread:.2g}")


def _guess_label(columns: Mapping[str, NDArray[Any]], known: list[str] | None, data: str) -> str:
    """A column with a usual name, or the only one that may be it.

    Raises:
        InvalidInput: More than one column may be it.
    """
    names = [name for name in columns if known is None or name not in known]
    by_lower = {name.lower(): name for name in names}
    usual = next((by_lower[name] for name in _LABELS if name in by_lower), None)
    if usual is not None:
        return usual
    if known is None:
        return list(columns)[-1]
    # a column that is different in every row numbers the rows
    likely = [n for n in names if columns[n].dtype.kind == "f" or _repeats(columns[n])]
    if len(likely) == 1:
        return likely[0]
    raise InvalidInput(
        f"which column is the label? The model does not take {', '.join(names[:10])}"
        if names
        else "every column is a feature that the model takes, so none is the label",
        file=data,
        mend="name it with --label" if names else "add the label column",
    )


def _repeats(values: NDArray[Any]) -> bool:
    return len(set(values.tolist())) < len(values)


def _builder_arguments(pairs: list[str]) -> dict[str, Any]:
    """Names and values, the latter as YAML reads them."""
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.isidentifier():
            raise InvalidInput("is not NAME=VALUE", key="--builder-argument", value=pair)
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InvalidInput("is not YAML", key="--builder-argument", value=pair) from error
    return found


def _relative(path: str, folder: Path) -> str:
    full = Path(path).resolve()
    return str(full.relative_to(folder)) if full.is_relative_to(folder) else str(full)


def _scalar(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
