"""Each trap is planted in a pipeline that kfp itself compiles."""

import pytest
from kfp import compiler, dsl
from trimgate.pipelines._lint import check, problems

from trimgate._yaml import documents
from trimgate.errors import InvalidInput

NAMED = __import__("typing").NamedTuple("Two", [("first", str), ("second", str)])


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def one() -> str:
    return "x"


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def two() -> NAMED:
    return ("a", "b")


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def take(text: str, other: str = ""):
    print(text, other)


@dsl.component(base_image="python:3.11-slim")
def installs() -> str:
    return "x"


def found(tmp_path, pipeline):
    file = tmp_path / "p.yaml"
    compiler.Compiler().compile(pipeline, str(file))
    return list(problems(documents(file.read_text())[0]))


def test_clean(tmp_path):
    @dsl.pipeline(name="p")
    def clean():
        first = one()
        with dsl.If(first.output == "x"):
            take(text=first.output)
        with dsl.Else():
            take(text="no")

    assert found(tmp_path, clean) == []


def test_installs(tmp_path):
    @dsl.pipeline(name="p")
    def bad():
        installs()

    assert "installs packages" in found(tmp_path, bad)[0][1]
    with pytest.raises(InvalidInput, match="installs packages"):
        check(tmp_path / "p.yaml")


def test_loop_with_an_upstream_output(tmp_path):
    @dsl.pipeline(name="p")
    def bad():
        first = one()
        with dsl.ParallelFor(["a", "b"]) as item:
            take(text=item, other=first.output)

    assert "outside task's output" in found(tmp_path, bad)[0][1]


def test_nested_loops(tmp_path):
    @dsl.pipeline(name="p")
    def bad(first: list = ["a"], second: list = ["b"]):  # noqa: B006
        with dsl.ParallelFor(first) as x, dsl.ParallelFor(second) as y:
            take(text=x, other=y)

    assert any("loop inside a loop" in problem for _, problem, _ in found(tmp_path, bad))


def test_lone_if_on_a_named_output(tmp_path):
    @dsl.pipeline(name="p")
    def bad():
        with dsl.If(two().outputs["first"] == "a"):
            take(text="x")

    assert "lone If on the named output 'first'" in found(tmp_path, bad)[0][1]


def test_loop_under_an_exit_handler(tmp_path):
    @dsl.pipeline(name="p")
    def bad():
        with dsl.ExitHandler(take(text="end")), dsl.ParallelFor(["a"]) as item:
            take(text=item)

    assert any("exit handler" in problem for _, problem, _ in found(tmp_path, bad))
