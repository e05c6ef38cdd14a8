"""What the commands about releases share."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from trimgate.cli._common import console
from trimgate.config import MlflowSection, PromoteSection, load_config
from trimgate.errors import InvalidInput, TrimgateError
from trimgate.ops.promotion import Promotion
from trimgate.ops.release import Release

CONFIG = "optimize.yaml"


def settings(arguments: argparse.Namespace) -> tuple[PromoteSection, MlflowSection | None]:
    """The section `promote` of the config, with what the command line says instead.

    Without a config a repository must be named.

    Raises:
        InvalidInput: There is neither.
    """
    section, mlflow = PromoteSection(), None
    file = arguments.config or (CONFIG if Path(CONFIG).is_file() else None)
    if file is not None:
        config = load_config(file)
        section, mlflow = config.promote, config.mlflow
    elif not (arguments.repository or arguments.store):
        raise InvalidInput(
            f"there is no {CONFIG} here, and it says where releases are recorded", key="--config",
            mend="name it, or give --repository",
        )  # fmt: skip
    given = {
        key: getattr(arguments, key)
        for key in ("repository", "branch", "store")
        if getattr(arguments, key)
    }
    if "store" in given and "repository" not in given:
        given["repository"] = None
    section = PromoteSection.model_validate({**section.model_dump(), **given})
    return section, mlflow if mlflow is not None and mlflow.enabled else None


def show(promotion: Promotion, *, as_json: bool) -> None:
    """Prints what became of a promotion or a rollback."""
    release = promotion.release
    if as_json:
        print(json.dumps({**as_dict(release), "revision": promotion.revision,
                          "branch": promotion.branch, "pull_request": promotion.pull_request},
                         indent=2))  # fmt: skip
        return
    out = console()
    what = said(release)
    if promotion.revision is None:
        out.print(f"nothing to do: {what} already", highlight=False, soft_wrap=True)
    elif promotion.branch is None:
        out.print(f"{what} (commit {promotion.revision[:12]})", highlight=False, soft_wrap=True)
    else:
        where = promotion.pull_request or f"open it from the branch {promotion.branch}"
        out.print(f"{what}, once this is merged: {where}", highlight=False, soft_wrap=True)


def said(release: Release) -> str:
    """A release in words."""
    model = release.canary or release.stable
    if model is None:
        return f"{release.environment} has no {release.name}"
    version = f" v{model.version}" if model.version else ""
    share = f" to {release.traffic_percent} %" if release.canary else ""
    digest = model.digest.removeprefix("sha256:")[:12]
    return f"{release.environment} has {release.name}{version} {digest}{share}"


def as_dict(release: Release) -> dict[str, Any]:
    """A release as JSON values."""
    return release.model_dump(mode="json")


def keep_champion(mlflow: MlflowSection | None, promotion: Promotion) -> None:
    """Gives the version that the last environment runs the alias `champion`.

    Raises:
        TrimgateError: MLflow does not take it; the release stands.
    """
    stable = promotion.release.stable
    if mlflow is None or stable is None or not stable.version or promotion.branch is not None:
        return
    from trimgate.ops.mlflow import set_champion

    name = mlflow.registered_model or promotion.release.name
    try:
        set_champion(name, stable.version, tracking_uri=mlflow.tracking_uri)
    except TrimgateError as error:
        raise TrimgateError(
            f"it is released, and its alias in MLflow could not be set: {error}; the same command "
            "sets it"
        ) from error


def table(*columns: str) -> Table:
    """A plain table."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
