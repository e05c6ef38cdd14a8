"""What a cluster is told of each task: resources, place, secrets, volumes, retries, time.

The local runner ignores all of it.
"""

import math
from pathlib import Path

from kfp import dsl, kubernetes

from trimgate.config import DATA_PATHS, is_remote
from trimgate.ops.kfp_containers import RELEASING, USER
from trimgate.plan import Plan

# Peak memory in MiB of each component in the run of `make demo` (285,000 rows), rounded up:
# `benchmarks/task_resources.py` prints it. What is not named here is a technique. Those that have
# no part in that run have the number of the one that is most like them: sample of load_data, screen
# of a technique, halve of select, deploy_kserve and watch_rollout of promote, reject of gate.
MEASURED_MB = {
    "load_data": 450,
    "sample": 450,
    "import_model": 750,
    "evaluate": 600,
    "benchmark": 450,
    "screen": 1050,
    "halve": 100,
    "select": 100,
    "check_serving": 650,
    "gate": 100,
    "report": 100,
    "register": 350,
    "publish": 600,
    "promote": 500,
    "deploy_kserve": 500,
    "reject": 100,
    "watch_rollout": 500,
}
TECHNIQUE_MB = 1050
# For data that grow while a run is configured, and another engine's larger base.
_HEADROOM = 1.5
# Rows are held as Parquet's columns, as a frame, and as the float32 matrix of a model.
_COPIES = 6
# They time models: they run where the winner will, alone on their cores.
TIMED = frozenset({"benchmark", "screen", "check_serving"})
# It fails on purpose. All others may be tried again: they compute from their inputs, or (MLflow,
# store, repository, rollout) find what an earlier try has done.
ONCE = frozenset({"reject"})
# Pods that reach registry, store and repository; the manifests' network policies ask for it.
RELEASES = "trimgate.dev/releases"
CACHE = "/trimgate-cache"


def on_cluster(task: dsl.PipelineTask, plan: Plan) -> None:
    """Puts a task's needs into the compiled pipeline."""
    name = task.component_spec.name.replace("-", "_")
    cluster, target = plan.config.cluster, plan.config.target
    memory = _memory_mb(name, plan)
    task.set_memory_request(f"{memory}Mi")
    task.set_memory_limit(f"{memory * (1 if name in TIMED else 2)}Mi")
    if name in TIMED:
        # A whole number of cores, asked for and allowed: with the static CPU manager they are
        # the task's own. One more than the engine's threads, for the server and for Python.
        cores = str(target.threads + 1)
        task.set_cpu_request(cores)
        task.set_cpu_limit(cores)
        for key, value in cluster.node_selector.items():
            kubernetes.add_node_selector(task, key, value)
        for toleration in cluster.tolerations:
            kubernetes.add_toleration(
                task,
                key=toleration.key,
                operator="Exists" if toleration.value is None else "Equal",
                value=toleration.value,
                effect=toleration.effect,
            )
        if target.device == "gpu":
            task.set_accelerator_type("nvidia.com/gpu")
            task.set_accelerator_limit(1)
    else:
        task.set_cpu_request("1" if name in MEASURED_MB else "2")
    if name not in ONCE:
        task.set_retry(2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="300s")
    kubernetes.set_timeout(task, _seconds(name, plan))
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp")  # noqa: S108
    if name in RELEASING:
        _release(task, plan)
    elif cluster.cache_volume is not None:
        kubernetes.mount_pvc(task, cluster.cache_volume, CACHE)
        task.set_env_variable("TRIMGATE_CACHE", f"{CACHE}/steps")


def _release(task: dsl.PipelineTask, plan: Plan) -> None:
    """Secrets and stores are for the tasks that need them: others run what users bring."""
    cluster = plan.config.cluster
    kubernetes.add_pod_label(task, RELEASES, "true")
    for secret, keys in cluster.secrets.items():
        kubernetes.use_secret_as_env(task, secret, dict(keys))
    for secret, folder in cluster.secret_files.items():
        kubernetes.use_secret_as_volume(task, secret, folder)
    for claim, folder in plan.config.promote.mounts.items():
        kubernetes.mount_pvc(task, claim, folder)


def _seconds(name: str, plan: Plan) -> int:
    """After how long a task is ended; a rollout has time-outs of its own, for each step."""
    rollout, deploy = plan.config.rollout, plan.config.deploy
    allowed = plan.config.cluster.timeout_minutes * 60
    if name == "deploy_kserve" and deploy is not None:
        return allowed + deploy.timeout
    if name != "watch_rollout":
        return allowed
    return allowed + len(rollout.steps) * math.ceil(rollout.ready_timeout + rollout.step_timeout)


def _memory_mb(name: str, plan: Plan) -> int:
    """MiB that a task asks for: what was measured, and room for these rows and this model."""
    config = plan.config
    files = [config.model.path, *(getattr(config.data, key) for key in DATA_PATHS)]
    local = [Path(path) for path in files if path is not None and not is_remote(path)]
    given = sum(path.stat().st_size for path in local if path.is_file()) / 2**20
    needed = MEASURED_MB.get(name, TECHNIQUE_MB) * _HEADROOM + _COPIES * given
    return math.ceil(needed / 256) * 256
