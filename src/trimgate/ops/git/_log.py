"""The release file of one model in one environment, and the commits that changed it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import yaml

from trimgate.errors import InvalidInput
from trimgate.ops.git._repository import Change, ConfigRepository
from trimgate.ops.release import Release, ReleasedModel, read, release_path, release_stable, write


@dataclass(frozen=True)
class Entry:
    """A commit that changed the release file.

    Attributes:
        revision: Its id.
        time: When it was committed.
        message: Its whole message.
        release: What the file says since then.
        author: `Name <mail>`.
    """

    revision: str
    time: datetime
    message: str
    release: Release
    author: str = ""

    @property
    def subject(self) -> str:
        """The first line of the message."""
        return self.message.partition("\n")[0]


class ReleaseLog:
    """Reads and changes the release file of one model and environment.

    Args:
        repository: An open config repository.
        name: The model's name.
        environment: The environment.
    """

    def __init__(self, repository: ConfigRepository, name: str, environment: str) -> None:
        self.repository = repository
        self.name = name
        self.environment = environment
        self.path = release_path(name, environment)

    def entries(self) -> list[Entry]:
        """The commits that changed the file, the newest first, as the remote has them now."""
        self.repository.fetch()
        found = []
        for commit in self.repository.log(self.path):
            text = self.repository.read(self.path, commit.revision)
            if text is not None:
                release = read(text, file=f"{self.path} at {commit.revision[:12]}")
                found.append(
                    Entry(commit.revision, commit.time, commit.message, release, commit.author)
                )
        return found

    def current(self) -> Release:
        """What the newest commit releases.

        Raises:
            InvalidInput: The model has no overlay for the environment.
        """
        return read(self._text(self.repository), file=self.path)

    def change(
        self,
        make: Callable[[Release], Release],
        message: str | Callable[[Release], str],
        *,
        branch: str | None = None,
    ) -> str | None:
        """Commits and pushes what `make` makes of the newest release.

        `make` is called again when another push came first.

        Args:
            make: The new release from the present one.
            message: The commit's message, or what makes one of the new release; run, digest,
                version and verdict are added as trailers.
            branch: Push to this branch instead, for a pull request.

        Returns:
            The new revision; None when nothing was to be changed.
        """

        def edit(repository: ConfigRepository) -> Change | None:
            text = self._text(repository)
            before = read(text, file=self.path)
            after = make(before)
            if after == before:
                return None
            content = write(after, text, predictor=self._base(repository))
            said = message(after) if callable(message) else message
            return Change(with_trailers(said, after), {self.path: content})

        return self.repository.change(edit, branch=branch)

    def revert(self, entries: Sequence[Entry], message: str) -> str | None:
        """Commits and pushes the file as it was before the given commits.

        Args:
            entries: The newest commits of the file, the newest first.
            message: The commit's message; what it reverts and trailers are added.

        Returns:
            The new revision; None when another commit changed the file since.
        """
        newest, oldest = entries[0], entries[-1]

        def edit(repository: ConfigRepository) -> Change | None:
            commits = repository.log(self.path)
            if not commits or commits[0].revision != newest.revision:
                return None
            parent = repository.parent(oldest.revision)
            text = None if parent is None else repository.read(self.path, parent)
            if text is None:
                raise InvalidInput(f"nothing of {self.name} was released before it", key=self.path)
            release = read(text, file=self.path)
            said = [message, *(f"This reverts commit {entry.revision}." for entry in entries)]
            return Change(with_trailers("\n\n".join(said), release), {self.path: text})

        return self.repository.change(edit)

    def rollback(self, *, branch: str | None = None) -> tuple[Release, str | None]:
        """Takes the last promotion back.

        A canary is dropped, or else the stable model before it is restored with its record.
        Commits to other files do not matter, and comments that were written since are kept. The
        predictor keeps its name, so that KServe rolls the Deployment over in place.

        Args:
            branch: Push to this branch instead, for a pull request.

        Returns:
            What is released now, and the new revision.

        Raises:
            InvalidInput: Nothing was released before.
        """
        entries = self.entries()
        if not entries:
            self.current()
        now, target = rollback_target(entries)
        undone = _undone(entries)

        def make(release: Release) -> Release:
            if release != now:
                raise InvalidInput(
                    f"{self.name} was changed in {self.environment} meanwhile",
                    mend="`trimgate history` shows how; roll back again",
                )
            return target

        reverted = "\n".join(f"This reverts commit {entry.revision}." for entry in undone)
        message = f'Revert "{undone[-1].subject}"\n\n{reverted}'
        return target, self.change(make, message, branch=branch)

    def _text(self, repository: ConfigRepository) -> str:
        text = repository.read(self.path)
        if text is None:
            raise InvalidInput(
                f"the repository has no {self.path}", key="repository",
                value=repository.access.shown,
                mend=f"`trimgate init-repository --name {self.name}` adds the model to it",
            )  # fmt: skip
        return text

    def _base(self, repository: ConfigRepository) -> dict[str, Any] | None:
        text = repository.read(f"base/{self.name}/inferenceservice.yaml")
        document = yaml.safe_load(text) if text else None
        spec = document.get("spec") if isinstance(document, dict) else None
        predictor = spec.get("predictor") if isinstance(spec, dict) else None
        return predictor if isinstance(predictor, dict) else None


def rollback_target(entries: Sequence[Entry]) -> tuple[Release, Release]:
    """What is released, and what it is to be rolled back to.

    A model that was rolled back to is not rolled back from to the one that was taken away: from
    A, B, A again, the target is what was there before A.

    Args:
        entries: Commits that changed the file, the newest first.

    Raises:
        InvalidInput: Nothing was released before.
    """
    now = entries[0].release
    if now.canary is not None:
        return now, now.model_copy(update={"canary": None, "traffic_percent": 0})
    stack: list[ReleasedModel] = []
    for entry in reversed(entries):
        if entry.release.stable is None:
            continue
        # a rollback restores the whole record, time of promotion included
        record = entry.release.stable
        known = [n for n, before in enumerate(stack) if _same(before, record)]
        stack = stack[: known[-1] + 1] if known else [*stack, record]
    earlier = [record for record in stack[:-1] if record.digest != stack[-1].digest]
    if now.stable is None or not earlier:
        raise InvalidInput(
            f"nothing of {now.name} was released in {now.environment} before", key="rollback"
        )
    return now, release_stable(now, earlier[-1])


def _undone(entries: Sequence[Entry]) -> list[Entry]:
    """The commits that a rollback takes back, the newest first.

    Those that gave the canary its shares, or the one that released the stable model first.
    """
    now = entries[0].release
    if now.canary is not None:
        digest = now.canary.digest
        canaries = [e.release.canary for e in entries]
        length = next((n for n, c in enumerate(canaries) if not c or c.digest != digest), None)
        return list(entries[:length])
    stable = [e for e in entries if e.release.stable and _same(e.release.stable, now.stable)]
    return stable[-1:]


def _same(one: ReleasedModel, other: ReleasedModel | None) -> bool:
    """Whether it is the same promotion, whatever its predictor is called."""
    return other is not None and one == other.model_copy(update={"predictor": one.predictor})


def with_trailers(message: str, release: Release) -> str:
    """A commit's message with run, digest, version and verdict of what it is about."""
    model = release.canary or release.stable
    lines = [("Model", release.name), ("Environment", release.environment)]
    if model is not None:
        lines += [
            ("Run", model.run),
            ("Digest", model.digest),
            ("Version", model.version),
            ("Verdict", model.verdict),
            ("Storage", model.storage_uri),
        ]
    if release.canary is not None:
        lines.append(("Canary-Percent", str(release.traffic_percent)))
    trailers = "\n".join(f"Trimgate-{k}: {' '.join(v.split())}" for k, v in lines if v)
    return f"{message.strip()}\n\n{trailers}\n"
