"""Calls `git`: credentials from the environment, one line when it fails."""

import base64
import contextlib
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trimgate.errors import InvalidInput, TrimgateError

TOKEN = "TRIMGATE_GIT_TOKEN"  # noqa: S105 (its name)
USER = "TRIMGATE_GIT_USER"
_BRANCH = re.compile(r"[A-Za-z0-9_][\w./-]{0,200}(?<![./])")
_AUTHOR = re.compile(r"[^<>\n]+ <[^<>\s]+>")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class GitError(TrimgateError):
    """Git could not do it; the message is one line that says why and what can be done."""


class PushRejected(GitError):
    """The repository refused a push: a hook, a protected branch, or a lock that stays."""


@dataclass(frozen=True)
class Access:
    """How a config repository is reached, and who commits to it.

    Credentials are not part of it: a token comes from `TRIMGATE_GIT_TOKEN` (and the user it
    belongs to, where the host asks for one, from `TRIMGATE_GIT_USER`), or from Git's own credential
    helpers, or from SSH.

    Attributes:
        url: A folder, `file://`, `https://`, `ssh://` or `git@host:path`.
        branch: The branch that the environments follow.
        author: `Name <mail>`; Git's own identity when left out, or else trimgate.
        signing_key: Commits are signed with it: the file of an SSH private key, or the id of a GPG
            key.
        timeout: Seconds after which a call of Git is given up.
    """

    url: str
    branch: str = "main"
    author: str = ""
    signing_key: str = ""
    timeout: float = 120.0

    @property
    def shown(self) -> str:
        """The URL as it may be shown."""
        return re.sub(r"//[^/@\s]*@", "//", self.url)

    @property
    def signs_with_ssh(self) -> bool:
        """Whether the signing key is a file."""
        return "/" in self.signing_key or Path(self.signing_key).is_file()


def check_access(access: Access) -> None:
    """Refuses what cannot work, before any work is done; nothing is sent.

    Raises:
        InvalidInput: There is no `git`, the URL is none or holds a password, a token would be sent
            unencrypted, or the signing key is missing.
    """
    if shutil.which("git") is None:
        raise InvalidInput("the program `git` is missing", mend="install git 2.34 or newer")
    parts = urlsplit(access.url) if "://" in access.url else None
    if parts is not None and (parts.password or (parts.username and parts.scheme != "ssh")):
        raise InvalidInput(
            "holds a user or a password, which would end up in logs", key="repository",
            value=access.shown, mend=f"leave it out and set {TOKEN}",
        )  # fmt: skip
    if not _is_url(access.url):
        raise InvalidInput(
            "is not the URL of a Git repository", key="repository", value=access.shown,
            mend="give https://..., ssh://..., git@host:path, file://... or a folder",
        )  # fmt: skip
    if parts and parts.scheme == "http" and _token() and parts.hostname not in _LOOPBACK:
        raise InvalidInput(
            "would send the token unencrypted", key="repository", value=access.shown,
            mend="use https://",
        )  # fmt: skip
    if not _BRANCH.fullmatch(access.branch) or ".." in access.branch:
        raise InvalidInput("is not a branch", key="branch", value=access.branch)
    if access.author and not _AUTHOR.fullmatch(access.author):
        raise InvalidInput("must be `Name <mail>`", key="author", value=access.author)
    if access.signing_key.startswith("-"):
        raise InvalidInput("is not a key", key="signing_key", value=access.signing_key)
    if access.signs_with_ssh and not Path(access.signing_key).expanduser().is_file():
        raise InvalidInput("the file is missing", key="signing_key", value=access.signing_key)


def _is_url(url: str) -> bool:
    if "://" in url:
        return url.startswith(("https://", "http://", "ssh://", "file://")) and url.isprintable()
    # such as ext::command, which runs the command
    return bool(url.strip()) and url.isprintable() and url[0] != "-" and "::" not in url


def git(
    access: Access, folder: Path, *arguments: str, text: str | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs one command of Git.

    Args:
        access: Where to, and who.
        folder: The bare repository to work in, or any folder.
        *arguments: Those of the command.
        text: What it reads.
        check: Whether a failure is an error.

    Raises:
        GitError: It failed, or took longer than it may.
    """
    settings = ["core.hooksPath=/dev/null", "gc.auto=0", "core.quotePath=false"]
    settings += ["user.useConfigOnly=false", "http.lowSpeedLimit=1", "http.lowSpeedTime=30"]
    command = ["git", *(part for s in settings for part in ("-c", s)), *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=_environment(access), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,  # no terminal: nothing below it can stop and ask
    )  # fmt: skip
    try:
        out, err = process.communicate(
            (text or "").encode(errors="surrogateescape"), timeout=access.timeout
        )
    except BaseException as error:
        # what Git started (ssh, the HTTP transport) goes with it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise GitError(
                f"{access.shown}: no answer within {access.timeout:.0f} s; try again later"
            ) from None
        raise
    # bytes that are no UTF-8 come back as they were when they are written
    said = out.decode(errors="surrogateescape")
    done = subprocess.CompletedProcess(
        command, process.returncode, said, masked(err.decode(errors="replace"))
    )
    if check and done.returncode:
        raise GitError(explain(access, done.stderr))
    return done


def masked(text: str) -> str:
    """A text without the token, and without passwords in URLs."""
    token = _token()
    for secret in (token, _basic(token)) if token else ():
        text = text.replace(secret, "***")
    return re.sub(r"//[^/@\s]+@", "//", text)


def explain(access: Access, stderr: str) -> str:
    """What went wrong and what to do, in one line."""
    low = stderr.lower()
    where = access.shown
    if any(part in low for part in _DENIED):
        mend = f"set {TOKEN} to a token that may write, or configure a credential helper"
        if _token():
            mend = f"{TOKEN} is set, and is wrong, has expired or may not do this"
        return f"{where}: the repository refuses the credentials; {mend}"
    if "permission denied (publickey" in low:
        return f"{where}: the host refuses the SSH key; add a deploy key that may write"
    if "host key verification failed" in low:
        return f"{where}: the host's key is unknown; add it to known_hosts"
    if any(part in low for part in _ABSENT):
        return f"{where}: there is no Git repository (or the token may not see it)"
    if any(part in low for part in _UNREACHABLE):
        return f"{where}: cannot be reached ({_last(stderr)}); try again later"
    return f"{where}: {_last(stderr)}"


_DENIED = (
    "could not read username", "could not read password", "authentication failed",
    "error: 401", "error: 403", "invalid credentials", "http basic: access denied",
)  # fmt: skip
_ABSENT = (
    "does not appear to be a git repository", "repository not found", "error: 404",
    "' not found", "' does not exist", "no such file or directory", "could not be found",
)  # fmt: skip
_UNREACHABLE = (
    "could not resolve", "failed to connect", "couldn't connect", "connection refused", "timed out",
    "connection reset", "network is unreachable", "early eof", "the remote end hung up",
    "unexpected disconnect", "transfer closed", "operation too slow", "error: 5", "empty reply",
)  # fmt: skip


def _last(stderr: str) -> str:
    lines = [" ".join(line.split()) for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))]
    return (told or lines or ["git failed without a word"])[0][:300].rstrip(".")


_NOT_INHERITED = (
    "GIT_TRACE", "GIT_CURL_VERBOSE", "GIT_DIR", "GIT_INDEX", "GIT_WORK_TREE", "GIT_OBJECT",
    "GIT_ALTERNATE", "GIT_NAMESPACE", "SSH_ASKPASS",
)  # fmt: skip


def _token() -> str:
    return os.environ.get(TOKEN, "").strip()


def _basic(token: str) -> str:
    user = os.environ.get(USER) or "x-access-token"
    return base64.b64encode(f"{user}:{token}".encode()).decode()


def _environment(access: Access) -> dict[str, str]:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("GIT_TRACE", "GIT_DIR"))
    }
    for name in ("GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY", "GIT_ASKPASS"):
        environment.pop(name, None)
    environment |= {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:http:https:ssh",
        "SSH_ASKPASS_REQUIRE": "never",
    }
    if "GIT_SSH_COMMAND" not in environment and "GIT_SSH" not in environment:
        environment["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes"
    settings = []
    parts = urlsplit(access.url)
    if _token() and parts.scheme in ("http", "https"):
        # In the environment, for this host alone: arguments can be read by every process.
        host = f"{parts.scheme}://{parts.netloc}/"
        header = f"Authorization: Basic {_basic(_token())}"
        settings = [(f"http.{host}.extraHeader", header), ("credential.helper", "")]
    if access.signing_key:
        settings.append(("gpg.format", "ssh" if access.signs_with_ssh else "openpgp"))
    # those that the caller set that way go first
    begin = int(environment.get("GIT_CONFIG_COUNT") or 0)
    for number, (key, value) in enumerate(settings, begin):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    environment["GIT_CONFIG_COUNT"] = str(begin + len(settings))
    return environment
