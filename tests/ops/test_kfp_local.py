"""The traps of kfp.local, and that the wrapper keeps its caller out of them."""

import builtins
import logging

import pytest
from kfp import dsl

from trimgate.errors import InvalidInput
from trimgate.ops.kfp_local import TaskFailed, code_digest, run_local


@dsl.component(base_image="trimgate/python-core:0.1.0", install_kfp_package=False)
def count(folder: str, how: str) -> str:
    """Leaves a trace in a folder each time that it is carried out."""
    import logging
    from pathlib import Path

    from trimgate import tasks
    from trimgate.errors import InvalidInput

    traces = Path(folder)
    (traces / f"{how}-{len(list(traces.iterdir()))}").touch()
    tasks.start()
    logging.getLogger("trimgate.test").info("counting %s", how)
    if how == "bad":
        raise InvalidInput("is bad", key="how", value=how)
    if how == "crash":
        raise RuntimeError("no such luck")
    return how


def pipeline(code=""):
    @dsl.pipeline(name="p")
    def two(folder: str, how: str) -> str:
        first = count(folder=folder, how="ok").set_display_name("first step")
        second = count(folder=folder, how=how).set_display_name("second step")
        second.after(first)
        for task in (first, second):
            if code:
                task.set_env_variable("TRIMGATE_CODE", code)
        return second.output

    return two


@pytest.fixture
def run(tmp_path):
    (tmp_path / "traces").mkdir()
    events = []

    def call(how="ok2", code="", cache=True):
        result = run_local(
            pipeline(code),
            {"folder": str(tmp_path / "traces"), "how": how},
            root=tmp_path / "work",
            log=tmp_path / "log.txt",
            on_event=events.append,
            cache=cache,
        )
        return result, len(list((tmp_path / "traces").iterdir()))

    call.events = events
    call.folder = tmp_path
    return call


def test_events_and_outputs(run):
    result, traces = run()
    assert list(result.outputs.values()) == ["ok2"]
    assert (result.executed, result.reused, traces) == (2, 0, 2)
    told = [(e.kind, e.task, e.text) for e in run.events]
    assert told == [
        ("start", "first step", ""),
        ("note", "first step", "counting ok"),
        ("done", "first step", ""),
        ("start", "second step", ""),
        ("note", "second step", "counting ok2"),
        ("done", "second step", ""),
    ]
    assert "counting ok2" in (run.folder / "log.txt").read_text()


def test_nothing_is_printed_and_the_callers_logging_stays(run, capsys):
    handlers, level, printing = logging.getLogger().handlers[:], logging.getLogger().level, print
    run()
    assert capsys.readouterr().out == ""
    assert logging.getLogger().handlers == handlers
    assert logging.getLogger().level == level
    assert builtins.print is printing


def test_folders_of_the_user_are_left_alone(run, monkeypatch):
    monkeypatch.chdir(run.folder)
    (run.folder / "mine.txt").write_text("keep")
    (run.folder / "work").mkdir()
    (run.folder / "work" / "mine.txt").write_text("keep")
    run()
    assert (run.folder / "mine.txt").read_text() == "keep"
    assert (run.folder / "work" / "mine.txt").read_text() == "keep"


def test_a_second_run_reuses_unless_code_changed_or_told(run):
    assert run(code="a")[1] == 2
    result, traces = run(code="a")
    assert (result.executed, result.reused, traces) == (0, 2, 2)
    assert run(code="b")[1] == 4
    assert run(code="b", cache=False)[1] == 6


def test_what_was_done_before_a_failure_is_reused(run):
    with pytest.raises(TaskFailed) as caught:
        run("crash")
    assert caught.value.task == "second step"
    assert "no such luck" in caught.value.tail
    result, traces = run("ok2")
    assert (result.executed, traces) == (1, 3)


def test_bad_input_found_by_a_task_is_bad_input(run):
    with pytest.raises(InvalidInput, match="how = 'bad': is bad"):
        run("bad")


def test_the_code_digest_sees_an_edit(monkeypatch, tmp_path):
    import trimgate

    before = code_digest()
    assert before == code_digest()
    (tmp_path / "new.py").write_text("x = 1\n")
    monkeypatch.setattr(trimgate, "__path__", [*trimgate.__path__, str(tmp_path)])
    edited = code_digest()
    (tmp_path / "new.py").write_text("x = 2\n")
    assert len({before, edited, code_digest()}) == 3
