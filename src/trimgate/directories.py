"""Directories that are there whole or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from trimgate.errors import InvalidInput


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary directory beside `path` that becomes `path` when the block succeeds.

    Args:
        path: Where the directory shall stand; an empty directory there is replaced.

    Raises:
        InvalidInput: `path` exists, before or after the work, and is not an empty directory.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InvalidInput("already exists", file=path, mend="name a new directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        try:
            if path.exists():
                path.rmdir()
            partial.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise InvalidInput(
                "was made by another process meanwhile", file=path, mend="take it as it is"
            ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
