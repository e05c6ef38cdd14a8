"""Rows, the baseline, and the techniques."""

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimgate import __version__
from trimgate.data import digest
from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models.directory import MODEL_JSON, ModelInfo, read, writing
from trimgate.targets import Target
from trimgate.tasks._cache import StepCache
from trimgate.tasks._common import (
    REFUSED,
    check_unchanged,
    deadline_passed,
    effort_of,
    encode,
    guide,
    in_bytes,
    refusal,
    start,
)
from trimgate.techniques import Context

_log = logging.getLogger("trimgate.tasks")


def load_data(
    files: Sequence[str], out: Mapping[str, str], *, source_digest: str = "", **options: Any
) -> str:
    """Reads, divides and checks the rows, and writes the three splits.

    Args:
        files: One file to divide, or train, validation and test.
        out: Directory of each split, by name.
        source_digest: SHA-256 over the files, or empty.
        **options: As `trimgate.data.divide` takes them.

    Returns:
        A description for the report, encoded by `encode`.

    Raises:
        InvalidInput: Something about the rows is wrong, or the files changed.
    """
    from trimgate.data import divide
    from trimgate.data.splits import NAMES
    from trimgate.plan import files_digest

    start()
    paths = [Path(file) for file in files]
    check_unchanged(files_digest(paths) if source_digest else "", source_digest, paths[0])
    options["drop"] = tuple(options["drop"])
    options["keep"] = tuple(options["keep"])
    options["by"] = options["by"] or None
    options["seed"] = int(options["seed"])
    where = paths[0] if len(paths) == 1 else (paths[0], paths[1], paths[2])
    division = divide(where, **options)
    division.save(out)
    counts = {name: division.rows(name) for name in NAMES}
    for name, count in counts.items():
        _log.info("%s: %d rows", name, count)
    digests = division.digests()
    method = options["method"] if len(paths) == 1 else "given as three files"
    return encode(
        {
            "source": ", ".join(path.name for path in paths),
            "splits": [
                {"name": name, "rows": count, "digest": digests[name]}
                for name, count in counts.items()
            ],
            "method": f"{method} by {options['by']}" if options["by"] else method,
            "label": options["label"],
            "features": list(division.features),
            "notes": list(division.notes),
        }
    )


def import_model(
    file: str,
    train: str,
    out: str,
    *,
    name: str,
    builder: str,
    builder_arguments: Mapping[str, Any],
    allow_pickle: bool,
    task: str,
    scores: str,
    source_digest: str,
) -> ModelInfo:
    """Makes the baseline model directory; empty texts stand for "find out"."""
    from trimgate.data.stream import labels_of, take
    from trimgate.models import ModelSource, import_model
    from trimgate.plan import model_digest, sample_rows

    start()
    path = Path(file)
    source = ModelSource.model_validate(
        {
            "path": path,
            "name": name,
            "builder": builder or None,
            "builder_arguments": dict(builder_arguments),
            "allow_pickle": allow_pickle,
            "task": task or None,
            "scores": scores or None,
        }
    )
    check_unchanged(model_digest(source) if source_digest else "", source_digest, path)
    info = import_model(source, take(train, sample_rows(labels_of(train))), Path(out))
    _log.info("%s: %s, %s, %d features", name, info.framework, info.task, len(info.features))
    return info


def describe_model(directory: str) -> dict[str, Any]:
    """What the Kubeflow UI shows of a model artifact."""
    if refusal(directory):
        return {"refused": refusal(directory)}
    info = read(directory)
    return {
        "framework": info.framework,
        "runtime": info.runtime.name,
        "size_bytes": info.size,
        "digest": info.digest,
    }


def apply_technique(
    source: str,
    train: str,
    validation: str,
    out: str,
    step: Mapping[str, Any],
    *,
    metric: str,
    target: Mapping[str, Any],
    seed: int,
    recipes: Sequence[str] = (),
    screened: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Applies one recipe step; a step that does not apply leaves its reason.

    Args:
        source: The model directory to begin with.
        train: Rows that the technique may learn and calibrate from.
        validation: The validation rows; choices are made on one half of them, or on a quarter of a
            million of its rows.
        out: The new model directory.
        step: `technique` and its parameters.
        metric: The primary metric.
        target: The target profile.
        seed: Makes the result reproducible.
        recipes: The recipes that go through this step.
        screened: By recipe, why it does not go on after the trial on a sample (empty: it does).

    Returns:
        What the Kubeflow UI shows of the new model.
    """
    from trimgate.techniques import get, parse_step

    start()
    if refusal(source):
        shutil.copytree(source, out, dirs_exist_ok=True)
        return describe_model(out)
    config = parse_step(_whole_numbers(step))
    if screened and all(screened.get(name) for name in recipes):
        reasons = {name: f"not tried in full: {screened[name]}" for name in recipes}
        return _refuse(out, config.technique, reasons)
    if deadline_passed():
        return _refuse(
            out, config.technique, "the budget's time was up before this step", final=False
        )
    parent = read(source)
    goal = Target.model_validate(dict(target))
    reason = get(config.technique).refusal(parent, config, goal)
    if reason is None:
        effort = effort_of(train)
        data = Dataset.load(train), guide(validation)
        cache = StepCache(
            {
                "source": [parent.digest, parent.recipe],
                "step": config.model_dump(mode="json"),
                "rows": [digest(rows) for rows in data],
                "metric": metric,
                "target": goal.model_dump(mode="json"),
                "seed": int(seed),
                "effort": effort,
                "code": os.environ.get("TRIMGATE_CODE", __version__),
            }
        )
        if cache.take(Path(out)):
            _log.info("%s: done before on this model and these rows", config.title())
            return describe_model(out)
        context = Context(
            train=data[0],
            validation=data[1],
            metric=metric,
            target=goal,
            seed=int(seed),
            effort=effort,
            work=cache.work,
        )
        began = time.monotonic()
        try:
            info = get(config.technique).apply(Path(source), Path(out), config, context)
            info = _timed(Path(out), info, parent, time.monotonic() - began)
            cache.keep(Path(out))
            _log.info("%s: %s", config.title(), in_bytes(info.size))
        except NotApplicable as error:
            reason = error.problem
    if reason is not None:
        _log.info("%s does not apply: %s", config.title(), reason)
        return _refuse(out, config.technique, reason)
    return describe_model(out)


def _timed(directory: Path, info: ModelInfo, parent: ModelInfo, seconds: float) -> ModelInfo:
    """Notes how long the step took, after the times of the steps before it."""
    taken = [*parent.notes.get("seconds", []), round(seconds, 3)]
    info = info.model_copy(update={"notes": {**info.notes, "seconds": taken}})
    partial = directory / f"{MODEL_JSON}.partial"
    partial.write_text(info.model_dump_json(indent=2) + "\n")
    partial.replace(directory / MODEL_JSON)
    return info


def _refuse(
    out: str, technique: str, reason: str | Mapping[str, str], *, final: bool = True
) -> dict[str, Any]:
    """Leaves the reason (or one for each recipe) in place of a model.

    One that is not final is not kept for later runs.
    """
    with writing(out) as partial:
        (partial / REFUSED).write_text(
            json.dumps({"technique": technique, "reason": reason, "final": final})
        )
    return describe_model(out)


def _whole_numbers(value: Any) -> Any:
    """KFP hands integers inside dicts over as floats; this makes them integers again."""
    if isinstance(value, Mapping):
        return {key: _whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
