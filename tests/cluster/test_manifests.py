"""Each overlay's custom objects, applied to a real API server as `kubectl apply` does.

The server has no core kinds: those are validated in tests/manifests by Kubernetes' schemas.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from manifest_kinds import custom_kinds, definitions

MANIFESTS = Path(__file__).parents[2] / "manifests"
BUILT = ("overlays/local", "overlays/staging", "overlays/production", "argocd", "flux")


def kubectl(kubeconfig, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["kubectl", *arguments], input=text, capture_output=True, text=True, check=False,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
    )  # fmt: skip


def apply(kubeconfig, objects: list[dict]) -> subprocess.CompletedProcess[str]:
    return kubectl(
        kubeconfig, "apply", "--server-side", "--validate=strict", "-f", "-",
        text=yaml.safe_dump_all(objects),
    )  # fmt: skip


@pytest.fixture(scope="module")
def api_server(kubeconfig):
    done = apply(kubeconfig, definitions())
    assert done.returncode == 0, done.stderr
    names = [f"crd/{crd['metadata']['name']}" for crd in definitions()]
    done = kubectl(kubeconfig, "wait", "--for=condition=Established", "--timeout=60s", *names)
    assert done.returncode == 0, done.stderr
    return kubeconfig


def custom_objects(folder: str) -> list[dict]:
    built = kubectl("", "kustomize", str(MANIFESTS / folder))
    assert built.returncode == 0, built.stderr
    known = custom_kinds()
    return [o for o in yaml.safe_load_all(built.stdout) if (o["apiVersion"], o["kind"]) in known]


@pytest.mark.parametrize("folder", BUILT)
def test_it_is_applied(api_server, folder):
    objects = custom_objects(folder)
    assert objects
    done = apply(api_server, objects)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("serverside-applied") == len(objects)
    again = kubectl(
        api_server, "diff", "--server-side", "-f", "-", text=yaml.safe_dump_all(objects)
    )
    assert again.returncode == 0, "what is applied is not what is read: " + again.stdout


def test_a_typo_is_refused(api_server):
    monitor = next(o for o in custom_objects("overlays/staging") if o["kind"] == "PodMonitor")
    broken = json.loads(json.dumps(monitor).replace("podMetricsEndpoints", "podMetricsEndpoint"))
    done = apply(api_server, [broken])
    assert done.returncode != 0
    assert "podMetricsEndpoint" in done.stderr
