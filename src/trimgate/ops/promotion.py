"""Promotes, rolls back and compares releases in a config repository."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from trimgate.errors import InvalidInput
from trimgate.ops.forges import Forge, ForgeError, check_token, open_request
from trimgate.ops.git import (
    Access,
    ConfigRepository,
    Entry,
    ReleaseLog,
    add_to_repository,
    check_access,
    init_local,
)
from trimgate.ops.release import (
    Mode,
    Release,
    ReleasedModel,
    read,
    release_path,
    release_stable,
    start_canary,
)

How = Literal["commit", "pull-request"]


@dataclass(frozen=True)
class Releases:
    """Where releases are recorded, and how each environment takes them.

    Attributes:
        access: The config repository.
        environments: In the order of promotion: by commit, or by pull request.
        forge: Opens the pull requests; without one the branch is pushed and nothing more.
        mode: KServe's deployment mode of new models.
        local: The repository is trimgate's own: it is made, and models are added to it, when they
            are needed.
        namespaces: Namespace of an environment, for overlays that are to set one.
    """

    access: Access
    environments: Mapping[str, How]
    forge: Forge | None = None
    mode: Mode = "Standard"
    local: bool = False
    namespaces: Mapping[str, str] = field(default_factory=dict)

    def how(self, environment: str) -> How:
        """How an environment takes releases.

        Raises:
            InvalidInput: There is no such environment.
        """
        if environment not in self.environments:
            raise InvalidInput(
                "there is no such environment", key="environment", value=environment,
                mend=f"there are {', '.join(self.environments)}",
            )  # fmt: skip
        return self.environments[environment]

    @contextmanager
    def open(self) -> Iterator[ConfigRepository]:
        """A fresh copy of the repository."""
        if self.local:
            init_local(self.access.url, self.access.branch)
        with ConfigRepository.open(self.access) as repository:
            yield repository


@dataclass(frozen=True)
class Promotion:
    """What became of a promotion or a rollback.

    Attributes:
        release: The release as it is, or will be once the pull request is merged.
        revision: The commit; None when it was so already.
        branch: The branch of the pull request.
        pull_request: Its URL, where a forge opened it.
    """

    release: Release
    revision: str | None = None
    branch: str | None = None
    pull_request: str | None = None


def check_releases(releases: Releases, name: str, environment: str) -> None:
    """Whether a model could be promoted, asked before the work that leads there.

    Raises:
        InvalidInput: The repository has no overlay for the model, or a setting or token is missing.
        GitError: The repository cannot be reached.
    """
    if releases.local:
        check_access(releases.access)
        return
    if releases.how(environment) == "pull-request" and releases.forge is not None:
        check_token(releases.forge)
    current(releases, name, environment)


def promote(
    releases: Releases,
    name: str,
    environment: str,
    model: ReleasedModel,
    *,
    canary: int | None = None,
    how: How | None = None,
    body: str = "",
) -> Promotion:
    """Releases a model to an environment by a commit, or proposes it by a pull request.

    Promoting what is released already changes nothing.

    Args:
        releases: Where releases are recorded.
        name: The model's name.
        environment: Where it is released.
        model: The model, verified; `promoted` is set here.
        canary: Beside the stable model, with this share of the traffic in percent.
        how: Another way than the environment's own.
        body: The pull request's text: the gate's card.

    Raises:
        InvalidInput: The verdict is not `pass`, or there is no such environment.
        GitError, ForgeError: The repository or the forge did not take it; nothing was released.
    """
    if model.verdict != "pass":
        raise InvalidInput(
            "only a model that passed the gate is promoted", key="verdict", value=model.verdict
        )
    how = how or releases.how(environment)
    releases.how(environment)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    model = model.model_copy(update={"promoted": now})
    branch = None
    if how == "pull-request":
        if releases.forge is not None:
            check_token(releases.forge)
        branch = f"trimgate/{environment}/{name}-{_short(model.digest)}"

    def make(release: Release) -> Release:
        wanted = model
        proposed = branch and _proposed(repository, release, branch)
        if proposed and proposed.digest == model.digest:
            wanted = proposed
        if canary is not None:
            return start_canary(release, wanted, canary)
        return release_stable(release, wanted)

    with releases.open() as repository:
        if releases.local:
            _added(releases, repository, name)
        log = ReleaseLog(repository, name, environment)
        revision = log.change(make, _promoted, branch=branch)
        release = _seen(log, revision)
    if branch is None or revision is None:
        return Promotion(release, revision)
    return _request(releases, release, revision, branch, _promoted(release), body)


def rollback(releases: Releases, name: str, environment: str, *, how: How = "commit") -> Promotion:
    """Takes the last promotion of a model back; see `ReleaseLog.rollback`.

    Args:
        releases: Where releases are recorded.
        name: The model's name.
        environment: Where it is rolled back.
        how: By a commit at once, or by a pull request.

    Raises:
        InvalidInput: Nothing was released before.
        GitError, ForgeError: The repository or the forge did not take it.
    """
    releases.how(environment)
    branch = None
    if how == "pull-request":
        if releases.forge is not None:
            check_token(releases.forge)
        branch = f"trimgate/{environment}/{name}-rollback"
    with releases.open() as repository:
        release, revision = ReleaseLog(repository, name, environment).rollback(branch=branch)
    if branch is None or revision is None:
        return Promotion(release, revision)
    title = f"Roll {name} back in {environment}"
    return _request(releases, release, revision, branch, title, "")


def history(
    releases: Releases, name: str, environment: str | None = None
) -> list[tuple[str, Entry]]:
    """Environment and commit of every change of a model's releases, the newest first.

    Raises:
        InvalidInput: The repository does not know the model.
    """
    if environment is not None:
        releases.how(environment)
    found: list[tuple[str, Entry]] = []
    with releases.open() as repository:
        for each in [environment] if environment else releases.environments:
            found += [(each, entry) for entry in ReleaseLog(repository, name, each).entries()]
        if not found:
            raise _unknown(repository, name)
    # of one second, the later environment comes later
    return sorted(found, key=lambda item: item[1].time, reverse=True)


def current(releases: Releases, name: str, environment: str) -> Release:
    """What is released of a model in an environment.

    Raises:
        InvalidInput: There is no such environment, or the repository does not know the model.
    """
    releases.how(environment)
    with releases.open() as repository:
        return ReleaseLog(repository, name, environment).current()


def released(releases: Releases, environment: str) -> dict[str, Release]:
    """What is released in an environment, by model."""
    releases.how(environment)
    with releases.open() as repository:
        return _released(repository, environment)


@dataclass(frozen=True)
class Difference:
    """A model whose releases differ between two environments.

    Attributes:
        name: The model's name.
        changes: Key, and its value in the first and the second environment.
    """

    name: str
    changes: tuple[tuple[str, str, str], ...]


def diff(releases: Releases, first: str, second: str, name: str | None = None) -> list[Difference]:
    """What is released in one environment and not in another, model by model.

    Raises:
        InvalidInput: There is no such environment or model.
    """
    releases.how(first)
    releases.how(second)
    with releases.open() as repository:
        one, other = _released(repository, first), _released(repository, second)
        names = sorted({*one, *other})
        if name is not None:
            if name not in names:
                raise _unknown(repository, name)
            names = [name]
    found = []
    for each in names:
        before, after = _facts(one.get(each)), _facts(other.get(each))
        changes = tuple(
            (key, before.get(key, ""), after.get(key, ""))
            for key in dict.fromkeys([*before, *after])
            if before.get(key, "") != after.get(key, "")
        )
        if changes:
            found.append(Difference(each, changes))
    return found


def summary(release: Release) -> str:
    """What a release says, as Markdown; the text of a pull request without a card."""
    rows = "\n".join(f"| {key} | {value} |" for key, value in _facts(release).items())
    return f"| {release.name} | {release.environment} |\n|---|---|\n{rows}\n"


def _facts(release: Release | None) -> dict[str, str]:
    facts: dict[str, str] = {}
    for kind, model in (
        ("", release.stable if release else None),
        ("canary ", release.canary if release else None),
    ):
        if model is not None:
            values = {
                "digest": model.digest, "version": model.version, "run": model.run,
                "verdict": model.verdict, "model": model.storage_uri,
            }  # fmt: skip
            facts |= {kind + key: value for key, value in values.items() if value}
    if release is not None and release.canary is not None:
        facts["canary share"] = f"{release.traffic_percent} %"
    return facts


def _released(repository: ConfigRepository, environment: str) -> dict[str, Release]:
    found = {}
    for path in repository.files(f"overlays/{environment}"):
        parts = Path(path).parts
        if len(parts) == 4 and path == release_path(parts[2], environment):
            release = read(repository.read(path) or "", file=path)
            if release.stable is not None:
                found[parts[2]] = release
    return found


def _added(releases: Releases, repository: ConfigRepository, name: str) -> None:
    """The local repository learns of a model when it is first promoted."""
    if any(repository.read(release_path(name, e)) is None for e in releases.environments):
        from trimgate.ops.kserve import Serving

        add_to_repository(
            repository, name, list(releases.environments), serving=Serving(mode=releases.mode),
            namespaces=releases.namespaces,
        )  # fmt: skip


def _proposed(repository: ConfigRepository, release: Release, branch: str) -> ReleasedModel | None:
    """What an open branch proposes, so that proposing it again changes nothing."""
    tip = repository.tip(branch)
    text = tip and repository.read(release_path(release.name, release.environment), tip)
    if not text:
        return None
    there = read(text)
    return there.canary or there.stable


def _seen(log: ReleaseLog, revision: str | None) -> Release:
    text = log.repository.read(log.path, revision)
    return read(text or "", file=log.path)


def _promoted(release: Release) -> str:
    if release.canary is not None:
        share = f"{release.traffic_percent} % in {release.environment}"
        return f"Start a canary of {release.name}: {_named(release.canary)} at {share}"
    if release.stable is None:
        raise AssertionError("a promotion releases a model")
    return f"Promote {release.name} to {release.environment}: {_named(release.stable)}"


def _named(model: ReleasedModel) -> str:
    return f"v{model.version} ({_short(model.digest)})" if model.version else _short(model.digest)


def _request(
    releases: Releases, release: Release, revision: str, branch: str, title: str, body: str
) -> Promotion:
    if releases.forge is None:
        return Promotion(release, revision, branch)
    text = body or summary(release)
    try:
        url = open_request(
            releases.forge, branch=branch, base=releases.access.branch, title=title, body=text
        )
    except ForgeError as error:
        raise ForgeError(
            f"{error}; nothing was released (the branch {branch} is pushed)"
        ) from error
    return Promotion(release, revision, branch, url)


def _unknown(repository: ConfigRepository, name: str) -> InvalidInput:
    known = sorted({Path(path).parts[1] for path in repository.files("base")})
    return InvalidInput(
        f"the repository {repository.access.shown} knows no such model", key="name", value=name,
        mend=f"it knows {', '.join(known)}" if known else "nothing was promoted yet",
    )  # fmt: skip


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
