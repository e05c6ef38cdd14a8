"""Live progress on a terminal, plain timestamped lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from trimgate.ops.kfp_local import Event


@contextlib.contextmanager
def progress(out: Console, total: int) -> Iterator[Callable[[Event], None]]:
    """Gives the function that takes a run's events and shows them.

    Args:
        out: Where to show.
        total: Number of tasks at most.
    """
    if not out.is_terminal:
        yield lambda event: _line(out, event)
        return
    columns = (
        SpinnerColumn(),
        TextColumn(
            "[bold]{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")
        ),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task("starting", total=total)
        began = time.monotonic()

        def show(event: Event) -> None:
            nonlocal began
            if event.kind == "start":
                began = time.monotonic()
                bar.update(task, description=escape(event.task))
            elif event.kind == "done":
                bar.advance(task)
                took = time.monotonic() - began
                bar.print(f"[green]✓[/] {escape(event.task)} [dim]{took:.1f} s[/]", highlight=False)
            else:
                note = Text(f"  {event.text}", style="dim", no_wrap=True, overflow="ellipsis")
                bar.print(note)

        yield show


def _line(out: Console, event: Event) -> None:
    text = {"start": "...", "done": "done", "note": event.text}[event.kind]
    out.print(f"{stamped()} {event.task}: {text}", markup=False, highlight=False, soft_wrap=True)


def stamped(time: datetime | None = None) -> str:
    """A time of the day (now, when left out) as lines begin with it."""
    return f"{(time or datetime.now().astimezone()).astimezone():%H:%M:%S}"
