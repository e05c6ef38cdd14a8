"""The local target: an immutable model store and one release file per model, in a folder.

<store>/models/<name>/<sha256>/   the model directory, never changed once there
<store>/releases/<name>.json      what is released now, and what was before it
"""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from trimgate.errors import InvalidInput
from trimgate.models.directory import read


class Release(BaseModel):
    """What is released under a model's name.

    Attributes:
        uri: The immutable model directory, relative to the store.
        digest: Content digest of the model.
        run: The run that made and judged it.
        verdict: The gate's outcome; only `pass` is ever released.
        promoted: ISO 8601 time in UTC.
        previous: Digest of the release before it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    uri: str
    digest: str
    run: str
    verdict: str
    promoted: str
    previous: str | None = None


def promote(model: str | Path, store: str | Path, *, name: str, run: str, verdict: str) -> Release:
    """Copies a model that passed into the store and points the release at it.

    Doing it again with the same model changes nothing.

    Args:
        model: Model directory; every file is verified against its SHA-256.
        store: Folder of the local target; made when absent.
        name: The model's name.
        run: Id of the run that judged it.
        verdict: The gate's outcome.

    Raises:
        InvalidInput: The verdict is not `pass`, the model was altered, or the store holds
            something else under its digest.
    """
    if verdict != "pass":
        raise InvalidInput(
            "only a model that passed the gate is promoted", key="verdict", value=verdict
        )
    info = read(model, verify=True)
    store = Path(store)
    uri = f"models/{name}/{info.digest.removeprefix('sha256:')}/"
    place = store / uri
    if place.is_dir():
        if read(place, verify=True).digest != info.digest:
            raise InvalidInput("holds another model than its name says", file=place)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            shutil.copytree(model, partial)
            partial.replace(place)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            # Another run may have put the same model there meanwhile.
            same = isinstance(error, OSError) and place.is_dir()
            if not same or read(place, verify=True).digest != info.digest:
                raise
    current = released(store, name)
    if current is not None and current.digest == info.digest:
        return current
    release = Release(
        name=name,
        uri=uri,
        digest=info.digest,
        run=run,
        verdict=verdict,
        promoted=datetime.now(UTC).isoformat(timespec="seconds"),
        previous=None if current is None else current.digest,
    )
    file = _release_file(store, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial_file = file.with_name(f".{file.name}.{os.getpid()}.partial")
    partial_file.write_text(json.dumps(release.model_dump(), indent=2) + "\n")
    partial_file.replace(file)
    return release


def released(store: str | Path, name: str) -> Release | None:
    """What is released under a name, or None."""
    file = _release_file(Path(store), name)
    return Release.model_validate_json(file.read_bytes()) if file.is_file() else None


def _release_file(store: Path, name: str) -> Path:
    return store / "releases" / f"{name}.json"
