"""A real API server with KServe's CustomResourceDefinitions; the tests play the controller.

`TRIMGATE_KUBECONFIG` names a kubeconfig of a cluster that has KServe's definitions (the tests
write into its current namespace), or `TRIMGATE_CRDSERVER` the folder of a tool whose `up.sh` and
`down.sh` start and stop such an API server; the definitions are expected in `../crds` beside it.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimgate.ops.kserve import Cluster

NEITHER = "no API server: neither TRIMGATE_KUBECONFIG nor TRIMGATE_CRDSERVER is set"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cluster")


def free_ports(count: int) -> list[str]:
    """Ports that follow one another and are free."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            first = one.getsockname()[1]
        try:
            for port in range(first, first + count):
                with socket.socket() as other:
                    other.bind(("127.0.0.1", port))
            return [str(port) for port in range(first, first + count)]
        except OSError:
            continue


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory) -> Iterator[Path]:
    given, tool = os.environ.get("TRIMGATE_KUBECONFIG"), os.environ.get("TRIMGATE_CRDSERVER")
    if given:
        yield Path(given)
        return
    if not tool:
        pytest.skip(NEITHER)
    built = os.environ.get("TRIMGATE_CRDSERVER_BUILD")
    folder = Path(built) if built else tmp_path_factory.mktemp("crdserver")
    definitions = sorted((Path(tool).parent / "crds/kserve").glob("*.yaml"))
    assert definitions, f"{tool}: there are no definitions in ../crds/kserve"
    server, etcd, _ = free_ports(3)
    environment = {**os.environ, "PORT": server, "ETCD_PORT": etcd}
    try:
        subprocess.run(
            ["bash", Path(tool) / "up.sh", folder, *definitions],
            env=environment, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        yield folder / "kubeconfig"
    finally:
        subprocess.run(["bash", Path(tool) / "down.sh", folder], check=True)


@pytest.fixture
def cluster(kubeconfig) -> Cluster:
    return Cluster.connect(kubeconfig=kubeconfig)
