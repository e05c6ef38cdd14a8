"""The files of a model in a config repository."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from trimgate.ops._yaml_edit import rewrite
from trimgate.ops.git._repository import Change, ConfigRepository
from trimgate.ops.release import Release, check_name, release_path, write

if TYPE_CHECKING:
    from trimgate.ops.kserve import Serving

_KUSTOMIZATION = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}


def add_to_repository(
    repository: ConfigRepository,
    name: str,
    environments: Sequence[str],
    *,
    serving: "Serving | None" = None,
    namespaces: Mapping[str, str] | None = None,
) -> str | None:
    """Adds a model's base and overlays to a config repository; files that are there stay.

    Args:
        repository: An open config repository; it may be empty.
        name: The model's name.
        environments: The environments, such as `staging` and `production`.
        serving: How the model is served.
        namespaces: Namespace of an environment, where the overlay is to set one.

    Returns:
        The new revision; None when all was there.
    """

    def edit(repository: ConfigRepository) -> Change | None:
        wanted = add_model(name, environments, serving=serving, namespaces=namespaces)
        files = {path: text for path, text in wanted.items() if repository.read(path) is None}
        for environment in environments:
            path = f"overlays/{environment}/kustomization.yaml"
            files |= _listed(path, name, repository.read(path))
        if not files:
            return None
        return Change(f"Add {name} for {', '.join(environments)}\n", files)

    return repository.change(edit)


def add_model(
    name: str,
    environments: Sequence[str],
    *,
    serving: "Serving | None" = None,
    namespaces: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """A model's files by path: base and overlays, with nothing released yet."""
    from trimgate.ops.kserve import Serving, base_service, disruption_budget

    check_name(name)
    serving = serving or Serving()
    base = {
        "inferenceservice.yaml": base_service(name, serving),
        "poddisruptionbudget.yaml": disruption_budget(name),
    }
    base["kustomization.yaml"] = {**_KUSTOMIZATION, "resources": list(base)}
    files = {f"base/{name}/{file}": _dump(content) for file, content in base.items()}
    for environment in environments:
        folder = f"overlays/{environment}/{name}"
        namespace = (namespaces or {}).get(environment)
        overlay = {
            **_KUSTOMIZATION,
            **({"namespace": namespace} if namespace else {}),
            "resources": [f"../../../base/{name}"],
            "patches": [{"path": "release.yaml"}],
        }
        files[f"{folder}/kustomization.yaml"] = _dump(overlay)
        empty = Release(name=name, environment=environment, mode=serving.mode)
        files[release_path(name, environment)] = write(empty)
    return files


def _listed(path: str, name: str, text: str | None) -> dict[str, str]:
    """The environment's own kustomization, with the model in its list."""
    document = yaml.safe_load(text) if text else dict(_KUSTOMIZATION)
    listed = document.get("resources") or []
    if name in listed:
        return {}
    document = {**document, "resources": [*listed, name]}
    return {path: rewrite(text, document) if text else _dump(document)}


def _dump(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=False, width=10**6)
