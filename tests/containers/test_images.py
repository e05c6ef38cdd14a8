"""What the images hold, and what a process in them cannot do."""

import io
import json
import re
import tarfile
from pathlib import Path

import docker
import pytest
from containers_support import RESTRICTED, TORCH

import trimgate

pytestmark = pytest.mark.containers

ROOT = Path(__file__).parents[2]


def run(engine, image, *command: str, **options) -> str:
    """What a container printed, read after its end: podman may hang up early on who follows."""
    container = engine.containers.run(
        image.id,
        list(command[1:]),
        entrypoint=[command[0]],
        detach=True,
        network_mode="none",
        **{**RESTRICTED, **options},
    )
    try:
        status = container.wait()["StatusCode"]
        text = container.logs()
        if status:
            raise docker.errors.ContainerError(container, status, command, image, text)
        return text.decode()
    finally:
        container.remove(force=True)


@pytest.fixture(params=["core", "server"])
def built(request):
    return request.getfixturevalue(request.param)


def test_labels_and_user(built):
    config = built.attrs["Config"]
    assert config["User"] == "65532:65532"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == trimgate.__version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert len(labels["org.opencontainers.image.revision"]) == 40


def read_file(engine, image, path: str) -> bytes:
    container = engine.containers.create(image.id)
    try:
        parts, _ = container.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
            return archive.extractfile(archive.next()).read()
    finally:
        container.remove(force=True)


def test_sbom_lists_what_is_installed(engine, built):
    sbom = json.loads(read_file(engine, built, "/usr/share/sbom/trimgate.cdx.json"))
    assert sbom["bomFormat"] == "CycloneDX"
    listed: dict[str, dict[str, str]] = {"pypi": {}, "deb": {}}
    for part in sbom["components"]:
        kind = re.match("pkg:([a-z]+)/", part["purl"])[1]
        listed[kind][part["name"]] = part["version"]
    assert listed["pypi"]["trimgate"] == trimgate.__version__
    assert listed["pypi"] == installed(engine, built)
    debian = run(engine, built, "dpkg-query", "--show", "--showformat=${Package}=${Version}\\n")
    packages = dict(line.split("=", 1) for line in debian.splitlines())
    assert len(packages) > 50
    assert listed["deb"] == packages


def installed(engine, image) -> dict[str, str]:
    script = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.name: d.version for d in m.distributions()}))"
    )
    return json.loads(run(engine, image, "python3", "-c", script))


def normal(packages: dict[str, str]) -> dict[str, str]:
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in packages.items()}


def test_installed_is_what_was_locked(engine, built, request):
    """Nothing comes from elsewhere: each package is in the lock, in that version."""
    title = built.attrs["Config"]["Labels"]["org.opencontainers.image.title"]
    lock = ROOT / "images" / title.split()[-1] / "requirements.lock"
    locked = dict(re.findall(r"^([\w.-]+)==([\w.+]+)", lock.read_text(), re.MULTILINE))
    locked.pop("setuptools", None)  # packages are built with it; nothing that runs needs it
    found = installed(engine, built)
    assert found.pop("trimgate") == trimgate.__version__
    assert normal(found) == normal(locked)


def test_no_build_tools(engine, built):
    script = "for tool in pip pip3 gcc cc make ld; do command -v $tool; done; true"
    assert run(engine, built, "sh", "-c", script) == ""
    with pytest.raises(docker.errors.ContainerError, match="No module named pip"):
        run(engine, built, "python3", "-m", "pip", "--version")


def test_promotion_has_git_and_ssh_and_a_name(engine, core):
    script = "git --version && command -v ssh && git config --system safe.directory && id -un"
    told = run(engine, core, "sh", "-c", script, user="65532:65532").split("\n")
    assert told[0].startswith("git version 2.")
    assert told[1:4] == ["/usr/bin/ssh", "*", "trimgate"]


def test_the_server_has_none_of_it(engine, server):
    assert run(engine, server, "sh", "-c", "command -v git ssh; true") == ""


def test_core_imports_no_torch(engine, core):
    script = "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('sklearn').name)"
    assert run(engine, core, "python3", "-c", script).split() == ["None", "sklearn"]


def test_torch_is_the_build_for_cpus(engine):
    """Built by `make images`; CI leaves it out, as building it takes longer than all others."""
    try:
        image = engine.images.get(TORCH)
    except docker.errors.ImageNotFound:
        pytest.skip(f"{TORCH} is not built: `make images`")
    script = (
        "import importlib.metadata as m, nncf, shap, torch, torch_pruning, transformers\n"
        "from trimgate.models import export\n"
        "assert not torch.cuda.is_available()\n"
        "print(torch.__version__, [d.name for d in m.distributions() if 'nvidia' in d.name])\n"
    )
    told = run(engine, image, "python3", "-c", script).strip().splitlines()[-1]
    assert told == "2.13.0+cpu []"


def test_the_root_cannot_be_written(engine, built):
    with pytest.raises(docker.errors.ContainerError, match="Read-only file system"):
        run(engine, built, "touch", "/opt/venv/x")
    assert "ok" in run(engine, built, "sh", "-c", "touch /tmp/x && echo ok")


def test_nobody_becomes_root(engine, built):
    script = (
        "import ctypes, os\n"
        "assert os.getuid() == 54321\n"
        "try:\n    os.setuid(0)\nexcept PermissionError:\n    print('refused')\n"
        "print([line for line in open('/proc/self/status') if line[:4] in ('CapE', 'NoNe')])\n"
    )
    told = run(engine, built, "python3", "-c", script)
    assert told.startswith("refused")
    assert "CapEff:\\t0000000000000000" in told
    assert "NoNewPrivs:\\t1" in told


def test_it_cannot_reach_out(engine, built):
    script = "import socket; socket.create_connection(('192.0.2.1', 443), timeout=5)"
    with pytest.raises(docker.errors.ContainerError, match="Network is unreachable"):
        run(engine, built, "python3", "-c", script)


def test_code_is_compiled(engine, core):
    script = (
        "import trimgate.judge, sklearn, pathlib\n"
        "for m in (trimgate, sklearn):\n    assert pathlib.Path(m.__cached__).is_file(), m\n"
        "print('compiled')\n"
    )
    assert run(engine, core, "python3", "-c", script).strip() == "compiled"
