"""The server's image, as a cluster runs it: nobody, a read-only root, little memory, one core."""

import contextlib
import time

import docker
import numpy as np
import pytest
from containers_support import RESTRICTED
from rollouts import classifier

from trimgate.data.dataset import Dataset
from trimgate.models.directory import read
from trimgate.serving.server import Address
from trimgate.serving.smoke import CHECKS, check_answers

pytestmark = pytest.mark.containers

LIMITS = {"mem_limit": "512m", "memswap_limit": "512m", "nano_cpus": 10**9}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = classifier(tmp_path_factory.mktemp("served") / "model")
    for path in (folder, *folder.rglob("*"), folder.parent, *folder.parents[1:3]):
        path.chmod(0o755 if path.is_dir() else 0o644)  # pytest's folders are for their owner alone
    return folder


@contextlib.contextmanager
def served(engine, image, folder, *arguments: str, **options):
    container = engine.containers.run(
        image.id,
        [*(arguments or ("/mnt/models", "--host=0.0.0.0", "--name=small"))],
        detach=True,
        volumes={str(folder): {"bind": "/mnt/models", "mode": "ro"}},
        ports={"8080/tcp": ("127.0.0.1", None), "8081/tcp": ("127.0.0.1", None)},
        **{
            **RESTRICTED,
            "mem_limit": "512m",
            "memswap_limit": "512m",
            "nano_cpus": 10**9,
            **options,
        },
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def healthy(container, seconds: float = 90) -> bool:
    """What the image's own health check says; podman without systemd does not run it by itself."""
    container.reload()
    _, *command = container.attrs["Config"]["Healthcheck"]["Test"]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        container.reload()
        if container.status not in ("created", "running"):
            return False
        if container.exec_run(command).exit_code == 0:
            return True
        time.sleep(0.5)
    return False


def test_it_answers_the_smoke_test_under_restrictions(engine, server, model):
    with served(engine, server, model) as container:
        assert healthy(container), container.logs().decode()
        limits = container.attrs["HostConfig"]
        assert (limits["Memory"], limits["NanoCpus"]) == (512 * 2**20, 10**9)
        assert limits["ReadonlyRootfs"]
        ports = container.attrs["NetworkSettings"]["Ports"]
        rest, grpc = (f"127.0.0.1:{ports[f'{n}/tcp'][0]['HostPort']}" for n in (8080, 8081))
        values = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
        rows = Dataset(
            {name: values[:, i] for i, name in enumerate("abcd")}, np.zeros(len(values), np.int64)
        )
        address = Address(
            url=f"http://{rest}", grpc=grpc, name="small", digest=read(model).digest, pid=0
        )
        errors: list[str] = []
        assert check_answers(address, model, rows, errors=errors) == dict.fromkeys(CHECKS, True), (
            errors
        )
        container.stop(timeout=30)
        assert container.wait()["StatusCode"] == 0


def test_a_model_that_was_altered_is_not_served(engine, server, model, tmp_path):
    for above in (tmp_path, *tmp_path.parents[:2]):
        above.chmod(0o755)
    broken = classifier(tmp_path / "model")
    (broken / "model.onnx").write_bytes((broken / "model.onnx").read_bytes()[:-9])
    for path in (broken, *broken.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with served(engine, server, broken) as container:
        assert container.wait(timeout=90)["StatusCode"] == 2
        assert "the file was altered" in container.logs().decode()


def test_without_an_answer_it_is_not_healthy(engine, server, model):
    """The check asks the server: a process that runs is not enough."""
    with served(
        engine, server, model, "-c", "import time; time.sleep(60)", entrypoint=["python3"]
    ) as container:
        assert not healthy(container, seconds=3)


def test_too_little_memory_ends_it(engine, server, model):
    with served(engine, server, model, mem_limit="32m", memswap_limit="32m") as container:
        try:
            status = container.wait(timeout=90)["StatusCode"]
        except docker.errors.APIError:
            status = None
        assert status == 137
