"""What KServe's schema cannot say: the rules of its webhook, and those that keep releases sound.

The webhook's rules are those of KServe 0.20 and 0.21. Where KServe would take an object and then
do something else than it says (a canary that gets no traffic, a manifest that is out of sync for
ever, a URI whose bytes may change), it is refused here too.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from trimgate.errors import InvalidInput
from trimgate.ops.kserve._quantities import canonical
from trimgate.ops.release import LABEL, MODE_ANNOTATION, NOT_IN_CANARY

AUTOSCALER_ANNOTATION = "serving.kserve.io/autoscalerClass"
KNATIVE_CLASS_ANNOTATION = "autoscaling.knative.dev/class"
_KPA, _KNATIVE_HPA = "kpa.autoscaling.knative.dev", "hpa.autoscaling.knative.dev"

_AUTOSCALERS = ("hpa", "keda", "external", "none")
_SCHEMES = (
    "s3://", "pvc://", "gs://", "hf://", "oci://", "file://", "https://", "http://", "hdfs://",
    "webhdfs://",
)  # fmt: skip
_MUTABLE = ("pvc://", "oci://", "hf://")  # one volume, image or revision: no prefix matches more
_OLD_FORMS = (
    "huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn", "tensorflow",
    "triton", "xgboost",
)  # fmt: skip
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NOT_IN_KNATIVE = ("terminationGracePeriodSeconds", "deploymentStrategy")


def check(obj: Mapping[str, Any]) -> Iterator[InvalidInput]:
    """The problems of an object that its schema takes."""
    name = obj["metadata"]["name"]
    if not _NAME.fullmatch(name) and obj["kind"] in ("InferenceService", "InferenceGraph"):
        yield InvalidInput(
            "must begin with a letter and hold lower case letters, digits and `-`",
            key="metadata.name", value=name,
        )  # fmt: skip
    if obj["kind"] == "InferenceService":
        yield from _service(obj)
    elif obj["kind"] == "InferenceGraph":
        yield from _graph(obj["spec"])
    else:
        yield from _runtime(obj["spec"])
    yield from _quantities(obj["spec"], "spec")


def check_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[InvalidInput]:
    """What KServe refuses of a change.

    Args:
        before: The InferenceService as it is on the cluster, with its status.
        after: As it shall be.
    """
    known = {"RawDeployment": "Standard", "Serverless": "Knative"}
    was = str(before.get("status", {}).get("deploymentMode") or "")
    wanted = after["metadata"].get("annotations", {}).get(MODE_ANNOTATION)
    if was and wanted != known.get(was, was):
        yield InvalidInput(
            f"cannot be changed: the service runs in the mode {known.get(was, was)}",
            key=f"metadata.annotations.{MODE_ANNOTATION}", value=wanted,
            mend="delete the InferenceService first, or keep its mode",
        )  # fmt: skip
    old, new = before["spec"]["predictor"], after["spec"]["predictor"]
    if old.get("name") != new.get("name") and _uri(old) == _uri(new):
        yield InvalidInput(
            "changes without a change of the model", key="spec.predictor.name",
            value=new.get("name") or "", mend="change model.storageUri with it, or keep the name",
        )  # fmt: skip


def _uri(predictor: Mapping[str, Any]) -> str:
    return str(predictor.get("model", {}).get("storageUri", ""))


def _service(obj: Mapping[str, Any]) -> Iterator[InvalidInput]:
    notes, spec = obj["metadata"].get("annotations", {}), obj["spec"]
    mode = notes.get(MODE_ANNOTATION)
    if mode not in ("Standard", "Knative"):
        yield InvalidInput(
            "must say Standard or Knative: it cannot be changed later",
            key=f"metadata.annotations.{MODE_ANNOTATION}", value=mode,
            mend=f"add the annotation `{MODE_ANNOTATION}: Standard`",
        )  # fmt: skip
    predictor = spec["predictor"]
    yield from _predictor(predictor, "spec.predictor")
    if predictor.get("model", {}).get("name"):
        yield InvalidInput(
            "must be left out: the webhook refuses it", key="spec.predictor.model.name",
            value=predictor["model"]["name"],
        )  # fmt: skip
    for part in ("predictor", "transformer", "explainer"):
        if part in spec:
            yield from _scaling(spec[part], f"spec.{part}", mode, notes)
            yield from _extension(spec[part], f"spec.{part}")
    if mode == "Knative":
        yield from _knative(predictor, spec)
    else:
        yield from _canaries(predictor, spec)
        yield from _lengths(obj["metadata"]["name"], spec)


def _lengths(name: str, spec: Mapping[str, Any]) -> Iterator[InvalidInput]:
    """The label `app` of a predictor's pods is made of both names, and KServe checks neither."""
    predictors = {"spec.predictor": spec["predictor"]}
    for number, entry in enumerate(spec.get("canary", ())):
        predictors[f"spec.canary[{number}].predictor"] = entry["predictor"]
    for path, predictor in predictors.items():
        own = predictor.get("name")
        label = f"isvc.{name}-{own}-predictor" if own else f"isvc.{name}-predictor"
        if len(label) > LABEL:
            yield InvalidInput(
                f"is too long: KServe labels its pods {label!r}, which has {len(label)} characters "
                f"of at most {LABEL}",
                key=f"{path}.name" if own else "metadata.name", value=own or name,
                mend=f"make it {len(label) - LABEL} shorter",
            )  # fmt: skip


def _predictor(predictor: Mapping[str, Any], path: str) -> Iterator[InvalidInput]:
    old = [form for form in _OLD_FORMS if form in predictor]
    if old:
        yield InvalidInput(
            "is rewritten by KServe, and then differs from what was written",
            key=f"{path}.{old[0]}",
            mend=f"write `model:` with `modelFormat: {{name: {old[0]}}}`",
        )
        return
    model = predictor.get("model")
    if model is None:
        if "containers" not in predictor:
            yield InvalidInput("the key is missing", key=f"{path}.model", mend="add `model`")
        return
    if not model.get("runtime"):
        yield InvalidInput(
            "must be named: which one KServe takes by itself depends on what is installed",
            key=f"{path}.model.runtime", mend="add `runtime: trimgate`",
        )  # fmt: skip
    if model.get("protocolVersion") not in ("v2", "grpc-v2"):
        yield InvalidInput(
            "must be v2, which trimgate's checks and watchers speak",
            key=f"{path}.model.protocolVersion", value=model.get("protocolVersion"),
            mend="write `protocolVersion: v2`",
        )  # fmt: skip
    if any(one["name"] == "PYTHONPATH" for one in model.get("env", ())):
        yield InvalidInput("KServe refuses PYTHONPATH", key=f"{path}.model.env")
    yield from _storage(model, predictor, path)


def _storage(
    model: Mapping[str, Any], predictor: Mapping[str, Any], path: str
) -> Iterator[InvalidInput]:
    uri, key = model.get("storageUri"), f"{path}.model.storageUri"
    if uri is None:
        if not predictor.get("storageUris") and "storage" not in model:
            yield InvalidInput("the key is missing", key=key, mend="a release sets it")
        return
    if predictor.get("storageUris"):
        yield InvalidInput("stands beside storageUris", key=key, value=uri, mend="keep one of them")
    if not uri.startswith(_SCHEMES):
        yield InvalidInput(
            "is of no kind that KServe reads", key=key, value=uri,
            mend=f"begin it with one of {', '.join(_SCHEMES[:5])}",
        )  # fmt: skip
    elif not uri.endswith("/") and not uri.startswith(_MUTABLE):
        yield InvalidInput(
            "must end with `/`: without it every path that begins so is fetched",
            key=key, value=uri, mend=f"write {uri}/",
        )  # fmt: skip
    elif not _DIGEST.search(uri):
        yield InvalidInput(
            "holds no SHA-256: the bytes under it may change, and then nothing is rolled out and "
            "nothing can be rolled back",
            key=key, value=uri, mend="publish the model to a store, which gives such a URI",
        )  # fmt: skip


def _extension(part: Mapping[str, Any], path: str) -> Iterator[InvalidInput]:
    least, most = part.get("minReplicas", 1), part.get("maxReplicas", 0)
    for key, value in (("minReplicas", least), ("maxReplicas", most)):
        if value < 0:
            yield InvalidInput("cannot be negative", key=f"{path}.{key}", value=value)
    if 0 < most < least:
        yield InvalidInput(
            f"is more than maxReplicas ({most})", key=f"{path}.minReplicas", value=least
        )
    if part.get("containerConcurrency", 0) < 0:
        yield InvalidInput(
            "cannot be negative", key=f"{path}.containerConcurrency",
            value=part["containerConcurrency"],
        )  # fmt: skip
    if "logger" in part and "mode" not in part["logger"]:
        yield InvalidInput(
            "the key is missing", key=f"{path}.logger.mode", mend="add all, request or response"
        )


def _scaling(
    part: Mapping[str, Any], path: str, mode: object, notes: Mapping[str, str]
) -> Iterator[InvalidInput]:
    autoscaler, key = notes.get(AUTOSCALER_ANNOTATION), "metadata.annotations.{}"
    if autoscaler is not None and autoscaler not in _AUTOSCALERS:
        mend = f"use one of {', '.join(_AUTOSCALERS)}"
        if autoscaler == "kpa":
            mend = f"in Knative mode write `{KNATIVE_CLASS_ANNOTATION}: {_KPA}`"
        yield InvalidInput(
            "is no autoscaler that KServe's webhook takes", key=key.format(AUTOSCALER_ANNOTATION),
            value=autoscaler, mend=mend,
        )  # fmt: skip
    metric, target = part.get("scaleMetric"), part.get("scaleTarget")
    metrics = list(part.get("autoScaling", {}).get("metrics", ()))
    if mode == "Standard":
        if KNATIVE_CLASS_ANNOTATION in notes:
            yield InvalidInput(
                "means nothing in Standard mode", key=key.format(KNATIVE_CLASS_ANNOTATION),
                value=notes[KNATIVE_CLASS_ANNOTATION], mend=f"use {AUTOSCALER_ANNOTATION}",
            )  # fmt: skip
        if autoscaler == "keda":
            yield from _keda(metric, metrics, path)
        elif autoscaler in (None, "hpa"):
            yield from _hpa(metric, target, metrics, path)
        if part.get("minReplicas") == 0 and autoscaler != "keda":
            yield InvalidInput(
                "leaves no pod, and in Standard mode only KEDA brings one back",
                key=f"{path}.minReplicas", value=0, mend="write 1",
            )  # fmt: skip
    elif mode == "Knative":
        if notes.get(KNATIVE_CLASS_ANNOTATION) == _KNATIVE_HPA:
            yield from _hpa(metric, target, metrics, path)
        elif metric not in (None, "concurrency", "rps"):
            yield InvalidInput(
                "is no metric of Knative's autoscaler", key=f"{path}.scaleMetric", value=metric,
                mend="use concurrency or rps",
            )  # fmt: skip
        elif metric == "rps" and target is not None and target < 1:
            yield InvalidInput("must be 1 or more", key=f"{path}.scaleTarget", value=target)


def _hpa(metric: Any, target: Any, metrics: list[Any], path: str) -> Iterator[InvalidInput]:
    if metric not in (None, "cpu", "memory"):
        yield InvalidInput(
            "is no metric of the HPA", key=f"{path}.scaleMetric", value=metric,
            mend="use cpu or memory",
        )  # fmt: skip
    if target is not None and (target > 100 or (target < 1 and metric != "memory")):
        yield InvalidInput(
            "is a percentage from 1 to 100", key=f"{path}.scaleTarget", value=target
        )
    for number, one in enumerate(metrics):
        if one["type"] != "Resource" or "resource" not in one:
            yield InvalidInput(
                "the HPA takes metrics of resources only", value=one["type"],
                key=f"{path}.autoScaling.metrics[{number}].type", mend="use KEDA for others",
            )  # fmt: skip


def _keda(metric: Any, metrics: list[Any], path: str) -> Iterator[InvalidInput]:
    if metric is not None:
        yield InvalidInput(
            "KEDA takes none", key=f"{path}.scaleMetric", value=metric,
            mend="write autoScaling.metrics",
        )  # fmt: skip
    for number, one in enumerate(metrics):
        where = f"{path}.autoScaling.metrics[{number}]"
        name = {"Resource": "resource", "External": "external", "PodMetric": "podmetric"}[
            one["type"]
        ]
        source = one.get(name)
        if source is None:
            yield InvalidInput("the key is missing", key=f"{where}.{name}")
            continue
        target = source["target"]
        wanted = {
            "Utilization": "averageUtilization", "AverageValue": "averageValue", "Value": "value",
        }.get(target.get("type", ""))  # fmt: skip
        if wanted and wanted not in target:
            yield InvalidInput("the key is missing", key=f"{where}.{name}.target.{wanted}")
        if name == "resource":
            taken = ("Utilization",) if source["name"] == "cpu" else ("Utilization", "AverageValue")
            if target.get("type") not in taken:
                yield InvalidInput(
                    f"must be {' or '.join(taken)} for {source['name']}",
                    key=f"{where}.resource.target.type", value=target.get("type"),
                )  # fmt: skip
            share = target.get("averageUtilization", 1)
            if not 1 <= share <= 100:
                yield InvalidInput(
                    "is a percentage from 1 to 100", value=share,
                    key=f"{where}.resource.target.averageUtilization",
                )  # fmt: skip
        else:
            if not source["metric"].get("query"):
                yield InvalidInput("the key is missing", key=f"{where}.{name}.metric.query")
            if "value" not in target:
                yield InvalidInput("the key is missing", key=f"{where}.{name}.target.value")


def _knative(predictor: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[InvalidInput]:
    if spec.get("canary"):
        yield InvalidInput(
            "is for Standard mode", key="spec.canary",
            mend="in Knative mode write spec.predictor.canaryTrafficPercent",
        )  # fmt: skip
    share = predictor.get("canaryTrafficPercent")
    if share is not None and not 0 <= share <= 100:
        yield InvalidInput(
            "is a share from 0 to 100", key="spec.predictor.canaryTrafficPercent", value=share
        )
    for key in _NOT_IN_KNATIVE:
        if key in predictor:
            yield InvalidInput(
                "Knative refuses it", key=f"spec.predictor.{key}", mend="leave it out"
            )
    if "lifecycle" in predictor.get("model", {}):
        yield InvalidInput(
            "Knative refuses it", key="spec.predictor.model.lifecycle",
            mend="leave it out: Knative drains by itself",
        )  # fmt: skip


def _canaries(predictor: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[InvalidInput]:
    if "canaryTrafficPercent" in predictor:
        yield InvalidInput(
            "is ignored in Standard mode, without a word",
            key="spec.predictor.canaryTrafficPercent", value=predictor["canaryTrafficPercent"],
            mend="write spec.canary",
        )  # fmt: skip
    total, names = 0, {predictor.get("name", "")}
    for number, entry in enumerate(spec.get("canary", ())):
        path, canary = f"spec.canary[{number}]", entry["predictor"]
        name, share = canary.get("name", ""), entry["trafficPercent"]
        if not name:
            yield InvalidInput("the key is missing", key=f"{path}.predictor.name")
        elif name in names:
            yield InvalidInput(
                "is taken by the stable predictor or another canary",
                key=f"{path}.predictor.name", value=name, mend="give each its own name",
            )  # fmt: skip
        names.add(name)
        total += share
        for key in (*NOT_IN_CANARY, "canaryTrafficPercent"):
            if key in canary:
                yield InvalidInput(
                    "a canary has a fixed number of replicas and takes no such key",
                    key=f"{path}.predictor.{key}", mend="leave it out",
                )  # fmt: skip
        yield from _predictor(canary, f"{path}.predictor")
        yield from _extension(
            {k: v for k, v in canary.items() if k not in NOT_IN_CANARY}, f"{path}.predictor"
        )
        least, stable = canary.get("minReplicas"), predictor.get("minReplicas", 1)
        if least is not None and least > stable:
            yield InvalidInput(
                f"is more than the stable predictor's ({stable})",
                key=f"{path}.predictor.minReplicas", value=least,
            )  # fmt: skip
        if share == 0 and not least:
            yield InvalidInput(
                "must be 1 or more: at 0 % KServe starts no pod, and the canary is never ready",
                key=f"{path}.predictor.minReplicas", value=least, mend="write 1",
            )  # fmt: skip
    if total > 100:
        yield InvalidInput("the canaries' shares add up to more than 100", key="spec.canary",
                           value=total)  # fmt: skip


def _graph(spec: Mapping[str, Any]) -> Iterator[InvalidInput]:
    nodes = spec["nodes"]
    if "root" not in nodes:
        yield InvalidInput("the key is missing", key="spec.nodes.root", mend="name a node `root`")
    for name, node in nodes.items():
        path, seen = f"spec.nodes.{name}", set()
        for number, step in enumerate(node.get("steps", ())):
            where = f"{path}.steps[{number}]"
            if step.get("name") in seen:
                yield InvalidInput("stands twice", key=f"{where}.name", value=step["name"])
            if step.get("name"):
                seen.add(step["name"])
            given = [k for k in ("nodeName", "serviceName", "serviceUrl") if step.get(k)]
            if len(given) != 1:
                yield InvalidInput(
                    "needs one target, and has " + (" and ".join(given) or "none"), key=where,
                    mend="give one of nodeName, serviceName and serviceUrl",
                )  # fmt: skip
            if step.get("nodeName") and step["nodeName"] not in nodes:
                yield InvalidInput(
                    "the graph has no such node", key=f"{where}.nodeName", value=step["nodeName"]
                )
        if node["routerType"] == "Splitter":
            weights = [step.get("weight") for step in node.get("steps", ())]
            if None in weights or sum(weights) != 100:
                yield InvalidInput("the weights must add up to 100", key=f"{path}.steps")


def _runtime(spec: Mapping[str, Any]) -> Iterator[InvalidInput]:
    if "kserve-container" not in [container["name"] for container in spec["containers"]]:
        yield InvalidInput(
            "no container is named kserve-container, which is the one that KServe fills in",
            key="spec.containers",
        )  # fmt: skip
    priorities: dict[str, set[int]] = {}
    for one in spec.get("supportedModelFormats", ()):
        if "priority" in one:
            priorities.setdefault(one.get("name", ""), set()).add(one["priority"])
    for name, given in priorities.items():
        if len(given) > 1:
            yield InvalidInput(
                f"{name} has different priorities", key="spec.supportedModelFormats"
            )


def _quantities(value: Any, path: str) -> Iterator[InvalidInput]:
    """Quantities of `resources` that are not in the form that the API server writes."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _quantities(one, f"{path}[{number}]")
    elif isinstance(value, dict):
        for key, one in value.items():
            if key != "resources" or not isinstance(one, dict):
                yield from _quantities(one, f"{path}.{key}")
                continue
            for part in ("requests", "limits"):
                for name, quantity in one.get(part, {}).items():
                    where = f"{path}.{key}.{part}.{name}"
                    try:
                        wanted = canonical(quantity)
                    except InvalidInput as error:
                        yield InvalidInput(error.problem, key=where, value=quantity,
                                           mend=error.mend)  # fmt: skip
                        continue
                    if quantity != wanted:
                        yield InvalidInput(
                            "is written back by the API server in another form, and differs from "
                            "Git for ever", key=where, value=quantity, mend=f"write '{wanted}'",
                        )  # fmt: skip
