"""ONNX files that others made: what goes in, what comes out, and what it means."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import directory
from trimgate.models._foreign_graph import (
    class_labels,
    family_of,
    find_scores,
    free_batch,
    match_inputs,
    settle,
)
from trimgate.models._inputs import sample_rows
from trimgate.models._match import sample_labels, task_of
from trimgate.models._torch import guess_kind
from trimgate.models.directory import (
    ONNX_FILE,
    ModelInfo,
    RuntimeChoice,
    ScoreKind,
    Task,
    TensorSpec,
)
from trimgate.models.source import ModelSource

Array = NDArray[Any]

_ROWS = 200
_PROBABILITIES = {"Softmax", "Sigmoid", "TreeEnsembleClassifier", "Normalizer", "ZipMap"}


def import_onnx(proto: Any, source: ModelSource, sample: Dataset, out: Path) -> ModelInfo:
    """Makes the baseline model directory from a foreign ONNX model.

    Args:
        proto: The checked `onnx.ModelProto`.
        source: The file and what the user says about it.
        sample: Rows that it shall work on.
        out: Where the directory shall stand.

    Raises:
        InvalidInput: Its inputs do not fit the data, its output is not clear, its batch is fixed,
            or it fails on the data.
    """
    from trimgate.models._import import check_scores, probe, run_checked
    from trimgate.models.export import open_session, run_session

    labels = class_labels(proto.graph)
    settle(proto)
    inputs = match_inputs(proto.graph, sample, source.path)
    output, operator = find_scores(proto, source, _classes(labels, source, sample))
    fixed = free_batch(proto)
    rows = sample_rows(sample, _ROWS)
    task = _task(source, sample, labels, proto, operator)
    columns, dtype = _score_type(proto, output)
    info = ModelInfo(
        name=source.name or source.path.stem,
        task=task,
        family=family_of(proto.graph),
        framework="onnx",
        inputs=inputs,
        outputs=(TensorSpec(name=output, dtype=dtype, shape=columns),),
        score_output=output,
        score_kind="value" if task == "regression" else "probability",
        labels=() if task == "regression" else _labels(labels, sample, source),
        features=tuple(sample.features),
        runtime=RuntimeChoice(name="onnxruntime"),
    )
    content = proto.SerializeToString(deterministic=True)
    try:
        session = open_session(content)
    except NotApplicable as error:
        raise InvalidInput(error.problem, file=source.path) from error

    def predict(tensors: Mapping[str, Array]) -> Array:
        return run_session(session, output, tensors)

    info = info.model_copy(update={"inputs": probe(info, rows, predict)})
    raw = _check_batches(info, rows, predict, fixed, source, run_checked)
    info = info.model_copy(update={"score_kind": _kind(info, raw, operator, source)})
    check_scores(raw, info, source)
    with directory.writing(out) as partial:
        (partial / ONNX_FILE).write_bytes(content)
        return directory.seal(partial, info)


def _classes(labels: tuple[Any, ...], source: ModelSource, sample: Dataset) -> int:
    """How many columns the scores should have, to tell outputs apart."""
    if source.task == "regression" or (source.task is None and task_of(sample) == "regression"):
        return 1
    return len(labels) or len(sample_labels(sample))


def _task(
    source: ModelSource, sample: Dataset, labels: tuple[Any, ...], proto: Any, operator: str
) -> Task:
    if source.task is not None:
        return source.task
    if labels:
        return "binary" if len(labels) == 2 else "multiclass"
    if operator in ("TreeEnsembleRegressor", "LinearRegressor", "SVMRegressor"):
        ends_raw = len({node.op_type for node in proto.graph.node} & {"Sigmoid", "Softmax"}) == 0
        if ends_raw and sample.labels.dtype.kind in "fiu" and len(sample_labels(sample)) > 2:
            return "regression"
    return task_of(sample)


def _labels(labels: tuple[Any, ...], sample: Dataset, source: ModelSource) -> tuple[Any, ...]:
    found = sample_labels(sample)
    if not labels:
        return found
    strange = [label for label in found if label not in labels]
    if not strange:
        return labels
    if labels == tuple(range(len(labels))) and len(found) == len(labels):
        return found  # the graph numbers its classes
    raise InvalidInput(
        f"the data has labels that the model does not know "
        f"({', '.join(map(str, strange[:10]))}); it knows {', '.join(map(str, labels[:10]))}",
        file=source.path,
        mend="give the label column that the model was trained on",
    )


def _score_type(proto: Any, output: str) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of the score output."""
    from onnx import TensorProto, helper

    tensor = next(o for o in proto.graph.output if o.name == output).type.tensor_type
    dims = tensor.shape.dim
    shape = (-1, *(d.dim_value if d.dim_value > 0 else -1 for d in dims[1:]))
    if tensor.elem_type == TensorProto.STRING:
        return shape, "string"
    return shape, str(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


def _kind(info: ModelInfo, raw: Array, operator: str, source: ModelSource) -> ScoreKind:
    if info.task == "regression":
        return "value"
    if source.scores is not None:
        return source.scores
    if raw.dtype.kind not in "f":
        return "label"
    if operator in _PROBABILITIES and raw.min() >= 0 and raw.max() <= 1 + 1e-5:
        return "probability"
    return guess_kind(raw)


def _check_batches(
    info: ModelInfo, rows: Dataset, predict: Any, fixed: int | None, source: ModelSource, run: Any
) -> Array:
    """Predicts all rows at once and some alone: a row's score must not hang on its company."""
    problem = (
        f"takes exactly {fixed} rows at once" if fixed else "does not work with any number of rows"
    )
    mend = "export it with a dynamic batch dimension"
    one_by_one = []
    few = min(len(rows), 3)
    try:
        raw: Array = run(info, rows, predict, source)
        for position in range(few):
            part = rows.take(slice(position, position + 1))
            one_by_one.append(run(info, part, predict, source))
    except InvalidInput as error:
        if fixed:
            raise InvalidInput(problem, file=source.path, mend=mend) from error
        raise
    if len(raw) != len(rows):
        raise InvalidInput(problem, file=source.path, mend=mend)
    single = np.concatenate(one_by_one)
    same = (
        np.allclose(single, raw[:few], rtol=1e-3, atol=1e-4)
        if raw.dtype.kind == "f"
        else bool((single == raw[:few]).all())
    )
    if not same:
        raise InvalidInput(
            "gives a row another score when it comes with other rows", file=source.path, mend=mend
        )
    return raw
