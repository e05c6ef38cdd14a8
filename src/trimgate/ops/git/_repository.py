"""Reads and changes one branch of a Git repository, without a work tree."""

import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath

from trimgate.errors import InvalidInput
from trimgate.ops.git._command import (
    Access,
    GitError,
    PushRejected,
    check_access,
    explain,
    git,
)

ATTEMPTS = 10
_SCP = re.compile(r"([\w.-]+@)?[\w.-]+:")
_BOT = "trimgate <trimgate@localhost>"
_RACES = (
    "fetch first", "non-fast-forward", "stale info", "cannot lock ref", "failed to update ref",
    "failed to lock", "incorrect old value", "reference already exists", "unable to lock",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """What a commit changes.

    Attributes:
        message: The commit's message.
        files: New contents by path.
    """

    message: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Commit:
    """A commit that changed a file.

    Attributes:
        revision: Its id.
        time: When it was committed.
        author: `Name <mail>`.
        message: Its whole message.
    """

    revision: str
    time: datetime
    author: str
    message: str


@dataclass
class ConfigRepository:
    """A fresh copy of a config repository; made by `ConfigRepository.open`.

    Attributes:
        access: Where it is and who commits.
        folder: The bare copy.
        head: The newest commit of the branch, or None while it has none.
    """

    access: Access
    folder: Path
    head: str | None = None
    _fresh: bool = field(default=True, repr=False)

    @classmethod
    @contextmanager
    def open(cls, access: Access) -> Iterator["ConfigRepository"]:
        """Copies the repository into a temporary folder.

        Raises:
            InvalidInput: As `check_access`.
            GitError: It cannot be reached or read.
        """
        check_access(access)
        with tempfile.TemporaryDirectory(prefix="trimgate-git-") as temporary:
            folder = Path(temporary, "copy.git")
            git(
                access, Path(temporary), "clone", "--quiet", "--bare", "--no-tags", "--no-local",
                "--template=", "--", _absolute(access.url), str(folder),
            )  # fmt: skip
            repository = cls(access, folder)
            repository.head = repository.tip(access.branch)
            yield repository

    def fetch(self) -> str | None:
        """Takes over what others pushed; returns the branch's newest commit."""
        if self._fresh:
            self._fresh = False
            return self.head
        git(
            self.access, self.folder, "fetch", "--quiet", "--no-tags", "--prune",
            "--update-shallow", "--", _absolute(self.access.url), "+refs/heads/*:refs/heads/*",
        )  # fmt: skip
        self.head = self.tip(self.access.branch)
        return self.head

    def read(self, path: str, revision: str | None = None) -> str | None:
        """The text of a file at a commit (the newest when left out); None where it is missing."""
        revision = revision or self.head
        if revision is None:
            return None
        done = git(
            self.access, self.folder, "cat-file", "blob", f"{revision}:{_checked(path)}",
            check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return done.stdout
        if "does not exist" in done.stderr or "exists on disk, but not in" in done.stderr:
            return None
        raise GitError(explain(self.access, done.stderr))

    def files(self, under: str = "") -> list[str]:
        """Paths of all files in a folder, in order."""
        if self.head is None:
            return []
        paths = ["--", _checked(under)] if under else []
        done = git(
            self.access, self.folder, "ls-tree", "-r", "-z", "--name-only", self.head, *paths
        )
        return [name for name in done.stdout.split("\0") if name]

    def log(self, path: str) -> list[Commit]:
        """The commits that changed a file on the branch, the newest first.

        A merged pull request counts as the one commit that merged it.
        """
        if self.head is None:
            return []
        done = git(
            self.access, self.folder, "log", "--first-parent", "-z",
            "--format=%H%n%cI%n%an <%ae>%n%B", self.head, "--", _checked(path),
        )  # fmt: skip
        commits = []
        for entry in filter(None, done.stdout.split("\0")):
            revision, when, author, message = entry.split("\n", 3)
            commits.append(Commit(revision, datetime.fromisoformat(when), author, message.strip()))
        return commits

    def parent(self, revision: str) -> str | None:
        """The commit before one on its branch; None for the first."""
        done = git(
            self.access, self.folder, "rev-parse", "--quiet", "--verify", f"{revision}^1",
            check=False,
        )  # fmt: skip
        return done.stdout.strip() or None

    def change(
        self,
        edit: Callable[["ConfigRepository"], Change | None],
        *,
        branch: str | None = None,
    ) -> str | None:
        """Commits and pushes what `edit` makes of the newest state.

        When somebody else pushed meanwhile, their commit is fetched and `edit` is asked again.

        Args:
            edit: Reads the repository it is given, and says what to change; None for nothing.
            branch: Push to this branch instead, which is ours alone: it is made anew from the
                newest state.

        Returns:
            The commit that was pushed, or None when nothing was to be changed.

        Raises:
            PushRejected: A hook or a rule of the repository refuses the push, or it stays locked.
            GitError: The repository cannot be reached, or the commit cannot be signed.
        """
        target = branch or self.access.branch
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                # S311: waits apart, no secret
                time.sleep(random.uniform(0.3, 1) * min(2.0, 0.05 * 2**attempt))  # noqa: S311
            self.fetch()
            wanted = edit(self)
            commit = wanted and self._commit(wanted, target if branch else None)
            if not commit:
                return None
            reason = self._push(commit, target, ours=branch is not None)
            if not reason:
                if branch is None:
                    self.head = commit
                return commit
        raise PushRejected(
            f"{self.access.shown}: {target} could not be changed in {ATTEMPTS} attempts "
            f"({reason}); others push to it all the time, or a lock was left in it"
        )

    def tip(self, branch: str) -> str | None:
        """The newest commit of a branch; None where there is no such branch."""
        done = git(
            self.access, self.folder, "rev-parse", "--quiet", "--verify",
            f"refs/heads/{branch}^{{commit}}", check=False,
        )  # fmt: skip
        return done.stdout.strip() or None

    def _tree(self, revision: str | None) -> str | None:
        if revision is None:
            return None
        return git(self.access, self.folder, "rev-parse", f"{revision}^{{tree}}").stdout.strip()

    def _commit(self, change: Change, branch: str | None) -> str | None:
        """Makes the commit; None when it would change nothing."""
        git(self.access, self.folder, "read-tree", *([self.head] if self.head else ["--empty"]))
        entries = []
        for path, content in change.files.items():
            blob = git(
                self.access, self.folder, "hash-object", "-w", "--stdin", text=content
            ).stdout.strip()
            entries.append(f"100644 {blob}\t{_checked(path)}\0")
        git(self.access, self.folder, "update-index", "-z", "--index-info", text="".join(entries))
        tree = git(self.access, self.folder, "write-tree").stdout.strip()
        if tree == self._tree(self.head):
            return None
        if branch is not None and tree == self._tree(self.tip(branch)):
            return self.tip(branch)
        signing = []
        if key := self.access.signing_key:
            if self.access.signs_with_ssh:
                key = str(Path(key).expanduser().resolve())
            signing = [f"-S{key}"]
        name, _, mail = self._author().rpartition(" <")
        done = git(
            self.access, self.folder, "-c", f"user.name={name}", "-c",
            f"user.email={mail.removesuffix('>')}", "commit-tree", tree,
            *(["-p", self.head] if self.head else []), *signing, "-F", "-",
            text=change.message, check=False,
        )  # fmt: skip
        if done.returncode:
            lines = [" ".join(line.split()) for line in done.stderr.splitlines() if line.strip()]
            raise GitError(
                "the commit cannot be signed "
                f"with {self.access.signing_key}: {lines[0] if lines else 'no reason was given'}"
                if signing
                else explain(self.access, done.stderr)
            )
        return done.stdout.strip()

    def _author(self) -> str:
        if self.access.author:
            return self.access.author
        name, mail = (
            git(self.access, self.folder, "config", "--get", key, check=False).stdout.strip()
            for key in ("user.name", "user.email")
        )
        return f"{name} <{mail}>" if name and mail else _BOT

    def _push(self, commit: str, branch: str, *, ours: bool) -> str:
        """Pushes; returns an empty text, or why another attempt may help."""
        lease = [f"--force-with-lease=refs/heads/{branch}:{self.tip(branch) or ''}"] if ours else []
        done = git(
            self.access, self.folder, "push", "--porcelain", "--no-verify", *lease, "--",
            _absolute(self.access.url), f"{commit}:refs/heads/{branch}", check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return ""
        status = next((line for line in done.stdout.splitlines() if line.startswith("!")), "")
        summary = status.rpartition("\t")[2]
        told = f"{summary} {done.stderr}"
        if summary and any(race in told for race in _RACES):
            return summary
        if not summary:
            raise GitError(explain(self.access, done.stderr))
        said = [
            " ".join(line.removeprefix("remote:").split())
            for line in done.stderr.splitlines()
            if line.startswith("remote:") and line.removeprefix("remote:").strip()
        ]
        reason = ": ".join([summary, *said[:2]])[:300]
        raise PushRejected(
            f"{self.access.shown}: the push to {branch} was refused, and nothing was changed: "
            f"{reason}"
        )


def init_local(folder: str | Path, branch: str = "main") -> Path:
    """Makes an empty bare repository in a folder, if there is none yet.

    Raises:
        InvalidInput: The folder holds something else, or there is no `git`.
    """
    folder = Path(folder)
    if (folder / "HEAD").is_file():
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput("is not a Git repository", file=folder, mend="move it away")
    access = Access(str(folder), branch=branch)
    check_access(access)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        git(
            access, folder.parent, "init", "--quiet", "--bare", "--template=",
            f"--initial-branch={branch}", "--", str(partial.absolute()),
        )  # fmt: skip
        partial.rename(folder)
    except OSError:
        # another run made it meanwhile
        if not (folder / "HEAD").is_file():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _absolute(url: str) -> str:
    if "://" in url or (_SCP.match(url) and not Path(url).exists()):
        return url
    return str(Path(url).expanduser().resolve())


def _checked(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise InvalidInput("leads out of the repository", key="path", value=path)
    return str(parts)
