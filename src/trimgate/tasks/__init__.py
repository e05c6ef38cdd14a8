"""One function per pipeline task, on paths; what the components call.

A recipe step that turns out not to apply leaves a directory with `refused.json` in place of a
model; the steps after it hand that on, and `benchmark` reports the reason to `select`.
"""

from trimgate.tasks._common import decode, encode, log_metrics, start
from trimgate.tasks._deploy import check_deploy, deploy_kserve, serving_for
from trimgate.tasks._judging import benchmark, check_serving, evaluate, gate, report, select
from trimgate.tasks._kubeflow import log_classification
from trimgate.tasks._models import apply_technique, describe_model, import_model, load_data
from trimgate.tasks._release import (
    fetch_model,
    promote,
    publish,
    register,
    reject,
    releases_of,
    store_of,
    trust_of,
)
from trimgate.tasks._rollout import (
    begin_rollout,
    local_platform_state,
    platform_of,
    watch_rollout,
)
from trimgate.tasks._search import halve, sample, screen

__all__ = [
    "apply_technique",
    "begin_rollout",
    "benchmark",
    "check_deploy",
    "check_serving",
    "decode",
    "deploy_kserve",
    "describe_model",
    "encode",
    "evaluate",
    "fetch_model",
    "gate",
    "halve",
    "import_model",
    "load_data",
    "local_platform_state",
    "log_classification",
    "log_metrics",
    "platform_of",
    "promote",
    "publish",
    "register",
    "reject",
    "releases_of",
    "report",
    "sample",
    "screen",
    "select",
    "serving_for",
    "start",
    "store_of",
    "trust_of",
    "watch_rollout",
]
