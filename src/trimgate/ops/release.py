"""The release record: what is released of a model in one environment, and its file.

The file, `overlays/<environment>/<model>/release.yaml` of a config repository, is a kustomize
patch of the model's InferenceService: what people read is what the cluster gets. It sets the
annotations `trimgate.dev/...`, the stable model's `storageUri` and, while there is one, the
canary. Everything else of the InferenceService stands in `base/<model>/`.

In KServe's Standard mode a canary is an entry of `spec.canary` with a predictor of its own, and
becomes the stable one when `spec.predictor` takes its name and URI. In Knative mode
`spec.predictor` holds the canary's URI and `canaryTrafficPercent`, and Knative keeps the revision
before it.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from trimgate.errors import InvalidInput
from trimgate.ops._yaml_edit import rewrite

Mode = Literal["Standard", "Knative"]
PREFIX = "trimgate.dev/"
MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
NOT_IN_CANARY = ("maxReplicas", "scaleTarget", "scaleMetric", "scaleMetricType", "autoScaling",
                 "workerSpec")  # fmt: skip
"""Fields of a predictor that KServe's webhook refuses in a canary."""
LABEL = 63
"""The longest name of a Service in Kubernetes, and the longest value of a label (RFC 1123)."""
LONGEST_NAME = LABEL - len("isvc.") - len("-m123456b") - len("-predictor")
"""KServe labels the pods of a canary `isvc.<name>-<predictor>-predictor`."""
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_HEAD = "# `trimgate promote` writes this file and kustomize applies it; comments are kept.\n"


def check_name(name: object) -> object:
    """Refuses a name that an InferenceService cannot have, or that leaves a canary no room.

    Raises:
        InvalidInput: It is none; the message says the limit.
    """
    if not isinstance(name, str):
        return name  # another type is refused by the field itself
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "must begin with a letter and hold lower case letters, digits and dashes",
            value=name, mend="it is also the name of the InferenceService, such as fraud-2024",
        )  # fmt: skip
    if len(name) > LONGEST_NAME:
        raise InvalidInput(
            f"has {len(name)} characters, and {LONGEST_NAME} is the most: for a canary KServe adds "
            f"{LABEL - LONGEST_NAME} of its own, and Kubernetes takes {LABEL}",
            value=name, mend="choose a shorter name",
        )  # fmt: skip
    return name


ModelName = Annotated[
    str,
    BeforeValidator(check_name),
    WithJsonSchema(
        {"type": "string", "pattern": f"^{_NAME.pattern}$", "maxLength": LONGEST_NAME}
    ),
]
"""A model's name, which is also that of its InferenceService."""


class ReleasedModel(BaseModel):
    """A model that is served.

    Attributes:
        storage_uri: Its immutable place; the digest is in the path.
        digest: `sha256:...` of its content.
        version: Its version in MLflow, or an empty text.
        run: The run that made and judged it.
        verdict: The gate's outcome.
        promoted: ISO 8601 time in UTC of its promotion here.
        predictor: In Standard mode the name of its predictor, which is part of its Deployment's
            name; empty for KServe's own name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    storage_uri: str = Field(pattern=r"^\S+$")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    version: str = ""
    run: str
    verdict: str
    promoted: str
    predictor: str = Field(default="", pattern=r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$")


class Release(BaseModel):
    """What is released under a model's name in one environment.

    Attributes:
        name: The model's name.
        environment: `staging`, `production`, ...
        mode: KServe's deployment mode; the InferenceService cannot change it.
        stable: The model that gets the traffic, or None while there is none.
        canary: The model that is tried beside it.
        traffic_percent: Share of the traffic that goes to the canary; 0 without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: ModelName
    environment: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    mode: Mode = "Standard"
    stable: ReleasedModel | None = None
    canary: ReleasedModel | None = None
    traffic_percent: int = Field(default=0, ge=0, le=100)

    @model_validator(mode="after")
    def _whole(self) -> "Release":
        if self.canary is None and self.traffic_percent:
            raise ValueError("there is no canary that could get traffic")
        if self.canary is not None:
            if self.stable is None:
                raise ValueError("a canary stands beside a stable model, and there is none")
            if self.canary.digest == self.stable.digest:
                raise ValueError("the canary is the stable model")
        return self


def release_stable(release: Release, model: ReleasedModel) -> Release:
    """Gives all traffic to a model at once; a canary is dropped.

    Its predictor keeps the name that it has, so that KServe rolls one Deployment over. A model
    that is stable already stays as it was recorded.
    """
    if release.stable is not None and release.stable.digest == model.digest:
        return drop_canary(release)
    name = release.stable.predictor if release.stable else ""
    return _with(release, stable=model.model_copy(update={"predictor": name}), canary=None)


def start_canary(release: Release, model: ReleasedModel, percent: int) -> Release:
    """Puts a model beside the stable one with a share of the traffic.

    Args:
        release: The release now.
        model: The canary; another canary is replaced.
        percent: Its share of the traffic, 1 to 99.

    Raises:
        InvalidInput: Nothing is stable yet, the model is the stable one, or the share is none.
    """
    if release.stable is None:
        raise InvalidInput(
            f"nothing of {release.name} is released in {release.environment} that a canary "
            "could stand beside",
            mend="promote the first model without a canary",
        )
    if release.stable.digest == model.digest:
        raise InvalidInput(
            f"is the stable model of {release.name} in {release.environment} already",
            key="canary", value=model.digest,
        )  # fmt: skip
    if release.canary is not None and release.canary.digest == model.digest:
        return set_share(release, percent)
    name = ""
    if release.mode == "Standard":
        # The canary's Deployment becomes the stable one, so the name may not be taken by it.
        name = f"m{model.digest.removeprefix('sha256:')[:6]}"
        if release.stable.predictor == name:
            name += "b"
    canary = model.model_copy(update={"predictor": name})
    return _with(release, canary=canary, traffic_percent=_share(percent))


def set_share(release: Release, percent: int) -> Release:
    """Gives the canary another share of the traffic, 1 to 99.

    Raises:
        InvalidInput: There is no canary, or the share is none.
    """
    _canary(release)
    return _with(release, traffic_percent=_share(percent))


def promote_canary(release: Release, promoted: str | None = None) -> Release:
    """Makes the canary the stable model.

    Args:
        release: The release now.
        promoted: Time of its promotion; that of the canary when left out.

    Raises:
        InvalidInput: There is no canary.
    """
    canary = _canary(release)
    stable = canary.model_copy(update={"promoted": promoted or canary.promoted})
    return _with(release, stable=stable, canary=None)


def drop_canary(release: Release) -> Release:
    """The release without its canary; without one it stays as it is."""
    return _with(release, canary=None)


def release_path(name: str, environment: str) -> str:
    """Where the release file stands in a config repository."""
    return f"overlays/{environment}/{name}/release.yaml"


def read(text: str, *, file: str | Path = "release.yaml") -> Release:
    """Reads a release file.

    Args:
        text: Its content.
        file: Its name, for messages.

    Raises:
        InvalidInput: It is not a release file.
    """
    document = _document(text, file)
    metadata = _mapping(document.get("metadata"))
    notes = {str(key): str(value) for key, value in _mapping(metadata.get("annotations")).items()}
    spec = _mapping(document.get("spec"))
    predictor = _mapping(spec.get("predictor"))
    uri = _mapping(predictor.get("model")).get("storageUri")
    mode = notes.get(MODE_ANNOTATION, "Standard")
    canary: dict[str, Any] | None = None
    share: Any = 0
    if mode == "Knative" and PREFIX + "canary-digest" in notes:
        canary = {"storage_uri": uri}
        share = predictor.get("canaryTrafficPercent")
        uri = notes.get(PREFIX + "stable-uri")
    elif spec.get("canary"):
        entries = spec["canary"]
        if not isinstance(entries, list) or len(entries) != 1:
            raise InvalidInput("holds one canary at most", file=file, key="spec.canary")
        entry = _mapping(entries[0])
        other = _mapping(entry.get("predictor"))
        canary = {
            "storage_uri": _mapping(other.get("model")).get("storageUri"),
            "predictor": other.get("name", ""),
        }
        share = entry.get("trafficPercent")
    stable = {"storage_uri": uri, "predictor": predictor.get("name", "")}
    try:
        return Release(
            name=metadata.get("name", ""),
            environment=notes.get(PREFIX + "environment", ""),
            mode=mode,  # type: ignore[arg-type]
            stable=_model(stable, notes, "") if PREFIX + "digest" in notes else None,
            canary=_model(canary, notes, "canary-") if canary else None,
            traffic_percent=share,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"is not a release file: {first['msg'].removeprefix('Value error, ')}",
            file=file,
            key=".".join(map(str, first["loc"])) or None,
            mend="`trimgate history` lists the commits that changed it",
        ) from error


def write(release: Release, text: str = "", *, predictor: Mapping[str, Any] | None = None) -> str:
    """The release as its file; `read` gives it back.

    Args:
        release: The release.
        text: The file as it is now: comments and keys of others stay, and only lines that must
            change do. Nothing at all changes when it says the same already.
        predictor: `spec.predictor` of the base InferenceService, of which a new canary in
            Standard mode is made: KServe does not fill a canary's predictor from the stable one.
    """
    if text and read(text) == release:
        return text
    document = deepcopy(_document(text, "release.yaml")) if text else {}
    document.setdefault("apiVersion", "serving.kserve.io/v1beta1")
    document.setdefault("kind", "InferenceService")
    metadata = document.setdefault("metadata", {})
    metadata["name"] = release.name
    notes = metadata.setdefault("annotations", {})
    for key in [key for key in notes if key.startswith(PREFIX)]:
        if key.removeprefix(PREFIX).removeprefix("canary-") in (*_NOTES, "stable-uri"):
            del notes[key]
    wanted = {MODE_ANNOTATION: release.mode, PREFIX + "environment": release.environment}
    stable, canary = release.stable, release.canary
    if stable is not None:
        wanted |= _notes(stable, "")
    if canary is not None:
        wanted |= _notes(canary, "canary-")
        if release.mode == "Knative" and stable is not None:
            wanted[PREFIX + "stable-uri"] = stable.storage_uri
    notes.update(wanted)
    if stable is None:
        # Nothing is served: kustomize leaves the InferenceService out.
        document["$patch"] = "delete"
        document.pop("spec", None)
        return _text(document, text)
    document.pop("$patch", None)
    spec = document.setdefault("spec", {})
    served = spec.setdefault("predictor", {})
    served.pop("name", None)
    served.pop("canaryTrafficPercent", None)
    if release.mode == "Knative" and canary is not None:
        served.setdefault("model", {})["storageUri"] = canary.storage_uri
        served["canaryTrafficPercent"] = release.traffic_percent
    else:
        served.setdefault("model", {})["storageUri"] = stable.storage_uri
    if stable.predictor:
        served["name"] = stable.predictor
    before = spec.pop("canary", None)
    if release.mode == "Standard" and canary is not None:
        spec["canary"] = [_canary_entry(release, canary, before, predictor)]
    return _text(document, text)


_NOTES = ("run", "version", "digest", "verdict", "promoted")


def _canary_entry(
    release: Release,
    canary: ReleasedModel,
    before: Any,
    predictor: Mapping[str, Any] | None,
) -> dict[str, Any]:
    entry = before[0] if isinstance(before, list) and len(before) == 1 else {}
    if _mapping(entry.get("predictor")).get("name") != canary.predictor:
        made = {k: deepcopy(v) for k, v in (predictor or {}).items() if k not in NOT_IN_CANARY}
        model = {"modelFormat": {"name": "onnx"}, **made.get("model", {})}
        # The CRD requires a name in each canary's model, and KServe wants it empty.
        entry = {"predictor": {"name": canary.predictor, **made, "model": {"name": "", **model}}}
    entry["predictor"]["name"] = canary.predictor
    entry["predictor"]["model"]["storageUri"] = canary.storage_uri
    return {**entry, "trafficPercent": release.traffic_percent}


def _text(document: dict[str, Any], text: str) -> str:
    if text:
        return rewrite(text, document)
    return _HEAD + yaml.safe_dump(document, sort_keys=False, width=10**6)


def _document(text: str, file: str | Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise InvalidInput(f"is not YAML{where}", file=file, mend="see its last commit") from error
    if not isinstance(document, dict) or document.get("kind") != "InferenceService":
        raise InvalidInput("is not a patch of an InferenceService", file=file, key="kind")
    return document


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _notes(model: ReleasedModel, kind: str) -> dict[str, str]:
    values = {name: getattr(model, name) for name in _NOTES}
    return {f"{PREFIX}{kind}{name}": value for name, value in values.items() if value}


def _model(given: dict[str, Any], notes: Mapping[str, str], kind: str) -> ReleasedModel:
    said = {name: notes.get(f"{PREFIX}{kind}{name}", "") for name in _NOTES}
    return ReleasedModel(**given, **said)


def _canary(release: Release) -> ReleasedModel:
    if release.canary is None:
        raise InvalidInput(
            f"{release.name} has no canary in {release.environment}",
            mend="`trimgate promote --canary 10` starts one",
        )
    return release.canary


def _share(percent: int) -> int:
    if not 1 <= percent <= 99:
        raise InvalidInput("is a share from 1 to 99", key="canary", value=percent)
    return percent


def _with(release: Release, **changes: Any) -> Release:
    if changes.get("canary", release.canary) is None:
        changes["traffic_percent"] = 0
    return Release.model_validate({**dict(release), **changes})
