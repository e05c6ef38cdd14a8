"""Local tasks in their images, as a cluster would run them: what `kfp.local.DockerRunner` lacks.

What kfp 2.17 does on its own: it lets the engine remove a container as soon as it ends, and takes
one that was gone before it looked for a success, whatever its exit code. Here a container is made,
started, followed, waited for and then removed. It also runs as nobody, on a read-only root, without
capabilities or a network, as the manifests have it on a cluster.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimgate.errors import TrimgateError

USER = 65532
"""The images' user."""

RELEASING = frozenset({"register", "publish", "promote", "deploy_kserve", "watch_rollout"})
"""The components that write to registry, store and repository; no other gets near them."""

# What /tmp holds lives in memory: techniques keep their temporary files there.
_TMP = "mode=1777,size=4g"


@dataclass(frozen=True)
class Reach:
    """What a task sees of the machine besides its image.

    Attributes:
        read: Files and folders that it reads, under the same path.
        write: Folders that it writes to, under the same path.
        environment: Its variables.
        network: `none`, or a network of the engine for tasks that reach a server.
    """

    read: Sequence[Path] = ()
    write: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    network: str = "none"


@dataclass(frozen=True)
class Containers:
    """How local tasks run in containers.

    Attributes:
        image: The image of every task; it must be on this machine.
        reach: What every task sees.
        releasing: What the tasks in `RELEASING` see besides.
        memory_mb: Memory limit of a task in MiB.
        cpus: CPU limit of a task.
    """

    image: str
    reach: Reach = Reach()
    releasing: Reach = Reach()
    memory_mb: int | None = None
    cpus: float | None = None


def check_engine(image: str) -> None:
    """Whether an engine answers and has the image.

    Raises:
        TrimgateError: It does not; the message says what to do.
    """
    import docker

    try:
        with contextlib.closing(docker.from_env()) as client:
            client.images.get(image)
    except docker.errors.ImageNotFound as error:
        raise TrimgateError(f"the image {image} is not on this machine: `make images`") from error
    except (docker.errors.DockerException, OSError) as error:
        raise TrimgateError(
            "no container engine answers: start Docker, or `podman system service` with "
            "DOCKER_HOST set to its socket"
        ) from error


def hand_over(folder: Path, *, keep: Sequence[Path] = ()) -> None:
    """Makes a folder that containers can write to.

    Containers run as the user who calls; root's run as the images' user, who has to own what is
    in the folder.

    Args:
        folder: The folder; made when absent.
        keep: Folders in it that stay root's, writable for the images' group: Git trusts a
            repository by who owns its folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() != 0:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER, follow_symlinks=False)
    for path in keep:
        os.chown(path, 0, USER)
        path.chmod(0o775)


@contextlib.contextmanager
def in_containers(options: Containers) -> Iterator[Any]:
    """Gives the runner for `kfp.local.init`, with its step that runs a container replaced."""
    from kfp import local
    from kfp.local import docker_task_handler

    def run(
        client: Any,
        image: str,
        command: list[str],
        volumes: dict[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> int:
        return _run(options, client, command, volumes, environment or {})

    previous, mask = docker_task_handler.run_docker_container, None
    docker_task_handler.run_docker_container = run
    try:
        if os.getuid() == 0:
            # The image's user is somebody else, who has to write into the folders made here.
            mask = os.umask(0)
        yield local.DockerRunner()
    finally:
        docker_task_handler.run_docker_container = previous
        if mask is not None:
            os.umask(mask)


def _run(
    options: Containers,
    client: Any,
    command: Sequence[str],
    volumes: Mapping[str, Any],
    environment: Mapping[str, str],
) -> int:
    """Runs a task's container to its end; returns the exit code."""
    reaches = [options.reach]
    if command[command.index("--function_to_execute") + 1] in RELEASING:
        reaches.append(options.releasing)
    limits: dict[str, Any] = {}
    if options.memory_mb is not None:
        limits["mem_limit"] = limits["memswap_limit"] = f"{options.memory_mb}m"
    if options.cpus is not None:
        limits["nano_cpus"] = round(options.cpus * 1e9)
    container = client.containers.create(
        options.image,
        list(command),
        volumes={
            **volumes,
            **{str(p): {"bind": str(p), "mode": "ro"} for reach in reaches for p in reach.read},
            **{str(p): {"bind": str(p), "mode": "rw"} for reach in reaches for p in reach.write},
        },
        environment={
            **{name: value for reach in reaches for name, value in reach.environment.items()},
            **environment,
        },
        # files that the caller owns are the caller's to write
        user=None if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}",
        read_only=True,
        tmpfs={"/tmp": _TMP},  # noqa: S108 - inside the container
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode=reaches[-1].network,
        **limits,
    )
    try:
        container.start()
        told, line = 0, b""
        for part in container.logs(stream=True, follow=True):
            told += len(part)
            line = _print_lines(line + part)
        status = int(container.wait()["StatusCode"])
        # podman may hang up on who follows before the last lines, which say what went wrong
        if rest := line + container.logs()[told:]:
            _print_lines(rest.removesuffix(b"\n") + b"\n")
        if status == 137:
            print("Killed")
        return status
    finally:
        container.remove(force=True)


def _print_lines(output: bytes) -> bytes:
    """Prints the whole lines, as kfp indents whatever one print gets; returns the rest."""
    whole, end, rest = output.rpartition(b"\n")
    if end:
        print(whole.decode(errors="replace"))
    return rest
