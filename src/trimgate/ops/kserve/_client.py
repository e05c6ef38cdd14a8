"""Writes to and reads from a cluster, for those who deploy without GitOps, and for tests.

`deployer` and `watcher` in `RIGHTS` are the rights that it needs: no more than what it calls.
"""

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trimgate.errors import InvalidInput, MissingExtra, TrimgateError
from trimgate.ops.kserve import _rules
from trimgate.ops.kserve._schemas import kinds
from trimgate.ops.kserve._status import ServiceStatus, read_status
from trimgate.ops.kserve._validation import validate

FIELD_MANAGER = "trimgate"
RIGHTS: dict[str, list[dict[str, list[str]]]] = {
    "promoter": [],  # writes to Git alone
    "watcher": [
        {"apiGroups": ["serving.kserve.io"], "resources": ["inferenceservices"], "verbs": ["get"]}
    ],
    "deployer": [
        {
            "apiGroups": ["serving.kserve.io"],
            "resources": ["inferenceservices"],
            # Server-side apply is a patch, and a create where nothing is yet.
            "verbs": ["get", "create", "patch"],
        }
    ],
}
"""The rules of a Role for each duty, in the namespace of the models."""

_PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds before a write that met another's is tried again
_TIMEOUT = (5, 30)  # seconds to connect, and to answer


class ClusterError(TrimgateError):
    """The cluster refused, or does not answer; the message says why in one line."""


class NotReady(ClusterError):
    """An InferenceService failed or did not become ready in time.

    Args:
        status: The last look at it.
        message: What happened.
    """

    def __init__(self, status: ServiceStatus, message: str) -> None:
        self.status = status
        super().__init__(message)


class Cluster:
    """A namespace of a cluster, through its API server.

    Args:
        api: A client of `kubernetes`, already configured.
        namespace: Where objects are that name no namespace.
    """

    def __init__(self, api: Any, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    @classmethod
    def connect(
        cls,
        namespace: str | None = None,
        *,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
    ) -> "Cluster":
        """Finds the cluster: a kubeconfig that is named, the pod's own account, or $KUBECONFIG.

        Args:
            namespace: The namespace; that of the context when left out.
            kubeconfig: A kubeconfig.
            context: One of its contexts; the current one when left out.

        Raises:
            InvalidInput: There is no usable configuration.
            MissingExtra: The package `kubernetes` is not installed.
        """
        try:
            from kubernetes import client, config
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "kubernetes", "kserve-cluster") from error
        settings = client.Configuration()
        own = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
        try:
            if kubeconfig is None and context is None and own.is_file():
                config.load_incluster_config(settings)
                namespace = namespace or own.read_text().strip()
            else:
                # the library reads the variable once, when it is imported
                file = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG")
                config.load_kube_config(file, context, settings, persist_config=False)
                found, current = config.list_kube_config_contexts(file)
                chosen = next((c for c in found if c["name"] == context), current)
                namespace = namespace or chosen["context"].get("namespace")
        except config.ConfigException as error:
            raise InvalidInput(
                f"no cluster is configured: {error}", file=kubeconfig,
                mend="set KUBECONFIG, or name a kubeconfig",
            ) from error  # fmt: skip
        settings.retries = False
        return cls(client.ApiClient(settings), namespace or "default")

    def apply(
        self, obj: Mapping[str, Any], *, dry_run: bool = False, take_over: bool = False
    ) -> dict[str, Any]:
        """Writes an object by server-side apply, validated here and, strictly, by the server.

        Applying the same again changes nothing.

        Args:
            obj: An object of KServe.
            dry_run: Only ask what would become of it.
            take_over: Also write fields that somebody else wrote last.

        Returns:
            The object as the server has it now.

        Raises:
            InvalidInput: The object is wrong, or KServe would refuse the change.
            ClusterError: The server refused: no right, a field of somebody else, ...
        """
        validate(obj)
        name = str(obj["metadata"]["name"])
        if obj["kind"] == "InferenceService":
            before = self.get("InferenceService", name)
            for problem in _rules.check_change(before, obj) if before else ():
                raise problem
        query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")]
        query += [("dryRun", "All")] if dry_run else []
        query += [("force", str(take_over).lower())]
        body = {**obj, "metadata": {**obj["metadata"], "namespace": self.namespace}}
        pauses = iter(_PAUSES)
        while True:
            try:
                return self._call("PATCH", obj["kind"], name, query, body)
            except _Busy:
                # Somebody wrote at the same moment: the server merges anew.
                pause = next(pauses, None)
                if pause is None:
                    raise
                time.sleep(pause)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Reads an object; None when there is none.

        Raises:
            ClusterError: The server refused.
        """
        try:
            return self._call("GET", kind, name)
        except _Missing:
            return None

    def status(self, name: str) -> ServiceStatus:
        """How an InferenceService is.

        Raises:
            ClusterError: There is none, or the server refused.
        """
        service = self.get("InferenceService", name)
        if service is None:
            raise ClusterError(f"there is no InferenceService {name} in {self.namespace}")
        return read_status(service)

    def wait_ready(
        self,
        name: str,
        *,
        timeout: float = 600.0,
        settle: float = 10.0,
        since: datetime | None = None,
        interval: float = 2.0,
        on_change: Callable[[ServiceStatus], None] | None = None,
    ) -> ServiceStatus:
        """Waits until an InferenceService is ready, or explains why it is not.

        Everything that it needs to know stands in the cluster: a wait that was interrupted is
        called again.

        Args:
            name: The InferenceService.
            timeout: Seconds that it has.
            settle: Seconds that it must stay ready: right after a write the status is still
                that of the spec before, and nothing in it tells.
            since: When the time began to run, for a wait that goes on.
            interval: Seconds between two looks.
            on_change: Called when what it says changes.

        Raises:
            NotReady: It failed, or the time is up; the message holds the reasons.
            ClusterError: There is none, or the server refused.
        """
        passed = (datetime.now(UTC) - since).total_seconds() if since else 0.0
        end = time.monotonic() + timeout - passed
        ready_since: float | None = None
        told = ""
        while True:
            now = time.monotonic()
            try:
                status = self.status(name)
            except _Unreachable:
                if now >= end:
                    raise
                time.sleep(max(0.0, min(interval, end - now)))
                continue
            said = re.sub(r", for \d+ s", "", str(status))
            if said != told and on_change is not None:
                on_change(status)
            told = said
            if status.failed:
                raise NotReady(status, str(status))
            if status.ready:
                ready_since = now if ready_since is None else ready_since
                if now - ready_since >= settle:
                    return status
            else:
                ready_since = None
            if now >= end:
                raise NotReady(
                    status, f"after {round(timeout)} s {status}; `kubectl describe "
                    f"inferenceservice {name} -n {self.namespace}` shows its events",
                )  # fmt: skip
            time.sleep(max(0.0, min(interval, end - now)))

    def _call(
        self,
        method: str,
        kind: str,
        name: str,
        query: list[tuple[str, str]] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        found = kinds()[kind]
        place = f"namespaces/{self.namespace}/" if found.namespaced else ""
        path = f"/apis/{found.api_version}/{place}{found.plural}/{name}"
        # JSON is YAML, and server-side apply has one content type.
        content = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json", "Content-Type": content}
        try:
            answer: dict[str, Any] = self._api.call_api(
                path, method, query_params=query or [], header_params=headers, body=body,
                response_type="object", auth_settings=["BearerToken"],
                _return_http_data_only=True, _request_timeout=_TIMEOUT,
            )  # fmt: skip
        except ApiException as error:
            raise self._refused(error, method, found.plural, name) from error
        except HTTPError as error:
            host = self._api.configuration.host
            raise _Unreachable(
                f"no API server answers at {host} ({type(error).__name__}); check the kubeconfig "
                "and the network"
            ) from error
        return answer

    def _refused(self, error: Any, method: str, plural: str, name: str) -> ClusterError:
        what, told = f"{plural} {self.namespace}/{name}", _message(error)
        # A server that lets in anybody takes a token it does not know for nobody's.
        if error.status == 401 or (error.status == 403 and "system:anonymous" in told):
            return ClusterError(
                f"the API server does not know who asks ({error.status}): the token or certificate "
                "has expired; log in again, or renew the kubeconfig"
            )
        if error.status == 403:
            verb = {"PATCH": "patch and create", "GET": "get"}[method]
            return ClusterError(
                f"the API server refuses (403): the account may not {verb} {plural} in "
                f"{self.namespace}; give it the role for its duty ({told})"
            )
        if error.status == 404:
            if "could not find the requested resource" in told or not told:
                return ClusterError(f"the cluster has no {plural} of KServe: install KServe")
            return _Missing(f"there is no {what}")
        if error.status == 409:
            if re.search(r"\bconflicts? with\b", told):
                return ClusterError(
                    f"{what}: {told}; somebody else wrote these fields last: leave them out, or "
                    "take them over"
                )
            return _Busy(f"{what}: others kept writing to it ({told}); try again")
        if error.status == 429 or error.status >= 500:
            return _Unreachable(f"{what}: the API server cannot answer now ({told})")
        return ClusterError(f"{what}: the API server refuses ({error.status}): {told}")


class _Unreachable(ClusterError):
    pass


class _Missing(ClusterError):
    pass


class _Busy(ClusterError):
    pass


def _message(error: Any) -> str:
    """The server's own words, in one line."""
    try:
        told = json.loads(error.body)["message"]
    except (ValueError, KeyError, TypeError):
        told = error.reason or ""
    return " ".join(str(told).split())
