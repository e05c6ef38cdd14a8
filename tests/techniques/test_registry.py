"""The registry of techniques."""

import pytest

from trimgate import techniques
from trimgate.errors import InvalidInput
from trimgate.techniques.optimize_graph import TECHNIQUE, OptimizeGraphConfig


def test_every_technique_is_found_by_its_own_name():
    assert "optimize_graph" in techniques.names()
    assert techniques.names() == sorted(techniques.names())
    for name in techniques.names():
        technique = techniques.get(name)
        assert technique.name == name
        assert technique.config.model_fields["technique"].default == name
        assert (technique.__class__.__doc__ or "").strip()


def test_get_gives_the_instance():
    assert techniques.get("optimize_graph") is TECHNIQUE


def test_unknown_technique_names_those_that_exist():
    with pytest.raises(InvalidInput, match=r"technique = 'shrink'.*optimize_graph"):
        techniques.get("shrink")


def test_parse_step_gives_the_typed_configuration():
    step = techniques.parse_step({"technique": "optimize_graph", "level": "extended"})
    assert step == OptimizeGraphConfig(level="extended")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({}, "needs the name of a technique"),
        ({"technique": 3}, "technique = 3"),
        ({"technique": "optimize_graph", "levle": "basic"}, "optimize_graph.levle.*takes.*level"),
        ({"technique": "optimize_graph", "level": "most"}, "optimize_graph.level = 'most'"),
        ({"technique": "optimize_graph", "opset": 3}, "optimize_graph.opset = 3"),
    ],
)
def test_wrong_steps_are_refused_in_one_line(step: dict[str, object], message: str):
    with pytest.raises(InvalidInput, match=message) as caught:
        techniques.parse_step(step)
    assert "\n" not in str(caught.value)
