"""Progressive rollout as a task: a canary is begun, and taken to its end."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimgate.errors import InvalidInput
from trimgate.tasks._common import start
from trimgate.tasks._release import releases_of, trust_of

if TYPE_CHECKING:
    from trimgate.config import PromoteSection, RolloutSection
    from trimgate.data import Dataset
    from trimgate.ops.promotion import Promotion
    from trimgate.ops.rollout.platforms import Platform

_log = logging.getLogger("trimgate.tasks")


def watch_rollout(
    rows: str,
    *,
    name: str,
    source: str,
    store: str,
    threads: int,
    settings: Mapping[str, Any],
    policy: Mapping[str, Any],
) -> str:
    """Begins a canary in the environment that `policy` names, and takes it to its end.

    Args:
        rows: Folder of a data set, for the golden inputs.
        name: The model's name.
        source: The environment in which the model was released already.
        store: Where models are kept.
        threads: Intra-op threads of the session that the served model is compared with.
        settings: The section `promote` of the config.
        policy: The section `rollout` of the config.

    Returns:
        `promoted` or `rolled back`; `proposed` where the environment takes pull requests and
        this one is not merged yet; `nothing` where the model is stable there already.

    Raises:
        InvalidInput: There is no stable model yet, or another canary runs.
        TrimgateError: The repository was not to be had for too long.
    """
    from trimgate.config import PromoteSection, RolloutSection
    from trimgate.data.stream import spread
    from trimgate.ops.git import ReleaseLog
    from trimgate.ops.rollout.position import position
    from trimgate.ops.rollout.watch import watch

    start()
    promote = PromoteSection.model_validate({**settings, "store": store})
    section = RolloutSection.model_validate(policy)
    environment = section.environment or ""
    with releases_of(promote).open() as repository:
        wanted = ReleaseLog(repository, name, source).current().stable
        place = position(ReleaseLog(repository, name, environment).entries())
    tried = place.model if place is not None and place.state == "rolled back" else None
    if tried is not None and wanted is not None and tried.digest == wanted.digest:
        # A step that is run again does not try again what failed; people may.
        _log.info("it was rolled back before; `trimgate rollout start` tries it again")
        return "rolled back"
    begun = begin_rollout(promote, section, name=name, environment=environment, source=source)
    if begun.branch is not None and begun.revision is not None:
        _log.info("proposed: %s", begun.pull_request or begun.branch)
        return "proposed"
    if begun.release.canary is None and (place is None or place.state != "promoted"):
        _log.info("the model is stable in %s already", environment)
        return "nothing"
    with (
        platform_of(
            promote, section, name=name, environment=environment, rows=spread(rows),
            threads=int(threads),  # KFP hands integers inside dicts over as floats
        ) as platform,
        releases_of(promote).open() as repository,
    ):  # fmt: skip
        log = ReleaseLog(repository, name, environment)
        ended = watch(log, platform, section, say=lambda event: _log.info("%s", event.text))
    return ended.state


def begin_rollout(
    promote: "PromoteSection",
    section: "RolloutSection",
    *,
    name: str,
    environment: str,
    source: str,
) -> "Promotion":
    """Puts the stable model of one environment into another, as a canary with the first share.

    A canary of this model that runs already keeps its share.

    Raises:
        InvalidInput: Nothing is released in `source`, or its model is not what was published or
            not trusted; nothing is stable in `environment`, or another canary runs there.
        TrimgateError: The repository, the store or the forge did not take it.
    """
    from trimgate.ops import promotion
    from trimgate.ops.publish import check

    releases = releases_of(promote)
    model = promotion.current(releases, name, source).stable
    if model is None:
        raise InvalidInput(
            f"nothing of {name} is released there", key="--from", value=source,
            mend="`trimgate promote` releases a model there",
        )  # fmt: skip
    now = promotion.current(releases, name, environment)
    if now.canary is not None and now.canary.digest != model.digest:
        raise InvalidInput(
            f"another canary of {name} runs in {environment}", key="canary",
            value=now.canary.digest, mend="let its rollout end, or `trimgate rollback` it",
        )  # fmt: skip
    if now.canary is not None or (now.stable is not None and now.stable.digest == model.digest):
        return promotion.Promotion(now)
    check(model.storage_uri, trust=trust_of(promote), mounts=promote.mounts)
    return promotion.promote(releases, name, environment, model, canary=section.steps[0])


def local_platform_state(promote: "PromoteSection", name: str, environment: str) -> Path:
    """The file that records the local platform of a model and environment."""
    return Path(promote.store) / "servers" / f"{name}.{environment}.json"


@contextlib.contextmanager
def platform_of(
    promote: "PromoteSection",
    section: "RolloutSection",
    *,
    name: str,
    environment: str,
    rows: "Dataset | None",
    threads: int = 1,
    url: str | None = None,
) -> Iterator["Platform"]:
    """What serves the releases: KServe where `section` names a namespace, else this machine.

    Args:
        promote: Where models and releases are kept.
        section: The namespace, and Prometheus.
        name: The model's name.
        environment: The environment.
        rows: Rows for the golden inputs.
        threads: Intra-op threads of the session that they are compared with.
        url: The local platform, where it was not started here.
    """
    from trimgate.ops.rollout.platforms import GoldenCheck, LocalObserver, ModelFolders, base_url
    from trimgate.serving import read_state

    with tempfile.TemporaryDirectory(prefix="trimgate-models-") as cache:
        golden = GoldenCheck(ModelFolders(Path(cache), promote.mounts), rows, threads=threads)
        if section.namespace is not None:
            from trimgate.ops.kserve import Cluster
            from trimgate.ops.rollout.kserve import KServePlatform
            from trimgate.ops.rollout.prometheus import Prometheus

            cluster = Cluster.connect(section.namespace)
            yield KServePlatform(
                lambda: cluster.get("InferenceService", name),
                Prometheus(section.prometheus or ""),
                golden,
                namespace=section.namespace,
                rows=rows,
            )
            return

        def address() -> str | None:
            if url is not None:
                return base_url(url)
            state = read_state(local_platform_state(promote, name, environment))
            return None if state is None else state.url

        yield LocalObserver(address, golden)
