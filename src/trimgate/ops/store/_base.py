"""What every store does: published models, addressed by what they hold."""

import functools
import hashlib
import json
import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimgate.directories import writing
from trimgate.errors import InvalidInput, TrimgateError
from trimgate.models import directory, safety
from trimgate.models.directory import FileInfo

MANIFEST = "manifest.json"

_log = logging.getLogger("trimgate.ops.store")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MODEL_URI = re.compile(rf"(?P<root>.+)/(?P<name>{_NAME.pattern})/(?P<sha256>[0-9a-f]{{64}})/")
_MANIFEST_LIMIT = 1 << 24  # bytes; a manifest takes about a hundred for each file


class StoreError(TrimgateError):
    """A store cannot be reached, or it lost what it was given; the same call may be made again."""


class Absent(Exception):
    """Nothing is stored under a key."""


class Manifest(BaseModel):
    """What `manifest.json` says; it is uploaded last, so that a model is there whole or not.

    Attributes:
        name: The model's name.
        digest: Content digest of the model, as in its `model.json`.
        files: Every other file, by name relative to the folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    schema_version: Literal[1] = 1
    name: str = Field(pattern=f"^{_NAME.pattern}$")
    digest: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    files: dict[str, FileInfo]

    @classmethod
    def of(cls, model: str | Path) -> "Manifest":
        """Makes the manifest of a model directory.

        Raises:
            InvalidInput: It is no model directory, a file was altered, holds a link, or is of a
                kind that is not published.
        """
        path = Path(model)
        info = directory.read(path, verify=True)
        if not _NAME.fullmatch(info.name):
            raise InvalidInput(
                "cannot be the name of a folder", file=path / directory.MODEL_JSON, key="name",
                value=info.name, mend="use letters, digits, dots, dashes and underscores",
            )  # fmt: skip
        safety.check(path)
        files = {
            name: FileInfo(
                sha256=directory.file_sha256(path / name), size=(path / name).stat().st_size
            )
            for name in safety.members(path)
            if name != MANIFEST
        }
        return cls(name=info.name, digest=info.digest, files=files)

    def encoded(self) -> bytes:
        """The one form that it is written in."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return text.encode() + b"\n"

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of `encoded`: the name of the folder, which thereby vouches for every byte."""
        return hashlib.sha256(self.encoded()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True)
class Stored:
    """A published model.

    Attributes:
        uri: Its immutable URI, with a trailing slash.
        name: The model's name.
        digest: Content digest of the model (`sha256:...`).
    """

    uri: str
    name: str
    digest: str


def split(uri: str) -> tuple[str, str, str]:
    """Takes the URI of a published model apart.

    Returns:
        The store's URI, the model's name, and the SHA-256 of its manifest.

    Raises:
        InvalidInput: It has another form.
    """
    found = _MODEL_URI.fullmatch(uri)
    if found is None:
        raise InvalidInput(
            "is not the URI of a published model",
            key="uri",
            value=uri,
            mend="it ends in <name>/<64 hex digits>/, with the slash",
        )
    return found["root"], found["name"], found["sha256"]


class Store(ABC):
    """A place for published models: `<root>/<name>/<sha256>/`.

    The folder is named by the SHA-256 of its `manifest.json`, which lists every file with its own.
    So the URI says what the bytes are, equal bytes have one URI, and writers who come at once or
    again cannot disagree about what a file holds.

    Args:
        uri: The store's URI without a trailing slash.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def put(self, model: str | Path) -> str:
        """Publishes a model directory.

        Files come first and are read back, the manifest last. After a failure the same call sends
        only what is missing; when the model is there already it is verified, and nothing is sent.

        Args:
            model: The model directory. Its files are checked against their SHA-256, and for
                kinds that are unsafe (`trimgate.models.safety`).

        Returns:
            The immutable URI, with a trailing slash.

        Raises:
            InvalidInput: The model was altered or is unsafe, or the store refuses the caller.
            StoreError: The store cannot be reached, or does not hold what it was sent.
        """
        manifest = Manifest.of(model)
        folder = f"{manifest.name}/{manifest.sha256}"
        uri = f"{self.uri}/{folder}/"
        if self.exists(uri):
            self.verify(uri)
            return uri
        began = time.monotonic()
        self._write(Path(model), manifest, folder)
        self.manifest(uri)
        _log.info(
            "published %s (%.3g MB in %.1f s)", uri, manifest.size / 1e6, time.monotonic() - began
        )
        return uri

    def manifest(self, uri: str) -> Manifest:
        """What a published model consists of; the files themselves are not read.

        Raises:
            InvalidInput: Nothing is published there, or the manifest was altered.
            StoreError: The store cannot be reached.
        """
        _, name, sha256 = split(uri)
        folder = self._folder(uri)
        try:
            content = b"".join(_bounded(self._read(f"{folder}/{MANIFEST}"), _MANIFEST_LIMIT))
        except Absent:
            raise InvalidInput(
                "no model is published there", key="uri", value=uri, mend="publish it first"
            ) from None
        altered = InvalidInput("was altered after it was published", file=f"{uri}{MANIFEST}")
        if hashlib.sha256(content).hexdigest() != sha256:
            raise altered
        try:
            found = Manifest.model_validate_json(content)
        except ValidationError as error:
            raise altered from error
        if found.name != name:
            raise altered
        for member in found.files:
            _check_member(member, f"{uri}{MANIFEST}")
        return found

    def exists(self, uri: str) -> bool:
        """Whether a whole model is published there.

        Raises:
            StoreError: The store cannot be reached.
        """
        try:
            next(iter(self._read(f"{self._folder(uri)}/{MANIFEST}")), b"")
        except Absent:
            return False
        return True

    def verify(self, uri: str) -> Manifest:
        """Reads every byte of a published model, and compares it with the digest in the URI.

        Raises:
            InvalidInput: Nothing is published there, or a file is missing or was altered.
            StoreError: The store cannot be reached.
        """
        manifest = self.manifest(uri)
        for name in manifest.files:
            for _ in self._checked(uri, name, manifest.files[name]):
                pass
        return manifest

    def fetch(self, uri: str, dest: str | Path) -> Path:
        """Downloads a published model, and verifies it on the way.

        Args:
            uri: The model's URI.
            dest: Where the model directory shall stand; it is there whole or not at all.

        Returns:
            `dest`.

        Raises:
            InvalidInput: As `verify`, or `dest` exists and is not empty.
            StoreError: The store cannot be reached.
        """
        manifest = self.manifest(uri)
        with writing(dest) as partial:
            for name, file in manifest.files.items():
                target = partial / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as stream:
                    for chunk in self._checked(uri, name, file):
                        stream.write(chunk)
            (partial / MANIFEST).write_bytes(manifest.encoded())
            safety.check(partial)
            found = directory.read(partial, verify=True).digest
            if found != manifest.digest:
                raise InvalidInput("holds another model than its manifest says", file=uri)
        return Path(dest)

    def list(self, name: str | None = None) -> list[Stored]:
        """Published models, by name and then URI.

        Those that are not whole are left out; so are altered ones, with a warning.

        Args:
            name: Only those of this name.

        Raises:
            StoreError: The store cannot be reached.
        """
        found = []
        for each in [name] if name is not None else sorted(self._folders("")):
            for sha256 in sorted(self._folders(f"{each}/")):
                uri = f"{self.uri}/{each}/{sha256}/"
                if not _MODEL_URI.fullmatch(uri) or not self.exists(uri):
                    continue
                try:
                    manifest = self.manifest(uri)
                except InvalidInput as error:
                    _log.warning("left out: %s", error)
                else:
                    found.append(Stored(uri, manifest.name, manifest.digest))
        return found

    def local(self, uri: str) -> Path | None:
        """Where the model's directory lies on this machine, or None."""
        return None

    def _folder(self, uri: str) -> str:
        """The model's folder relative to the store.

        Raises:
            InvalidInput: The URI belongs to another store.
        """
        root, name, sha256 = split(uri)
        if root != self.uri:
            raise InvalidInput("lies in another store", key="uri", value=uri, mend=self.uri)
        return f"{name}/{sha256}"

    def _checked(self, uri: str, name: str, file: FileInfo) -> Iterator[bytes]:
        """The bytes of a file, which fail at their end when they are not those of the manifest."""
        digest = hashlib.sha256()
        try:
            for chunk in _bounded(self._read(f"{self._folder(uri)}/{name}"), file.size):
                digest.update(chunk)
                yield chunk
        except Absent:
            raise InvalidInput("the file is missing in the store", file=uri + name) from None
        if digest.hexdigest() != file.sha256:
            raise InvalidInput("was altered after it was published", file=uri + name)

    @abstractmethod
    def _write(self, model: Path, manifest: Manifest, folder: str) -> None:
        """Stores every file, and then the manifest."""

    @abstractmethod
    def _read(self, key: str) -> Iterator[bytes]:
        """The bytes of an object.

        Raises:
            Absent: There is none.
        """

    @abstractmethod
    def _folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders right below a prefix (empty, or with a trailing slash)."""


class FileStore(Store):
    """A store that keeps each file under its own key."""

    def _write(self, model: Path, manifest: Manifest, folder: str) -> None:
        """Stores every file, and then the manifest."""
        for name, file in manifest.files.items():
            self._upload(model / name, f"{folder}/{name}", file)
        for name, file in manifest.files.items():
            for _ in self._checked(f"{self.uri}/{folder}/", name, file):
                pass
        self._write_bytes(manifest.encoded(), f"{folder}/{MANIFEST}")

    @abstractmethod
    def _upload(self, source: Path, key: str, file: FileInfo) -> None:
        """Stores a file, unless it is there; after a cut only what is missing is sent."""

    @abstractmethod
    def _write_bytes(self, content: bytes, key: str) -> None:
        """Stores a small object, whole or not at all."""


def _bounded(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """Stops shortly after `limit` bytes: what is longer was altered, and may be without end."""
    taken = 0
    for chunk in chunks:
        taken += len(chunk)
        yield chunk
        if taken > limit:
            return


def _check_member(name: str, file: str) -> None:
    path = PurePosixPath(name)
    odd = "\\" in name or "\0" in name or name != path.as_posix() or name in ("", ".", MANIFEST)
    if odd or path.is_absolute() or ".." in path.parts:
        raise InvalidInput("leads out of the model's folder", file=file, key="files", value=name)
