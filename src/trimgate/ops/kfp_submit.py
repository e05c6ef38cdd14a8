"""Submits a compiled pipeline to Kubeflow Pipelines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trimgate._yaml import documents
from trimgate.errors import InvalidInput


def submit(
    package: str | Path,
    *,
    host: str,
    token: str | None = None,
    namespace: str = "kubeflow",
    experiment: str = "trimgate",
    run_name: str | None = None,
    service_account: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    enable_caching: bool | None = None,
) -> tuple[str, str]:
    """Starts a run; nothing is uploaded but the pipeline itself.

    Args:
        package: The compiled pipeline.
        host: URL of the Kubeflow Pipelines API.
        token: Bearer token; never logged.
        namespace: The user's namespace.
        experiment: Name of the experiment; made when absent.
        run_name: Name of the run; the pipeline's name and the time when left out.
        service_account: Kubernetes ServiceAccount that the pods run as.
        arguments: Pipeline parameters to say anew.
        enable_caching: None leaves it to each task.

    Returns:
        The run's id and its page in the Kubeflow UI.

    Raises:
        InvalidInput: A parameter is unknown or still names something on this machine, or the
            server does not answer or refuses.
    """
    import kfp_server_api
    from kfp import Client

    path = Path(package)
    if not path.is_file():
        raise InvalidInput("the file is missing", file=path, mend="`trimgate compile` writes one")
    check_arguments(path, arguments or {})
    _check_server(host, token)
    try:
        client = Client(host=host, existing_token=token, namespace=namespace)
        client.create_experiment(experiment, namespace=namespace)
        run = client.create_run_from_pipeline_package(
            str(path),
            arguments=dict(arguments or {}),
            run_name=run_name,
            experiment_name=experiment,
            namespace=namespace,
            service_account=service_account,
            enable_caching=enable_caching,
        )
    except kfp_server_api.ApiException as error:
        raise _refused(host, error.status, error.reason) from error
    return run.run_id, f"{host.rstrip('/')}/#/runs/details/{run.run_id}"


def _check_server(host: str, token: str | None) -> None:
    """One quick call: kfp's own client repeats a refused one for half a minute."""
    import requests

    try:
        response = requests.get(
            f"{host.rstrip('/')}/apis/v2beta1/healthz",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=15,
        )
    except (requests.RequestException, ValueError) as error:
        raise InvalidInput(
            f"no Kubeflow Pipelines API answers there ({type(error).__name__})",
            key="--host",
            value=host,
            mend="check the URL; `kubectl port-forward` makes a cluster's API reachable",
        ) from error
    if not response.ok:
        raise _refused(host, response.status_code, response.reason)


def _refused(host: str, status: int, reason: str) -> InvalidInput:
    mend = "give a valid token in TRIMGATE_KFP_TOKEN" if status in (401, 403) else None
    return InvalidInput(
        f"the server refused ({status} {reason})", key="--host", value=host, mend=mend
    )


def check_arguments(package: Path, arguments: Mapping[str, Any]) -> None:
    """Refuses unknown parameters, and those that a pod could not read.

    Raises:
        InvalidInput: The first parameter at fault.
    """
    try:
        spec = documents(package.read_text())[0]
        defined = spec["root"]["inputDefinitions"]["parameters"]
    except (yaml.YAMLError, UnicodeDecodeError, IndexError, KeyError, TypeError) as error:
        raise InvalidInput(
            "is not a compiled pipeline", file=package, mend="`trimgate compile` writes one"
        ) from error
    for name in arguments:
        if name not in defined:
            raise InvalidInput(
                "the pipeline has no such parameter",
                file=package,
                key=name,
                mend=f"it has {', '.join(defined)}",
            )
    values = {name: d.get("defaultValue", "") for name, d in defined.items()} | dict(arguments)
    for name, value in values.items():
        if not isinstance(value, str) or not name.endswith("_uri") or not value:
            continue
        local = value.startswith("sqlite:") if name == "mlflow_tracking_uri" else "://" not in value
        if local:
            raise InvalidInput(
                "lies on this machine, where a pod cannot read it",
                file=package,
                key=name,
                value=value,
                mend=f"name a shared place: --parameter {name}=...",
            )
