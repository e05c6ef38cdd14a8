"""What Prometheus knows of two models' traffic, over its HTTP API."""

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from trimgate.errors import InvalidInput, TrimgateError
from trimgate.ops.rollout.observations import Traffic
from trimgate.ops.rollout.platforms import base_url, histogram

TOKEN = "TRIMGATE_PROMETHEUS_TOKEN"  # noqa: S105 (the variable's name)

QUERIES: Mapping[str, str] = {
    "requests": "sum by (code) (increase(trimgate_requests_total{{{labels}}}[{window}s]))",
    "seconds": "sum by (le) (increase(trimgate_request_seconds_bucket{{{labels}}}[{window}s]))",
}
"""PromQL for trimgate's server: requests by HTTP code, and the latency histogram by edge."""


class PrometheusError(TrimgateError):
    """Prometheus did not answer, or has no such series; the message says which."""


class Prometheus:
    """Asks one Prometheus server.

    Args:
        url: Its base URL; what stands before `/api/v1`.
        timeout: Seconds for each query.

    Raises:
        InvalidInput: The URL is none, or the token of `TRIMGATE_PROMETHEUS_TOKEN` would be sent
            unencrypted to another machine.
    """

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        self._url = base_url(url, "--prometheus")
        self._timeout = timeout
        self._headers = {"Accept": "application/json"}
        token = os.environ.get(TOKEN)
        if token:
            parts = urllib.parse.urlsplit(self._url)
            if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
                raise InvalidInput(
                    f"would be sent unencrypted to {parts.hostname}", key=TOKEN, mend="use https"
                )
            self._headers["Authorization"] = f"Bearer {token}"

    def query(self, promql: str, at: datetime) -> list[tuple[dict[str, str], float]]:
        """The series of an instant vector, with their values.

        Raises:
            PrometheusError: There is no answer, or it is an error.
        """
        fields = urllib.parse.urlencode({"query": promql, "time": f"{at.timestamp():.3f}"})
        request = urllib.request.Request(  # noqa: S310 (the scheme was checked)
            f"{self._url}/api/v1/query", fields.encode(), self._headers
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:  # noqa: S310
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace")
            raise PrometheusError(f"Prometheus refuses ({error.code}): {said}") from error
        except (OSError, ValueError) as error:
            raise PrometheusError(f"Prometheus at {self._url} does not answer: {error}") from error
        return _vector(told)

    def traffic(
        self, labels: Mapping[str, str], since: datetime, now: datetime, queries: Mapping[str, str]
    ) -> Traffic:
        """What a model answered from `since` to `now`.

        Args:
            labels: Of its series.
            since: The beginning.
            now: The end.
            queries: As `QUERIES`, for servers with other metrics.

        Raises:
            PrometheusError: Prometheus does not answer or has no series: nothing is taken for 0.
        """
        window = max(1, round((now - since).total_seconds()))
        chosen = ",".join(f"{name}={_quoted(value)}" for name, value in labels.items())

        def ask(key: str) -> list[tuple[dict[str, str], float]]:
            promql = queries[key].format(labels=chosen, window=window)
            found = self.query(promql, now)
            if not found:
                raise PrometheusError(f"Prometheus has no series for {promql}; is it scraped?")
            return found

        codes = ask("requests")
        buckets: dict[float, float] = {}
        for series, value in ask("seconds"):
            edge = float(series["le"].replace("+Inf", "inf"))
            buckets[edge] = buckets.get(edge, 0.0) + value
        return Traffic(
            requests=round(sum(value for _, value in codes)),
            errors=round(sum(v for s, v in codes if re.fullmatch(r"5\d\d", s.get("code", "")))),
            **histogram(buckets),
        )


def _vector(told: Any) -> list[tuple[dict[str, str], float]]:
    try:
        if told["status"] != "success":
            raise PrometheusError(f"Prometheus refuses: {told.get('error', told['status'])}")
        data = told["data"]
        if data["resultType"] != "vector":
            raise PrometheusError(f"Prometheus answers with a {data['resultType']}, no vector")
        found = [(entry["metric"], float(entry["value"][1])) for entry in data["result"]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise PrometheusError(f"Prometheus answers in an unknown form ({error})") from error
    return [(series, value) for series, value in found if value == value]


def _quoted(value: str) -> str:
    return json.dumps(value)
