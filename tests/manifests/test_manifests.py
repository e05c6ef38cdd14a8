"""The manifests: they build, every object is valid, and none asks for more than it needs."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from manifest_kinds import custom_kinds
from trimgate.pipelines.optimize._platform import RELEASES

import trimgate
from trimgate.ops.kserve import RIGHTS, serving_runtime
from trimgate.ops.kserve._runtimes import IMAGES

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("local", "staging", "production")
BUILT = (*(f"overlays/{name}" for name in OVERLAYS), "argocd", "flux")
ROLLOUT_METRICS = ROOT / "src/trimgate/ops/rollout/metrics.py"
RUNTIMES = MANIFESTS / "base/serving-runtimes.yaml"
# Files that a component takes from who uses it.
GIVEN = {
    "recurring-run": {"pipeline.yaml": "{}\n"},
    "rollout-watcher": {"optimize.yaml": "{}\n", "rows.csv": "a,y\n1,0\n"},
}

if shutil.which("kubectl") is None:
    pytest.skip("kubectl is not installed: manifests are not built", allow_module_level=True)


def build(folder: Path) -> list[dict]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def built() -> dict[str, list[dict]]:
    return {name: build(MANIFESTS / name) for name in BUILT}


@pytest.fixture(scope="module")
def every(built, tmp_path_factory) -> list[dict]:
    """Each object of every overlay and of every component, also of those no overlay takes."""
    objects = [o for name in BUILT for o in built[name]]
    for component in (MANIFESTS / "components").iterdir():
        folder = tmp_path_factory.mktemp("overlay")
        shutil.copytree(MANIFESTS, folder / "manifests")
        for name, text in GIVEN.get(component.name, {}).items():
            (folder / "manifests/components" / component.name / name).write_text(text)
        (folder / "manifests/one").mkdir()
        (folder / "manifests/one/kustomization.yaml").write_text(
            f"namespace: one\ncomponents: [../components/{component.name}]\n"
        )
        objects += build(folder / "manifests/one")
    return objects


def containers(obj: dict) -> list[tuple[dict, dict]]:
    """Pod specs of an object, with their containers."""
    spec = obj.get("spec", {})
    if obj["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    pod = spec.get("template", {}).get("spec") if obj["kind"] != "ServingRuntime" else spec
    return [(pod, c) for c in pod["containers"]] if pod and "containers" in pod else []


def test_every_object_is_valid(every):
    """Core kinds by Kubernetes' own schemas, the others by their definitions; strictly."""
    version = kubernetes_validate.latest_version()
    definitions = custom_kinds()
    seen = set()
    for obj in every:
        schema = definitions.get((obj["apiVersion"], obj["kind"]))
        if schema is None:
            kubernetes_validate.validate(obj, version, strict=True)
        else:
            seen.add(obj["kind"])
            assert not list(schema.iter_errors({k: obj[k] for k in obj if k in ("spec", "data")}))
    assert seen == {
        "AppProject", "Application", "ExternalSecret", "GitRepository", "Kustomization",
        "PodMonitor", "PrometheusRule", "SealedSecret", "ServiceMonitor", "ServingRuntime",
    }  # fmt: skip


def test_a_typo_in_a_custom_kind_would_be_found(every):
    monitor = next(o for o in every if o["kind"] == "ServiceMonitor")
    broken = json.loads(json.dumps(monitor).replace("endpoints", "endpoint"))
    schema = custom_kinds()[monitor["apiVersion"], "ServiceMonitor"]
    assert list(schema.iter_errors({"spec": broken["spec"]}))


def test_serving_runtimes_are_those_of_the_code():
    """`UPDATE_GOLDEN=1` writes the file."""
    text = "---\n".join(
        yaml.safe_dump(serving_runtime(kind), sort_keys=False, width=100) for kind in IMAGES
    )
    text = f"# Written by tests/manifests from trimgate.ops.kserve.serving_runtime.\n{text}"
    if os.environ.get("UPDATE_GOLDEN"):
        RUNTIMES.write_text(text)
    assert text == RUNTIMES.read_text(), (
        "changed on purpose? UPDATE_GOLDEN=1 pytest tests/manifests"
    )


def test_each_overlay_has_every_runtime(built):
    for overlay in OVERLAYS:
        found = {
            o["metadata"]["name"]
            for o in built[f"overlays/{overlay}"]
            if o["kind"] == "ServingRuntime"
        }
        assert found == set(IMAGES)


def test_a_typo_would_be_found(built):
    network = next(o for o in built["overlays/local"] if o["kind"] == "NetworkPolicy")
    broken = json.loads(json.dumps(network).replace("podSelector", "podSelectr"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_object_is_in_the_overlay_s_namespace(built, overlay):
    for obj in built[f"overlays/{overlay}"]:
        where = obj["metadata"]["name" if obj["kind"] == "Namespace" else "namespace"]
        assert where == f"trimgate-{overlay}", obj["metadata"]["name"]


def test_pods_are_restricted(every):
    seen = 0
    for obj in every:
        for pod, container in containers(obj):
            seen += 1
            security = container["securityContext"]
            inherited = pod.get("securityContext", {})
            assert {**inherited, **security}["runAsNonRoot"] is True
            assert {**inherited, **security}["seccompProfile"] == {"type": "RuntimeDefault"}
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
    assert seen >= 3


def test_namespaces_enforce_it(every):
    namespaces = [o for o in every if o["kind"] == "Namespace"]
    assert namespaces
    for obj in namespaces:
        assert obj["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_role_has_a_wildcard_or_reads_all_secrets(every):
    roles = [o for o in every if o["kind"] in ("Role", "ClusterRole")]
    assert roles
    assert not [o for o in every if o["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"]
                assert rule["verbs"] == ["get"]


def test_the_promoter_has_no_rights_on_the_cluster(built):
    for overlay in OVERLAYS:
        objects = built[f"overlays/{overlay}"]
        promoter = next(
            o
            for o in objects
            if (o["kind"], o["metadata"]["name"]) == ("ServiceAccount", "promoter")
        )
        assert promoter["automountServiceAccountToken"] is False
        bound = [s["name"] for o in objects if o["kind"] == "RoleBinding" for s in o["subjects"]]
        assert "promoter" not in bound


@pytest.mark.parametrize(
    ("role", "duty"), [("rollout-watcher", "watcher"), ("deployer", "deployer")]
)
def test_roles_are_what_the_client_uses(built, role, duty):
    (found,) = (
        o
        for o in built["overlays/production"]
        if (o["kind"], o["metadata"]["name"]) == ("Role", role)
    )
    assert found["rules"] == RIGHTS[duty]


def test_nothing_comes_in_or_goes_out_unasked(built):
    for overlay in OVERLAYS:
        deny = next(
            o for o in built[f"overlays/{overlay}"] if o["metadata"]["name"] == "default-deny"
        )
        assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_no_secret_stands_in_the_manifests(every):
    assert not [o for o in every if o["kind"] == "Secret"]
    for obj in every:
        for _, container in containers(obj):
            for variable in container.get("env", ()):
                if re.search(r"PASSWORD|SECRET|TOKEN|_KEY", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_secrets_that_pods_take_are_described(every):
    given = {
        o["metadata"]["name"] for o in every if o["kind"] in ("ExternalSecret", "SealedSecret")
    }
    sealed = {o["metadata"]["name"] for o in every if o["kind"] == "SealedSecret"}
    taken = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for obj in every
        for _, container in containers(obj)
        for variable in container.get("env", ())
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    assert taken
    assert taken <= given
    assert sealed == given


def test_images_are_this_version_s(every):
    named = {c["image"] for o in every for _, c in containers(o) if "trimgate/" in c["image"]}
    assert named == {
        f"trimgate/python-{name}:{trimgate.__version__}" for name in ("core", "server")
    }


def test_every_image_is_one_that_is_built():
    built = (ROOT / "images/Dockerfile").read_text()
    for name in ("core", "torch", "server", "gpu"):
        assert f"AS {name}\n" in built
        assert f"AS base-{name}\n" in built
        assert (ROOT / f"images/{name}/requirements.lock").is_file()


def test_only_releasing_pods_reach_out(built):
    """A step that runs what users bring reaches Kubeflow and this namespace alone."""
    for overlay in OVERLAYS:
        policies = {
            o["metadata"]["name"]: o["spec"]
            for o in built[f"overlays/{overlay}"]
            if o["kind"] == "NetworkPolicy"
        }
        anywhere = {
            name
            for name, spec in policies.items()
            for rule in spec.get("egress", ())
            if "to" not in rule
        }
        assert anywhere <= {"releases", "model-downloads", "mlflow"}
        assert policies["releases"]["podSelector"] == {"matchLabels": {RELEASES: "true"}}


def test_metrics_that_rules_and_dashboard_read_exist():
    sources = [*(ROOT / "src/trimgate/serving").glob("*.py"), ROLLOUT_METRICS]
    code = "\n".join(file.read_text() for file in sources)
    texts = [
        (MANIFESTS / "components/monitoring" / name).read_text()
        for name in ("rules.yaml", "dashboard.json")
    ]
    for text in texts:
        read = set(re.findall(r"\btrimgate_[a-z_]+", text))
        assert read
        for name in read:
            base = re.sub(r"_(total|bucket)$", "", name)
            assert f'"{base}"' in code, name
    rules = yaml.safe_load(texts[0])
    recorded = {r["record"] for g in rules["spec"]["groups"] for r in g["rules"] if "record" in r}
    assert set(re.findall(r"\btrimgate:[\w:]+", "\n".join(texts))) == recorded


def test_argo_and_flux_follow_the_namespaces(built):
    apps = [o for o in built["argocd"] if o["kind"] == "Application"]
    assert {a["spec"]["destination"]["namespace"] for a in apps} == {
        "trimgate-staging", "trimgate-production",
    }  # fmt: skip
    for app in apps:
        options = app["metadata"]["annotations"]["argocd.argoproj.io/compare-options"]
        assert options == "ServerSideDiff=true,IncludeMutationWebhook=true"
    follow = [o for o in built["flux"] if o["kind"] == "Kustomization"]
    assert {o["spec"]["targetNamespace"] for o in follow} == {
        "trimgate-staging", "trimgate-production",
    }  # fmt: skip
