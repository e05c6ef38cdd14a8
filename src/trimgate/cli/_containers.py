"""What `trimgate run --containers` shows the tasks' containers of this machine."""

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from trimgate.cli._common import need
from trimgate.config import DATA_PATHS, TARGET_FILES, Config, PromoteSection, is_remote
from trimgate.errors import InvalidInput
from trimgate.plan import Plan

if TYPE_CHECKING:
    from trimgate.ops.kfp_containers import Containers

# Of the environment, for the tasks that write to registry, store and repository.
_CREDENTIALS = ("AWS_", "MLFLOW_", "TRIMGATE_GIT_", "TRIMGATE_FORGE_", "TRIMGATE_PROMETHEUS_")


def check_containers(plan: Plan, file: str) -> None:
    """Whether the run can be done in containers, before any work is done.

    Raises:
        InvalidInput: It would roll out or deploy, or MLflow's database could not be written.
        TrimgateError: No engine answers, or an image or a package is missing.
    """
    from trimgate.ops.kfp_containers import USER, check_engine

    need("docker", "containers")
    database = _mlflow_folder(plan.config)
    if os.getuid() == 0 and database and database.is_dir() and database.stat().st_uid != USER:
        raise InvalidInput(
            f"root's containers run as user {USER}, who cannot write to that folder", file=file,
            key="mlflow.tracking_uri", value=plan.config.mlflow.tracking_uri,
            mend="name a new folder of its own, such as sqlite:///mlflow/mlflow.db",
        )  # fmt: skip
    rollout = plan.config.rollout
    if rollout.environment is not None:
        raise InvalidInput(
            "what serves the canary, and its kubeconfig, are out of a container's reach",
            file=file, key="rollout.environment", value=rollout.environment,
            mend="leave out --containers, or begin it with `trimgate rollout start`",
        )  # fmt: skip
    if plan.config.deploy is not None:
        raise InvalidInput(
            "the kubeconfig is out of a container's reach", file=file, key="deploy",
            mend="leave out --containers",
        )  # fmt: skip
    check_engine(plan.image)


def containers_for(
    plan: Plan, folder: Path, work: Path, environment: dict[str, str]
) -> "Containers":
    """Makes the folders that containers write to, and gives them what the config names, no more.

    Args:
        plan: What will be done.
        folder: Folder of the config.
        work: The tasks' outputs and the cache.
        environment: Variables of every task.
    """
    from trimgate.ops.kfp_containers import Containers, Reach, hand_over

    config = plan.config
    given = [config.model.path, *(getattr(config.data, key) for key in DATA_PATHS)]
    given += [getattr(config.target, key) for key in TARGET_FILES]
    files = {Path(path) for path in given if isinstance(path, str)}
    files |= {file for recipe in plan.recipes for step in recipe.steps for file in step.files}
    if config.model.builder is not None:  # it may stand beside the config
        files.add(folder)
        environment = {**environment, "PYTHONPATH": str(folder)}
    hand_over(work)
    promote = config.promote
    keys = (promote.signing.key, promote.signing.verify_key, promote.commit_key)
    return Containers(
        image=plan.image,
        reach=Reach(read=tuple(sorted(files)), write=(work,), environment=environment),
        releasing=Reach(
            read=tuple(Path(key) for key in keys if key and Path(key).is_file()),
            write=_release_folders(config),
            environment={k: v for k, v in os.environ.items() if k.startswith(_CREDENTIALS)},
            network="bridge" if _reaches_out(config) else "none",
        ),
    )


def _release_folders(config: Config) -> tuple[Path, ...]:
    """Folders of this machine that a release is written to, made when absent."""
    from trimgate.ops.git import init_local
    from trimgate.ops.kfp_containers import hand_over

    promote = config.promote
    folders = {Path(place) for place in promote.mounts.values()}
    parts = urlsplit(promote.store)
    if parts.scheme in ("", "file", "oci-layout"):
        store = Path(unquote(parts.path))
        hand_over(store)
        folders.add(store)
    database = _mlflow_folder(config)
    if database is not None:
        if not database.is_dir():
            hand_over(database)
        folders.add(database)
    if promote.repository is None:
        # made here: who reads it later trusts it by its owner
        own = init_local(Path(promote.store) / "releases.git", promote.branch)
        hand_over(own, keep=(own,))
    elif _local_repository(promote):
        folders.add(Path(promote.repository))
    return tuple(sorted(folders))


def _mlflow_folder(config: Config) -> Path | None:
    """The folder of MLflow's database, where that is a file."""
    uri = config.mlflow.tracking_uri
    local = config.mlflow.enabled and uri.startswith("sqlite:///")
    return Path(uri.removeprefix("sqlite:///")).parent if local else None


def _local_repository(promote: PromoteSection) -> bool:
    return promote.repository is None or Path(promote.repository).is_dir()


def _reaches_out(config: Config) -> bool:
    """Whether a release goes to a server."""
    promote = config.promote
    return (
        (config.mlflow.enabled and _mlflow_folder(config) is None)
        or (is_remote(promote.store) and urlsplit(promote.store).scheme not in ("file", "pvc"))
        or not _local_repository(promote)
    )
