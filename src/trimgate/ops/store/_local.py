"""A store in a folder, also of a mounted volume."""

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from trimgate.models.directory import FileInfo, file_sha256
from trimgate.ops.store._base import Absent, FileStore, StoreError

_CHUNK = 1 << 20
_WORK = ".partial"
_STALE = 86400.0  # seconds


class LocalStore(FileStore):
    """Published models in a folder; each file is written under another name and then renamed.

    Args:
        folder: The folder; made when the first model is put.
        uri: How the store is called; the folder's `file://` URI when left out.
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self.folder = folder.expanduser().resolve()
        super().__init__(uri if uri is not None else self.folder.as_uri())

    def local(self, uri: str) -> Path | None:
        """Where the model's directory lies on this machine."""
        return self._place(self._folder(uri))

    def _place(self, key: str) -> Path:
        place = self.folder / key
        # a link in the store must not lead out of it
        if not place.resolve().is_relative_to(self.folder.resolve()):
            raise StoreError(f"{place}: a link leads out of the store")
        return place

    @contextlib.contextmanager
    def _writing(self, place: Path) -> Iterator[Path]:
        """A temporary file that becomes `place` when the block succeeds."""
        work = self.folder / _WORK
        work.mkdir(parents=True, exist_ok=True)
        for left in work.iterdir():
            # of a writer that was killed
            with contextlib.suppress(FileNotFoundError):
                if left.stat().st_mtime < time.time() - _STALE:
                    left.unlink()
        partial = work / f"{place.name}.{uuid.uuid4().hex}"
        try:
            yield partial
            # the manifest says that the files are there, so they must not be in memory alone
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            place.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)

    def _upload(self, source: Path, key: str, file: FileInfo) -> None:
        place = self._place(key)
        if place.is_file() and file_sha256(place) == file.sha256:
            return
        with self._writing(place) as partial:
            shutil.copyfile(source, partial)

    def _write_bytes(self, content: bytes, key: str) -> None:
        place = self._place(key)
        with self._writing(place) as partial:
            partial.write_bytes(content)

    def _read(self, key: str) -> Iterator[bytes]:
        try:
            with self._place(key).open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Absent from None

    def _folders(self, prefix: str) -> Iterator[str]:
        place = self._place(prefix)
        if place.is_dir():
            yield from (f.name for f in place.iterdir() if f.is_dir() and f.name[0] != ".")
