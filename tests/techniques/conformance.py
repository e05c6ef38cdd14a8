"""What every technique must hold, whatever it does.

Tests of a technique take the fixture `conformance` (tests/techniques/conftest.py), which is this
module, and call `conformance.check(...)` for what works and `conformance.check_refusal(...)` for
what must be refused.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from trimgate import models, techniques
from trimgate.errors import InvalidInput, NotApplicable
from trimgate.models import directory
from trimgate.techniques import Context, StepConfig, Technique


def contents(path: Path) -> dict[str, str]:
    """SHA-256 of every file below a directory, by relative name."""
    return {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(path.rglob("*"))
        if p.is_file()
    }


def check(
    technique: Technique[Any], config: StepConfig, source: Path, context: Context, tmp: Path
) -> directory.ModelInfo:
    """Applies a technique twice and checks all that must hold of the result.

    Args:
        technique: What is checked.
        config: Its parameters.
        source: A model directory that it works on.
        context: Data and target.
        tmp: An empty directory to write in.

    Returns:
        The record of the new model, which stands at `tmp / "first"`.
    """
    check_registered(technique, config)
    parent = directory.read(source, verify=True)
    before = contents(source)
    assert technique.refusal(parent, config, context.target) is None

    info = technique.apply(source, tmp / "first", config, context)
    again = technique.apply(source, tmp / "second", config, context)

    assert contents(source) == before, "the source was altered"
    assert directory.read(tmp / "first", verify=True) == info, "not what was returned"
    assert again.digest == info.digest, "a second run gives another model"
    assert info.files == again.files

    assert info.parent == parent.digest
    assert info.recipe[:-1] == parent.recipe
    assert info.recipe[-1]["technique"] == technique.name
    assert techniques.parse_step(info.recipe[-1]) == config, "the recipe does not rebuild the step"

    form = technique.form_given(config)
    form_is_there = info.has_onnx if form == "onnx" else info.framework != "onnx"
    assert form_is_there, f"it does not give the {form} form"
    if info.has_onnx:
        check_onnx(tmp / "first", info)

    assert (info.name, info.task, info.labels) == (parent.name, parent.task, parent.labels)
    check_takes_original_row(info, parent, context)

    occupied = tmp / "occupied"
    occupied.mkdir()
    (occupied / "keep.txt").write_text("mine")
    with pytest.raises(InvalidInput):
        technique.apply(source, occupied, config, context)
    assert [p.name for p in occupied.iterdir()] == ["keep.txt"]
    assert not list(tmp.glob(".*.partial")), "a temporary directory was left"
    return info


def check_registered(technique: Technique[Any], config: StepConfig) -> None:
    """It is found by its name, and its configuration survives a round trip."""
    assert technique.name in techniques.names()
    assert techniques.get(technique.name) is technique
    assert isinstance(config, technique.config)
    assert technique.config.model_json_schema()["additionalProperties"] is False
    assert techniques.parse_step(config.model_dump(mode="json")) == config
    with pytest.raises(InvalidInput, match="no_such_parameter"):
        techniques.parse_step({"technique": technique.name, "no_such_parameter": 1})


def check_onnx(path: Path, info: directory.ModelInfo) -> None:
    """The record describes the ONNX graph that lies beside it."""
    import onnx

    graph = onnx.load(path / directory.ONNX_FILE, load_external_data=False).graph
    initializers = {tensor.name for tensor in graph.initializer}
    declared = [value.name for value in graph.input if value.name not in initializers]
    assert sorted(declared) == sorted(spec.name for spec in info.inputs)
    assert {spec.name for spec in info.outputs} <= {value.name for value in graph.output}
    assert info.score_output in {value.name for value in graph.output}


def check_takes_original_row(
    info: directory.ModelInfo, parent: directory.ModelInfo, context: Context
) -> None:
    """The new model is fed from the same row as its parent."""
    assert info.features == parent.features
    used = {feature for spec in info.inputs for feature in spec.features}
    assert used <= set(info.features)
    # a tensor keeps its width, so that requests made for the parent still fit
    assert set(info.unused_features) <= set(info.features)
    rows = context.validation.take(slice(0, 3))
    tensors = models.build_inputs(info, rows.features)
    assert list(tensors) == [spec.name for spec in info.inputs]
    assert all(len(tensor) == 3 for tensor in tensors.values())


def check_refusal(
    technique: Technique[Any], config: StepConfig, source: Path, context: Context, tmp: Path
) -> str:
    """What does not apply is refused in words and leaves nothing behind.

    Returns:
        The words.
    """
    info = directory.read(source)
    before = contents(source)
    words = technique.refusal(info, config, context.target)
    with pytest.raises(NotApplicable) as caught:
        technique.apply(source, tmp / "refused", config, context)
    assert not (tmp / "refused").exists()
    assert not list(tmp.glob(".*.partial")), "a temporary directory was left"
    assert contents(source) == before, "the source was altered"
    message = words or str(caught.value)
    assert len(message.split()) >= 3, "the refusal says too little"
    assert "\n" not in message
    return message
