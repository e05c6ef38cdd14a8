"""What the status of an InferenceService says, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_FAILED = ("BlockedByFailedLoad", "InvalidSpec")


@dataclass(frozen=True)
class ServiceStatus:
    """A look at an InferenceService.

    Attributes:
        name: Its name.
        ready: Whether all of what its spec asks for answers, canaries with their shares included.
        failed: Why it will not become ready by waiting, or an empty text.
        waiting: What is not ready yet, each with KServe's reason, in words.
        url: Where it answers, or an empty text.
    """

    name: str
    ready: bool
    failed: str
    waiting: tuple[str, ...]
    url: str

    def __str__(self) -> str:
        if self.failed:
            return f"{self.name} failed: {self.failed}"
        if self.ready:
            return f"{self.name} is ready" + (f" at {self.url}" if self.url else "")
        return f"{self.name} is not ready: {'; '.join(self.waiting)}"


def read_status(service: Mapping[str, Any], *, now: datetime | None = None) -> ServiceStatus:
    """Reads the status of an InferenceService as the API server gave it.

    KServe copies `observedGeneration` from the Deployment or the Knative Service, so it does not
    say whether the status is about the newest spec; of a canary its name and share tell.

    Args:
        service: The InferenceService.
        now: The time by which "for how long" is counted.
    """
    status = service.get("status") or {}
    now = now or datetime.now(UTC)
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    waiting: list[str] = []
    if not conditions:
        waiting.append("KServe's controller has not looked at it yet")
    for kind, one in sorted(conditions.items(), key=lambda item: item[0] == "Ready"):
        if one["status"] != "True" and (kind != "Ready" or not waiting):
            waiting.append(_condition(kind, one, now))
    if conditions and "Ready" not in conditions:
        waiting.append("it has no condition Ready")
    model = status.get("modelStatus") or {}
    failed = _failure("the model", model)
    state = _loading("the model", model)
    if state:
        waiting.append(state)
    seen = {one["name"]: one for one in status.get("canaryStatuses") or ()}
    for entry in service["spec"].get("canary") or ():
        name, share = entry["predictor"].get("name", ""), entry["trafficPercent"]
        one = seen.get(name)
        if one is None:
            waiting.append(f"the canary {name} is not there yet")
            continue
        failed = failed or _failure(f"the canary {name}", one.get("modelStatus") or {})
        if not one["ready"]:
            state = _loading(f"the canary {name}", one.get("modelStatus") or {})
            waiting.append(state or f"the canary {name} is not ready")
        elif one["trafficPercent"] != share:
            waiting.append(
                f"the canary {name} gets {one['trafficPercent']} % of the traffic, not {share} %"
            )
    waiting += _traffic(service, status)
    return ServiceStatus(
        name=service["metadata"]["name"],
        ready=not waiting and not failed,
        failed=failed,
        waiting=tuple(waiting),
        url=str(status.get("url") or ""),
    )


def _traffic(service: Mapping[str, Any], status: Mapping[str, Any]) -> list[str]:
    """In Knative mode: whether the newest revision gets the share that the spec says."""
    share = service["spec"]["predictor"].get("canaryTrafficPercent")
    if share is None:
        return []
    predictor = (status.get("components") or {}).get("predictor") or {}
    newest = [t for t in predictor.get("traffic") or () if t.get("latestRevision")]
    given = newest[0].get("percent", 0) if newest else None
    if given == share:
        return []
    return [f"the newest revision gets {given or 0} % of the traffic, not {share} %"]


def _condition(kind: str, one: Mapping[str, Any], now: datetime) -> str:
    text = f"{kind} is {one['status']}"
    if one.get("reason"):
        text += f" ({one['reason']})"
    if one.get("message"):
        text += f": {one['message']}"
    since = one.get("lastTransitionTime")
    if since:
        seconds = (now - datetime.fromisoformat(since)).total_seconds()
        text += f", for {max(0, round(seconds))} s"
    return " ".join(text.split())


def _failure(what: str, model: Mapping[str, Any]) -> str:
    if model.get("transitionStatus") not in _FAILED:
        return ""
    info = model.get("lastFailureInfo") or {}
    told = ": ".join(str(info[key]) for key in ("reason", "message") if info.get(key))
    code = f" (exit code {info['exitCode']})" if info.get("exitCode") else ""
    return f"{what}: {told or model['transitionStatus']}{code}"


def _loading(what: str, model: Mapping[str, Any]) -> str:
    if model.get("transitionStatus") != "InProgress":
        return ""
    states = model.get("states") or {}
    state = states.get("targetModelState") or states.get("activeModelState") or "Pending"
    copies = (model.get("copies") or {}).get("failedCopies", 0)
    info = model.get("lastFailureInfo") or {}
    text = f"{what} is in progress ({state})"
    if copies:
        text += f", {copies} of its pods failed"
    if info.get("message"):
        text += f": {info.get('reason', '')} {info['message']}"
    return " ".join(text.split())
