"""The manifests: they build, every object is valid, and none asks for more than it needs."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

import trimgate
from trimgate.ops.kserve import RIGHTS

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("local", "staging", "production")
BUILT = (*(f"overlays/{name}" for name in OVERLAYS), "argocd", "flux")
# Their schemas come with their operators, and not with Kubernetes.
CUSTOM = {
    "AppProject", "Application", "ClusterServingRuntime", "ExternalSecret", "GitRepository",
    "Kustomization", "PodMonitor", "PrometheusRule", "SealedSecret", "ServingRuntime",
}  # fmt: skip

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
        if component.name == "recurring-run":
            (folder / "manifests/components/recurring-run/pipeline.yaml").write_text("{}\n")
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
    version = kubernetes_validate.latest_version()
    for obj in every:
        if obj["kind"] not in CUSTOM or obj["apiVersion"] in ("v1", "apps/v1"):
            kubernetes_validate.validate(obj, version, strict=True)


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
    named = [c["image"] for o in every for _, c in containers(o) if "trimgate/" in c["image"]]
    assert named
    assert {image.partition(":")[2] for image in named} == {trimgate.__version__}


def test_metrics_that_rules_and_dashboard_read_exist():
    code = "\n".join(f.read_text() for f in (ROOT / "src/trimgate/serving").glob("*.py"))
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
