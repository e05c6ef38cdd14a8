"""`trimgate rollout`: start, watch, status, serve."""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from trimgate.cli import EXIT_PASSED, EXIT_REJECTED
from trimgate.cli._common import console, need
from trimgate.cli._progress import stamped
from trimgate.config import Config, load_config
from trimgate.errors import InvalidInput
from trimgate.ops.git import ReleaseLog

if TYPE_CHECKING:
    from trimgate.data import Dataset
    from trimgate.ops.rollout.platforms import Platform
    from trimgate.ops.rollout.watch import Event

_STYLE = {"advance": "green", "hold": "dim", "roll back": "bold red"}
_MARK = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


def run(arguments: argparse.Namespace) -> int:
    """Does what the subcommand says."""
    need("kserve", "serving")
    return {"start": _start, "watch": _watch, "status": _status, "serve": _serve}[arguments.action](
        arguments
    )


def state_files(store: str | Path, name: str) -> list[Path]:
    """The files that record the local platforms of a model."""
    return sorted((Path(store) / "servers").glob(f"{name}.*.json"))


def _start(arguments: argparse.Namespace) -> int:
    """Commits the canary's first step, and watches it."""
    from trimgate.tasks import begin_rollout

    config = load_config(arguments.config)
    begun = begin_rollout(
        config.promote,
        config.rollout,
        name=arguments.name,
        environment=arguments.environment,
        source=arguments.source,
    )
    out = console()
    if begun.branch is not None and begun.revision is not None:
        where = begun.pull_request or f"the branch {begun.branch}"
        out.print(f"proposed by {where}; merge it, then `trimgate rollout watch`", soft_wrap=True)
        return EXIT_PASSED
    if begun.revision is not None and not arguments.json:
        out.print(
            f"{stamped()} canary at {begun.release.traffic_percent} % ({begun.revision[:10]})"
        )
    return EXIT_PASSED if arguments.no_watch else _watch(arguments)


def _watch(arguments: argparse.Namespace) -> int:
    """Takes the rollout to its end, or each one, one after the other."""
    from trimgate.ops.rollout.metrics import Metrics
    from trimgate.ops.rollout.watch import follow, watch

    address = _address(arguments.metrics) if arguments.metrics else None
    metrics = Metrics(arguments.name, arguments.environment)

    out = console()
    last: list[str] = []

    def say(event: "Event") -> None:
        metrics(event)
        if arguments.json:
            print(json.dumps(_as_json(event)), flush=True)
        else:
            _line(out, event, last)

    with (
        metrics.served(*address) if address else contextlib.nullcontext(),
        _opened(arguments) as (config, log, platform),
    ):
        if arguments.forever:
            follow(log, platform, config.rollout, say=say)
        ended = watch(log, platform, config.rollout, say=say)
    return EXIT_PASSED if ended.state == "promoted" else EXIT_REJECTED


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise InvalidInput(
            "must be HOST:PORT", key="--metrics", value=text, mend="write 127.0.0.1:9464"
        )
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def _opened(
    arguments: argparse.Namespace,
) -> Iterator[tuple[Config, ReleaseLog, "Platform"]]:
    """The config, the release file, and what serves it."""
    from trimgate.tasks import platform_of, releases_of

    config = load_config(arguments.config)
    with (
        releases_of(config.promote).open() as repository,
        platform_of(
            config.promote,
            config.rollout,
            name=arguments.name,
            environment=arguments.environment,
            rows=_rows(arguments.rows, config),
            threads=config.target.threads,
            url=arguments.url,
        ) as platform,
    ):
        yield config, ReleaseLog(repository, arguments.name, arguments.environment), platform


def _rows(given: str | None, config: Config) -> "Dataset | None":
    """Rows for the golden inputs: a data set's folder, or a file as the config's `data` has it."""
    from trimgate.data import as_dataset, read_columns
    from trimgate.data.stream import spread

    if given is None:
        return None
    file = Path(given)
    if file.is_dir():
        return spread(file)
    return as_dataset(read_columns(file), config.data.label, config.data.drop, file)


def _line(out: Console, event: "Event", last: list[str]) -> None:
    """One line of what happened; a look that says the same as the one before is left out."""
    if event.kind == "look" and event.decision is not None:
        told = f"{event.share} {event.decision.action} " + " ".join(
            f"{check.rule}={check.outcome}" for check in event.decision.checks
        )
        if event.decision.action == "hold" and last == [told]:
            return
        last[:] = [told]
        style = _STYLE[event.decision.action]
    else:
        style = {"commit": "bold", "problem": "yellow"}.get(event.kind, "")
        if event.kind == "end":
            style = "bold green" if event.text.startswith("promoted") else "bold red"
    text = event.text
    if event.kind == "end" and last:  # its reason was told with the look that led to it
        text = text.partition(":")[0]
    out.print(Text(f"{stamped(event.time)} {text}", style=style), soft_wrap=True)


def _status(arguments: argparse.Namespace) -> int:
    """One look, without doing anything."""
    from trimgate.ops.rollout.position import position
    from trimgate.ops.rollout.watch import look

    with _opened(arguments) as (config, log, platform):
        place = position(log.entries())
        decision = None
        if place is not None and place.state in ("running", "promoted"):
            decision = look(platform, config.rollout, place, datetime.now(UTC))
    state = place.state if place else "idle"
    share = place.share if place else 0
    if arguments.json:
        told = {
            "state": state,
            "share": share,
            "model": place.model.model_dump() if place and place.model else None,
            "since": place.since.isoformat() if place else None,
            "decision": decision.model_dump() if decision else None,
        }
        print(json.dumps(told, indent=2))
        return EXIT_PASSED
    out = console()
    digest = f" {place.model.digest[:19]}" if place and place.model else ""
    since = f", since {stamped(place.since)}" if place else ""
    out.print(Text(f"{state}{digest}, {share} %{since}", style="bold"))
    for check in decision.checks if decision else ():
        out.print(Text(f"  {_MARK[check.outcome]} {check.rule}: {check.reason}"), soft_wrap=True)
    if decision is not None:
        out.print(Text(f"next: {decision.action}: {decision.reason}"), soft_wrap=True)
    elif place is not None and place.step is not None:
        out.print(Text(place.step.message.strip()), soft_wrap=True)
    return EXIT_PASSED


def _serve(arguments: argparse.Namespace) -> int:
    """Serves what the release file says on this machine, until it is stopped."""
    from trimgate.serving import check_port, read_state, stop_recorded
    from trimgate.serving.process import launch, record
    from trimgate.tasks import local_platform_state, releases_of, trust_of

    config = load_config(arguments.config)
    state_file = local_platform_state(config.promote, arguments.name, arguments.environment)
    check_port(arguments.port, grpc_port=0, state_file=state_file)
    if arguments.detach:
        stop_recorded(state_file)
        command = [sys.executable, "-m", "trimgate", *(a for a in sys.argv[1:] if a != "--detach")]
        log = state_file.with_suffix(".log")
        server = launch([*command, "--announce"], log=log, detach=True, state_file=state_file)
        _say(f"{arguments.name} answers at {server.url}, until `trimgate stop` (log: {log})")
        return EXIT_PASSED
    if (running := read_state(state_file)) is not None and not arguments.announce:
        raise InvalidInput(
            f"{arguments.name} is served already at {running.url}", mend="`trimgate stop` ends it"
        )
    import logging

    from trimgate.ops.rollout.local import LocalPlatform
    from trimgate.ops.rollout.platforms import ModelFolders
    from trimgate.serving import Address
    from trimgate.serving._ports import bind

    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )

    def ready(address: Address) -> None:
        if arguments.announce:
            _say(address.model_dump_json())
            return
        line = Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]
        record(address, [part.decode() for part in line], state_file)
        _say(f"{arguments.name} answers at {address.url}")

    with (
        bind("127.0.0.1", arguments.port, "--port") as sock,
        tempfile.TemporaryDirectory(prefix="trimgate-models-") as cache,
        releases_of(config.promote).open() as repository,
    ):
        LocalPlatform(
            ReleaseLog(repository, arguments.name, arguments.environment),
            ModelFolders(Path(cache), config.promote.mounts),
            trust=trust_of(config.promote),
            name=arguments.name,
            environment=arguments.environment,
            threads=config.target.threads,
            mirror=arguments.mirror,
            interval=arguments.interval,
        ).run(sock, ready, stop_on_eof=arguments.stop_on_eof)
    return EXIT_PASSED


def _as_json(event: "Event") -> dict[str, Any]:
    return {
        "time": event.time.isoformat(timespec="milliseconds"),
        "kind": event.kind,
        "text": event.text,
        "share": event.share,
        "revision": event.revision,
        "decision": event.decision.model_dump() if event.decision else None,
    }


def _say(line: str) -> None:
    print(line, flush=True)
