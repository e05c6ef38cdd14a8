"""A container engine, and the images that `make images` built.

`TRIMGATE_CONTAINERS=1 pytest tests/containers` runs them; else they are left out, and say so.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from containers_support import CORE, SERVER


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """Docker where it runs, else podman's socket for the time of the tests; DOCKER_HOST says so."""
    if not os.environ.get("TRIMGATE_CONTAINERS"):
        pytest.skip("TRIMGATE_CONTAINERS is not set: nothing is run in containers")
    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError):
        client = None
    if client is not None:
        yield client
        client.close()
        return
    if shutil.which("podman") is None:
        pytest.fail("neither Docker nor podman is here")
    with tempfile.TemporaryDirectory(prefix="podman-") as folder:
        socket = f"unix://{folder}/podman.sock"
        service = subprocess.Popen(
            # conmon leaves a file where it is started when a container runs out of memory
            ["podman", "system", "service", "--time", "0", socket],
            cwd=folder,
        )
        os.environ["DOCKER_HOST"] = socket
        try:
            deadline = time.monotonic() + 60
            while not Path(folder, "podman.sock").exists():
                assert service.poll() is None, "podman's service ended"
                assert time.monotonic() < deadline
                time.sleep(0.1)
            with contextlib.closing(docker.from_env()) as client:
                yield client
        finally:
            del os.environ["DOCKER_HOST"]
            service.terminate()
            service.wait(30)


def image(engine: docker.DockerClient, name: str) -> docker.models.images.Image:
    try:
        return engine.images.get(name)
    except docker.errors.ImageNotFound:
        pytest.fail(f"{name} is not built: run `make images` first")


@pytest.fixture(scope="session")
def core(engine) -> docker.models.images.Image:
    return image(engine, CORE)


@pytest.fixture(scope="session")
def server(engine) -> docker.models.images.Image:
    return image(engine, SERVER)
