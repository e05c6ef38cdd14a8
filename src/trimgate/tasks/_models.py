"""Rows, the baseline, and the techniques."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimgate.data.dataset import Dataset
from trimgate.errors import NotApplicable
from trimgate.models.directory import ModelInfo, read, writing
from trimgate.targets import Target
from trimgate.tasks._common import REFUSED, check_unchanged, encode, in_bytes, refusal, start

_log = logging.getLogger("trimgate.tasks")


def load_data(
    files: Sequence[str], out: Mapping[str, str], *, source_digest: str = "", **options: Any
) -> str:
    """Reads, divides and checks the rows, and writes the three splits.

    Args:
        files: One file to divide, or train, validation and test.
        out: Directory of each split, by name.
        source_digest: SHA-256 over the files, or empty.
        **options: As `trimgate.data.load_splits` takes them.

    Returns:
        A description for the report, encoded by `encode`.

    Raises:
        InvalidInput: Something about the rows is wrong, or the files changed.
    """
    from trimgate.data import load_splits
    from trimgate.plan import files_digest

    start()
    paths = [Path(file) for file in files]
    check_unchanged(files_digest(paths) if source_digest else "", source_digest, paths[0])
    options["drop"] = tuple(options["drop"])
    options["by"] = options["by"] or None
    options["seed"] = int(options["seed"])
    where = paths[0] if len(paths) == 1 else (paths[0], paths[1], paths[2])
    splits = load_splits(where, **options)
    for name, data in splits.named().items():
        data.save(out[name])
        _log.info("%s: %d rows", name, len(data))
    digests = splits.digests()
    method = options["method"] if len(paths) == 1 else "given as three files"
    return encode(
        {
            "source": ", ".join(path.name for path in paths),
            "splits": [
                {"name": name, "rows": len(data), "digest": digests[name]}
                for name, data in splits.named().items()
            ],
            "method": f"{method} by {options['by']}" if options["by"] else method,
            "label": options["label"],
            "features": list(splits.train.features),
            "notes": list(splits.notes),
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
    from trimgate.models import ModelSource, import_model
    from trimgate.plan import model_digest, sample

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
    info = import_model(source, sample(Dataset.load(train)), Path(out))
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
) -> dict[str, Any]:
    """Applies one recipe step; a step that does not apply leaves its reason.

    Args:
        source: The model directory to begin with.
        train: Rows that the technique may learn and calibrate from.
        validation: The validation rows; choices are made on one half of them.
        out: The new model directory.
        step: `technique` and its parameters.
        metric: The primary metric.
        target: The target profile.
        seed: Makes the result reproducible.

    Returns:
        What the Kubeflow UI shows of the new model.
    """
    from trimgate.data import halves
    from trimgate.techniques import Context, get, parse_step

    start()
    if refusal(source):
        shutil.copytree(source, out, dirs_exist_ok=True)
        return describe_model(out)
    config = parse_step(_whole_numbers(step))
    technique = get(config.technique)
    context = Context(
        train=Dataset.load(train),
        validation=halves(Dataset.load(validation))[0],
        metric=metric,
        target=Target.model_validate(dict(target)),
        seed=int(seed),
    )
    reason = technique.refusal(read(source), config, context.target)
    if reason is None:
        try:
            info = technique.apply(Path(source), Path(out), config, context)
            _log.info("%s: %s", config.title(), in_bytes(info.size))
        except NotApplicable as error:
            reason = error.problem
    if reason is not None:
        _log.info("%s does not apply: %s", config.title(), reason)
        with writing(out) as partial:
            (partial / REFUSED).write_text(
                json.dumps({"technique": config.technique, "reason": reason})
            )
    return describe_model(out)


def _whole_numbers(value: Any) -> Any:
    """KFP hands integers inside dicts over as floats; this makes them integers again."""
    if isinstance(value, Mapping):
        return {key: _whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
