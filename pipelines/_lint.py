"""Refuses compiled pipelines that Kubeflow, or its local runner, would run wrongly in silence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimgate._yaml import documents
from trimgate.errors import InvalidInput


def check(path: str | Path) -> None:
    """Checks a compiled pipeline.

    Raises:
        InvalidInput: The first thing found, with the task and the mend.
    """
    for task, problem, mend in problems(documents(Path(path).read_text())[0]):
        raise InvalidInput(problem, file=path, key=task, mend=mend)


def problems(spec: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Task, problem and mend of each trap in a pipeline spec.

    The traps, measured on kfp 2.17: inside a ParallelFor the local runner replaces an upstream
    task's output by the loop item; nested loops mix their items; a lone If on a named output is
    taken as false; a ParallelFor under an ExitHandler is broken on clusters
    (kubeflow/pipelines#12390); and `pip install` in a component hides what runs.
    """
    components = spec.get("components", {})
    for executor, value in spec.get("deploymentSpec", {}).get("executors", {}).items():
        container = value.get("container", {})
        if "pip install" in " ".join([*container.get("command", []), *container.get("args", [])]):
            yield (
                executor,
                "installs packages when it starts",
                "set install_kfp_package=False and put the packages into the image",
            )
    yield from _dag(spec.get("root", {}), components, "", loop=False, handled=False)


def _dag(
    component: dict[str, Any], components: dict[str, Any], where: str, *, loop: bool, handled: bool
) -> Iterator[tuple[str, str, str]]:
    tasks = component.get("dag", {}).get("tasks", {})
    handler = handled or any(
        t.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        for t in tasks.values()
    )
    for name, task in tasks.items():
        place = f"{where}{name}"
        iterates = "parameterIterator" in task or "artifactIterator" in task
        inputs = task.get("inputs", {}).get("parameters", {})
        if iterates and loop:
            yield place, "is a loop inside a loop", "put the inner loop into a pipeline of its own"
        if iterates and handler:
            yield place, "is a loop under an exit handler", "take one of the two out"
        if iterates and _outer_outputs(task):
            yield (
                place,
                "is a loop that uses an outside task's output besides its item",
                "put the loop into a pipeline of its own and pass every value in",
            )
        condition = task.get("triggerPolicy", {}).get("condition", "")
        if condition and "condition-branches" not in where:
            named = [
                value["taskOutputParameter"]["outputParameterKey"]
                for value in inputs.values()
                if "taskOutputParameter" in value
                and value["taskOutputParameter"]["outputParameterKey"] != "Output"
            ]
            if named:
                yield (
                    place,
                    f"is a lone If on the named output {named[0]!r}",
                    "return a single value from the task, or add an Else",
                )
        inner = components.get(task.get("componentRef", {}).get("name", ""), {})
        if "dag" in inner:
            yield from _dag(inner, components, f"{place}.", loop=loop or iterates, handled=handler)


def _outer_outputs(task: dict[str, Any]) -> bool:
    """Whether a loop takes another task's output for anything but its items."""
    iterator = task.get("parameterIterator") or task.get("artifactIterator") or {}
    items = iterator.get("items", {}).get("inputParameter") or iterator.get("items", {}).get(
        "inputArtifact"
    )
    inputs = task.get("inputs", {})
    return any(
        name != items and ("taskOutputParameter" in value or "taskOutputArtifact" in value)
        for group in ("parameters", "artifacts")
        for name, value in inputs.get(group, {}).items()
    )
