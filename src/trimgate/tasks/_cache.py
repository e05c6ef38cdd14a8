"""Results of technique steps, kept by the content of what they were made from.

A key covers the source model, the rows, the parameters, the target, the seed and the code, and no
path or name, so that nothing is computed twice, in whichever recipe or run it comes up. The
environment variable `TRIMGATE_CACHE` names the folder; without it nothing is kept.
"""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from trimgate.directories import writing
from trimgate.errors import InvalidInput
from trimgate.models.directory import MODEL_JSON, read

VARIABLE = "TRIMGATE_CACHE"

_log = logging.getLogger("trimgate.tasks")


class StepCache:
    """One step's place in the cache.

    Attributes:
        work: Where the step may keep what is done, for when it is killed; None without a cache.
    """

    def __init__(self, parts: dict[str, Any]) -> None:
        root = os.environ.get(VARIABLE)
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        key = hashlib.sha256(text.encode()).hexdigest()
        self._entry = Path(root).resolve() / key[:2] / key if root else None
        self.work = self._entry.with_name(f"{key}.work") if self._entry else None

    def take(self, out: Path) -> bool:
        """Puts the kept model directory at `out`, if there is one and it is whole."""
        if self._entry is None or not (self._entry / MODEL_JSON).is_file():
            return False
        try:
            read(self._entry, verify=True)
        except InvalidInput as error:
            _log.info("%s; it is made again", error)
            shutil.rmtree(self._entry)
            return False
        with writing(out) as partial:
            shutil.copytree(self._entry, partial, dirs_exist_ok=True, copy_function=_link)
        return True

    def keep(self, directory: Path) -> None:
        """Keeps a finished model directory, and lets go of the unfinished work."""
        if self._entry is None or self.work is None:
            return
        if not self._entry.exists():
            try:
                with writing(self._entry) as partial:
                    shutil.copytree(directory, partial, dirs_exist_ok=True, copy_function=_link)
            except (OSError, InvalidInput) as error:
                # the step itself is done; another process kept it first, or the disk is full
                _log.info("not kept for later runs: %s", error)
        shutil.rmtree(self.work, ignore_errors=True)


def _link(source: str, target: str) -> str:
    """A hard link: model files are never written to again. A copy on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
