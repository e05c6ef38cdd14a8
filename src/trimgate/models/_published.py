"""A model directory of trimgate's own as what a run begins with: a released model, tried again."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput
from trimgate.models import directory, safety
from trimgate.models._inputs import sample_rows
from trimgate.models._match import match_features, sample_labels, some
from trimgate.models._native import predict_native
from trimgate.models._trainable import FILES, load_trainable
from trimgate.models.directory import ModelInfo
from trimgate.models.source import ModelSource

_log = logging.getLogger("trimgate.models")
_ROWS = 200


def is_published(path: Path) -> bool:
    """Whether it is a model directory."""
    return (path / directory.MODEL_JSON).is_file()


def import_published(source: ModelSource, sample: Dataset, out: Path) -> ModelInfo:
    """Makes the baseline model directory from another: its forms as they are, its story left out.

    Args:
        source: The directory and what the user says about it.
        sample: Rows that it shall work on.
        out: Where the directory shall stand.

    Returns:
        The record that was written; its digest is that of the source, if the name is.

    Raises:
        InvalidInput: A file was altered or is unsafe, or the model does not fit the data.
    """
    from trimgate.models._import import check_scores, run_checked
    from trimgate.models.export import run_onnx

    path = source.path
    info = directory.read(path, verify=True)
    safety.check(path)
    if source.task not in (None, info.task):
        raise InvalidInput(
            f"the model is for {info.task}", key="model.task", value=source.task,
            mend="leave it out",
        )  # fmt: skip
    if info.features:
        match_features(sample, list(info.features), None, source)
    unknown = [label for label in sample_labels(sample) if label not in info.labels]
    if info.labels and unknown:
        raise InvalidInput(
            f"the model does not know the classes {some(unknown)} of the data", file=path,
            mend="give the label column that the model was trained on",
        )  # fmt: skip
    if info.framework != "onnx" and FILES[info.framework] not in info.files:
        info = info.model_copy(update={"framework": "onnx"})

    def predict(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        if info.has_onnx:
            return run_onnx(path / directory.ONNX_FILE, info, inputs)
        return np.asarray(predict_native(load_trainable(path, info), info, inputs))

    check_scores(run_checked(info, sample_rows(sample, _ROWS), predict, source), info, source)
    changes: dict[str, Any] = {"parent": None, "recipe": (), "notes": {}}
    changes["name"] = source.name or info.name
    with directory.writing(out) as partial:
        for name in info.files:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path / name, partial / name)
        written = directory.seal(partial, info.model_copy(update=changes))
    _log.info("took %s as %s", path, written.digest)
    return written
