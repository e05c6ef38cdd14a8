"""What is said of a model that has no answer to golden inputs."""

import pytest

from trimgate.errors import InvalidInput
from trimgate.serving.golden import GoldenInputs


def test_a_model_without_an_answer_is_the_model_s_fault(models, rows):
    GoldenInputs(models["stable"], rows)
    with pytest.raises(InvalidInput, match="gives no answer to the golden inputs") as raised:
        GoldenInputs(models["failing"], rows)
    assert "\n" not in str(raised.value)
