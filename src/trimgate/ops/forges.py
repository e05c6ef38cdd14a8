"""Pull and merge requests: the REST APIs of GitHub and GitLab."""

import os
import re
import time
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from trimgate.errors import InvalidInput, TrimgateError
from trimgate.ops.git._command import TOKEN

ForgeName = Literal["github", "gitlab"]
FORGE_TOKEN = "TRIMGATE_FORGE_TOKEN"  # noqa: S105 (the name of a variable)
_TIMEOUT = 30.0  # seconds
_LONGEST_WAIT = 60.0  # seconds that a rate limit is waited for
_ATTEMPTS = 3
_LONGEST_BODY = {"github": 65_536, "gitlab": 1_000_000}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ForgeError(TrimgateError):
    """The forge did not do it; the message is one line that says why and what can be done."""


@dataclass(frozen=True)
class Forge:
    """A repository on GitHub or GitLab.

    Attributes:
        name: Which API it speaks.
        api: The API's URL, without a slash at the end.
        project: `owner/repository`; on GitLab with all groups.
    """

    name: ForgeName
    api: str
    project: str


def find_forge(url: str, name: ForgeName | None = None, api: str | None = None) -> Forge | None:
    """The forge of a repository's URL.

    Args:
        url: The repository's URL.
        name: Which it is; by the host's name when left out.
        api: The API's URL; that of the host when left out.

    Returns:
        The forge, or None where there is none: a folder, or a host that says neither.

    Raises:
        InvalidInput: A forge is named, and the URL has no owner and repository.
    """
    found = re.fullmatch(r"(?:[\w.-]+@)?([\w.-]+):(?!//)(.+)", url)
    if "://" in url:
        parts = urlsplit(url)
        scheme, host, path = parts.scheme, parts.hostname or "", parts.path
        if parts.port and scheme in ("http", "https"):
            host += f":{parts.port}"
    elif found:
        scheme, host, path = "ssh", found[1], found[2]
    else:
        scheme, host, path = "file", "", url
    if name is None:
        words = host.split(".")
        name = "github" if "github" in words else "gitlab" if "gitlab" in words else None
    if name is None or scheme == "file":
        return None
    project = path.strip("/").removesuffix(".git")
    if "/" not in project or (name == "github" and project.count("/") > 1):
        raise InvalidInput(
            "names no owner and repository", key="repository", value=url,
            mend="write it like https://github.com/owner/repository",
        )  # fmt: skip
    if api is None:
        base = f"{'http' if scheme == 'http' else 'https'}://{host}"
        if name == "gitlab":
            api = f"{base}/api/v4"
        else:
            api = "https://api.github.com" if host == "github.com" else f"{base}/api/v3"
    api = api.rstrip("/")
    parts = urlsplit(api)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise InvalidInput("would send the token unencrypted", key="forge_url", value=api)
    return Forge(name, api, project)


def check_token(forge: Forge) -> None:
    """Refuses to begin without a token.

    Raises:
        InvalidInput: There is none.
    """
    if not _token():
        raise InvalidInput(
            f"a token is needed to open a pull request on {urlsplit(forge.api).hostname}",
            mend=f"set {FORGE_TOKEN}, or {TOKEN} where one token serves both",
        )


def open_request(forge: Forge, *, branch: str, base: str, title: str, body: str) -> str:
    """Opens a pull or merge request, or brings the one that is open up to date.

    Args:
        forge: The forge.
        branch: The branch to merge.
        base: The branch to merge into.
        title: One line.
        body: Markdown; cut where the forge takes no more.

    Returns:
        Its URL.

    Raises:
        InvalidInput: There is no token.
        ForgeError: The forge refuses it or cannot be reached.
    """
    check_token(forge)
    longest = _LONGEST_BODY[forge.name]
    if len(body) > longest:
        note = "\n\n(cut: the forge takes no more)\n"
        body = body[: longest - len(note)] + note
    if forge.name == "github":
        return _github(forge, branch, base, title, body)
    return _gitlab(forge, branch, base, title, body)


def _github(forge: Forge, branch: str, base: str, title: str, body: str) -> str:
    pulls = f"/repos/{quote(forge.project)}/pulls"
    wanted = {"title": title, "body": body, "head": branch, "base": base}
    status, answer = _call(forge, "POST", pulls, json=wanted)
    if status == 201:
        return str(answer["html_url"])
    owner = forge.project.partition("/")[0]
    asked = {"head": f"{owner}:{branch}", "base": base, "state": "open"}
    status, there = _call(forge, "GET", pulls, params=asked)
    if status == 200 and isinstance(there, list) and there:
        number = int(there[0]["number"])
        status, changed = _call(
            forge, "PATCH", f"{pulls}/{number}", json={"title": title, "body": body}
        )
        if status == 200:
            return str(changed["html_url"])
        answer = changed
    raise ForgeError(_refused(forge, answer))


def _gitlab(forge: Forge, branch: str, base: str, title: str, body: str) -> str:
    requests = f"/projects/{quote(forge.project, safe='')}/merge_requests"
    wanted = {
        "source_branch": branch, "target_branch": base, "title": title, "description": body,
        "remove_source_branch": True,
    }  # fmt: skip
    status, answer = _call(forge, "POST", requests, json=wanted)
    if status == 201:
        return str(answer["web_url"])
    asked = {"source_branch": branch, "target_branch": base, "state": "opened"}
    status, there = _call(forge, "GET", requests, params=asked)
    if status == 200 and isinstance(there, list) and there:
        status, changed = _call(
            forge, "PUT", f"{requests}/{int(there[0]['iid'])}",
            json={"title": title, "description": body},
        )  # fmt: skip
        if status == 200:
            return str(changed["web_url"])
        answer = changed
    raise ForgeError(_refused(forge, answer))


def _call(forge: Forge, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
    """One call; returns status and JSON for success and for what may mean "there already"."""
    import requests

    token = _token()
    headers = {"User-Agent": "trimgate"}
    if forge.name == "github":
        headers |= {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "X-GitHub-Api-Version": "2022-11-28",
        }
    else:
        headers |= {"PRIVATE-TOKEN": token}
    host = urlsplit(forge.api).hostname
    for attempt in range(_ATTEMPTS):
        try:
            response = requests.request(
                method, forge.api + path, headers=headers, timeout=_TIMEOUT,
                allow_redirects=False, **arguments,
            )  # fmt: skip
        except requests.RequestException as error:
            raise ForgeError(
                f"{host} cannot be reached ({type(error).__name__}); the same command opens the "
                "request later"
            ) from None
        wait = _rate_limit(response.status_code, response.headers)
        if wait is None:
            break
        if wait > _LONGEST_WAIT or attempt == _ATTEMPTS - 1:
            raise ForgeError(
                f"{host} takes no more calls for {wait:.0f} s (its rate limit); the same command "
                "opens the request later"
            )
        time.sleep(wait)
    status = response.status_code
    if status in (401, 403, 404):
        raise ForgeError(_denied(host, status, forge))
    if status in (200, 201, 400, 409, 422):
        try:
            return status, response.json()
        except ValueError:
            raise ForgeError(
                f"{host} answered {status} without JSON; is {forge.api} its API?"
            ) from None
    raise ForgeError(f"{host} answered {status} to {method} {path}; try again later")


def _rate_limit(status: int, headers: Any) -> float | None:
    """Seconds to wait, or None where no rate limit was hit."""
    spent = headers.get("X-RateLimit-Remaining", headers.get("RateLimit-Remaining")) == "0"
    if status != 429 and not (status == 403 and (spent or "Retry-After" in headers)):
        return None
    if (after := headers.get("Retry-After", "")).isdigit():
        return float(after)
    reset = headers.get("X-RateLimit-Reset", headers.get("RateLimit-Reset", ""))
    return max(0.0, float(reset) - time.time()) if str(reset).isdigit() else 5.0


def _denied(host: str | None, status: int, forge: Forge) -> str:
    variable = FORGE_TOKEN if os.environ.get(FORGE_TOKEN) else TOKEN
    if status == 401:
        return f"{host} refuses the token in {variable}: it is wrong or has expired"
    right = "pull requests: write" if forge.name == "github" else "scope api"
    if status == 403:
        return f"{host} does not let the token in {variable} open requests; it needs {right}"
    return f"{host} knows no {forge.project}, or the token in {variable} may not see it"


def _refused(forge: Forge, answer: Any) -> str:
    said: list[str] = []
    if isinstance(answer, dict):
        message = answer.get("message")
        said += message if isinstance(message, list) else [str(message)] if message else []
        said += [
            str(e.get("message") or e.get("code"))
            for e in answer.get("errors") or []
            if isinstance(e, dict)
        ]
    reason = "; ".join(" ".join(str(part).split()) for part in said)[:300] or "without a reason"
    return f"{urlsplit(forge.api).hostname} refuses the request for {forge.project}: {reason}"


def _token() -> str:
    return (os.environ.get(FORGE_TOKEN) or os.environ.get(TOKEN) or "").strip()
