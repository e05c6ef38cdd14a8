"""`trimgate run`."""

import argparse
import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from trimgate.cli import EXIT_PASSED, EXIT_REJECTED
from trimgate.cli._common import check_writable, console, need, plan_from
from trimgate.cli._containers import check_containers, containers_for
from trimgate.cli._progress import progress
from trimgate.cli._show import show_result
from trimgate.config import Config, is_remote, load_config
from trimgate.errors import InvalidInput
from trimgate.ops.promotion import check_releases
from trimgate.ops.publish import check_settings
from trimgate.plan import Plan
from trimgate.runtimes import missing_device
from trimgate.tasks import check_deploy, releases_of, store_of, trust_of

if TYPE_CHECKING:
    from trimgate.ops.kfp_local import LocalRun


def run(arguments: argparse.Namespace) -> int:
    """Checks the input, runs the pipeline, shows the result, and serves it when asked."""
    from trimgate.report import CardInput

    out = console()
    began = time.monotonic()
    need("kserve", "serving")
    config = load_config(arguments.config)
    if config.mlflow.enabled:
        need("mlflow", "mlflow")
    root = Path(arguments.output or Path(arguments.config).resolve().parent / "trimgate-runs")
    _check_places(config, root, arguments)
    with (
        out.status("checking model, rows and recipes")
        if out.is_terminal
        else contextlib.nullcontext()
    ):
        plan = plan_from(arguments.config, root)
        if arguments.containers:
            check_containers(plan, arguments.config)
    count = len(plan.recipes)
    out.print(
        f"{config.name}: {plan.model.framework} {plan.model.task} model, metric {plan.metric}, "
        f"{count} {'recipe' if count == 1 else 'recipes'}: "
        + ", ".join(recipe.name for recipe in plan.recipes),
        highlight=False,
        markup=False,
        soft_wrap=not out.is_terminal,
    )
    name = _new_folder(root, config.name)
    folder = root / name
    try:
        result = _run(plan, arguments, root, name, out)
    except BaseException as error:
        # A log is worth keeping; what is wrong with the input is said in one line.
        if isinstance(error, InvalidInput) or not (folder / "log.txt").is_file():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    for file in Path(result.outputs["files"]).iterdir():
        shutil.copyfile(file, folder / file.name)
    shutil.copyfile(arguments.config, folder / "optimize.yaml")
    card = CardInput.model_validate_json((folder / "card.json").read_bytes())
    show_result(card, folder / "card.html", out)
    _say(out, "log", str(folder / "log.txt"))
    if plan.config.mlflow.enabled:
        uri = plan.config.mlflow.tracking_uri
        local = uri.startswith("sqlite:")
        _say(out, "mlflow", f"mlflow ui --backend-store-uri {uri}" if local else uri)
    if card.status == "pass":
        model = _released(plan.config, card.winner.digest if card.winner else "", out)
        if arguments.serve and model is not None:
            _serve(plan.config, model, arguments.port, Path(result.outputs["rows"]), out)
    elif arguments.serve:
        _say(out, "served", "nothing: only a model that passed the gate is")
    reused = f", {result.reused} of them from earlier runs" if result.reused else ""
    total = result.executed + result.reused
    _say(out, "took", f"{time.monotonic() - began:.0f} s, {total} tasks{reused}")
    if card.status in ("fail", "inconclusive") and arguments.fail_on_reject:
        return EXIT_REJECTED
    return EXIT_PASSED


def _check_places(config: Config, root: Path, arguments: argparse.Namespace) -> None:
    """Whether the run could write where it will, before any work is done.

    Raises:
        InvalidInput: A folder cannot be written, or the port is in use.
    """
    check_writable(root, "--output")
    file = arguments.config
    if reason := missing_device(config.target.device):
        raise InvalidInput(
            reason, file=file, key="target", value=config.target.name,
            mend="or submit the compiled pipeline to a cluster that has one",
        )  # fmt: skip
    if not is_remote(config.promote.store):
        check_writable(Path(config.promote.store), "promote.store", file)
    elif arguments.serve:
        raise InvalidInput(
            "serves from a folder of this machine", key="--serve",
            mend="leave it out; the cluster serves what is in the store",
        )  # fmt: skip
    check_settings(
        store_of(config.promote), trust=trust_of(config.promote), mounts=config.promote.mounts
    )
    if config.deploy is None:
        check_releases(releases_of(config.promote), config.name, config.promote.first)
    else:
        need("kubernetes", "kserve-cluster")
        check_deploy(config)
    uri = config.mlflow.tracking_uri
    if config.mlflow.enabled and uri.startswith("sqlite:///"):
        check_writable(Path(uri.removeprefix("sqlite:///")).parent, "mlflow.tracking_uri", file)
    if arguments.serve:
        from trimgate.serving import check_port

        check_port(arguments.port, state_file=server_state(config))


def _new_folder(root: Path, name: str) -> str:
    """Makes the run's folder; runs that begin in the same second get one each."""
    stamp = f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"cannot be made ({error.strerror})", key="--output", value=str(root)
        ) from error
    unique = stamp
    for number in itertools.count(2):
        try:
            (root / unique).mkdir()
            break
        except FileExistsError:
            unique = f"{stamp}-{number}"
    return unique


def server_state(config: Config) -> Path:
    """The file that records the server which `--serve` left for a model."""
    return Path(config.promote.store) / "servers" / f"{config.name}.json"


def _run(
    plan: Plan, arguments: argparse.Namespace, root: Path, name: str, out: Console
) -> "LocalRun":
    from trimgate.ops.kfp_local import code_digest, count_tasks, run_local
    from trimgate.pipelines.optimize import build, compile_yaml

    folder = root / name
    # results of one are not taken by the other: the paths and the owners differ
    work = (root / ("work-containers" if arguments.containers else "work")).resolve()
    compile_yaml(plan, folder / "pipeline.yaml")
    pipeline = build(plan, code=code_digest())
    # as parameters they would spoil the cache's keys
    given = {}
    if not arguments.fresh:
        given["TRIMGATE_CACHE"] = str(work / "steps")
    if plan.search.budget.seconds is not None:
        given["TRIMGATE_DEADLINE"] = str(time.time() + plan.search.budget.seconds)
    containers = None
    if arguments.containers:
        containers = containers_for(plan, Path(arguments.config).resolve().parent, work, given)
    with _environment(given), progress(out, count_tasks(pipeline)) as on_event:
        return run_local(
            pipeline,
            {"run": name},
            root=work,
            log=folder / "log.txt",
            on_event=on_event,
            cache=not arguments.fresh,
            containers=containers,
        )


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """What the tasks' processes inherit; a later run in this process must not."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _released(config: Config, digest: str, out: Console) -> Path | None:
    """Says what became of the winner; its directory on this machine when it is released."""
    from trimgate.ops.promotion import current
    from trimgate.ops.store import open_store, split

    if config.deploy is not None:
        from trimgate.ops.kserve import Cluster

        _say(out, "deployed", str(Cluster.connect(config.deploy.namespace).status(config.name)))
        return None
    section = config.promote
    releases = releases_of(section)
    stable = current(releases, config.name, section.first).stable
    if stable is None or stable.digest != digest:
        _say(out, "proposed", f"for {section.first}: merge the request in {releases.access.shown}")
        return None
    _say(out, "released", f"to {section.first}: {stable.storage_uri}")
    store = open_store(split(stable.storage_uri)[0], mounts=section.mounts)
    return store.local(stable.storage_uri)


def _serve(config: Config, directory: Path, port: int, rows: Path, out: Console) -> None:
    from trimgate.data.stream import head
    from trimgate.models.directory import read
    from trimgate.serving import curl_example, start

    server = start(
        directory,
        port=port,
        detach=True,
        state_file=server_state(config),
        log=server_state(config).with_suffix(".log"),
        threads=config.target.threads,
    )
    _say(out, "served", f"{server.url} (gRPC {server.grpc}), until `trimgate stop`")
    out.print()
    out.print(Text(curl_example(read(directory), head(rows, 1), server.url)), soft_wrap=True)
    out.print()


def _say(out: Console, key: str, value: str) -> None:
    out.print(Text(f"{key:<8} {value}"), soft_wrap=True)
