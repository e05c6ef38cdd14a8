"""What every runtime must hold. Tests take the fixture `conformance`, which is this module."""

from typing import Any

import numpy as np
import pytest

from trimgate import runtimes
from trimgate.errors import MissingExtra, NotApplicable
from trimgate.models.directory import RuntimeChoice
from trimgate.runtimes import _support


def check(case: Any, *, tolerance: float = 1e-5, threads: int = 1) -> None:
    """Loads a case and checks all that must hold of the session's answers.

    Args:
        case: Its record names the runtime; `inputs` hold 1,000 rows.
        tolerance: Largest difference from the framework's own scores, as a share of the largest.
        threads: Given to the session.
    """
    check_registered(case.info.runtime.name)
    rows = len(case.expected)
    assert rows == 1000
    before = {name: values.copy() for name, values in case.inputs.items()}
    session = runtimes.load(case.directory, threads=threads)
    assert session.info == case.info

    scores = session.predict(case.inputs)
    assert isinstance(scores, np.ndarray)
    assert scores.dtype in (np.float32, np.float64)
    if case.info.task == "regression":
        assert scores.shape == (rows,)
    else:
        assert scores.shape == (rows, len(case.info.labels))
        np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-3)
    assert np.isfinite(scores).all()

    scale = np.abs(case.expected).max()
    np.testing.assert_allclose(scores, case.expected, rtol=0, atol=tolerance * scale)

    for size in (1, 7):
        part = session.predict({n: v[:size] for n, v in case.inputs.items()})
        assert part.shape == scores[:size].shape
        np.testing.assert_allclose(part, scores[:size], rtol=0, atol=tolerance * scale)
    np.testing.assert_array_equal(session.predict(case.inputs), scores)
    for name, values in before.items():
        np.testing.assert_array_equal(case.inputs[name], values)

    kept = scores.copy()
    session.predict({n: v[::-1].copy() for n, v in case.inputs.items()})
    np.testing.assert_array_equal(scores, kept, err_msg="a later call altered earlier scores")

    frozen = {name: values[:7].copy() for name, values in case.inputs.items()}
    for values in frozen.values():
        values.flags.writeable = False
    np.testing.assert_allclose(session.predict(frozen), scores[:7], rtol=0, atol=tolerance * scale)
    session.close()
    session.close()

    again = runtimes.load(case.directory, threads=threads)
    np.testing.assert_array_equal(again.predict(case.inputs), scores)
    again.close()


def check_registered(name: str) -> None:
    """It is found by its name and says whether this machine can run it."""
    assert name in runtimes.names()
    assert runtimes.get(name).name == name
    assert runtimes.available()[name] is None


def check_refusal(case: Any) -> str:
    """What the runtime cannot run is refused in words, by `refusal` or while loading.

    Returns:
        The words.
    """
    with pytest.raises(NotApplicable) as caught:
        runtimes.load(case.directory)
    message = str(caught.value)
    assert len(message.split()) >= 4
    assert "\n" not in message
    return message


def check_options(case: Any) -> None:
    """An option that there is not, and a wrong type, are refused by name."""
    runtime = runtimes.get(case.info.runtime.name)
    choice = RuntimeChoice(name=case.info.runtime.name, options={"no_such_option": 1})
    reason = runtime.refusal(case.info.model_copy(update={"runtime": choice}))
    assert reason is not None
    assert "no_such_option" in reason


def check_missing(case: Any, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package, it says which extra to install."""
    real = _support._installed
    monkeypatch.setattr(_support, "_installed", lambda name: name != package and real(name))
    with pytest.raises(MissingExtra, match=extra):
        runtimes.load(case.directory)
