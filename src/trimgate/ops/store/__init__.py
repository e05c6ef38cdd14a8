"""Published models, addressed by what they hold: `<store>/<name>/<sha256>/`.

    store = open_store("s3://models/production")
    uri = store.put("model")           # s3://models/production/fraud/5d1c…/
    store.verify(uri)
    store.fetch(uri, "copy")

`<sha256>` is the SHA-256 of the folder's `manifest.json`, which lists every file with its own, and
which is uploaded last. A URI therefore stands for the same bytes for ever, and a model is there
whole or not at all.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from trimgate.errors import InvalidInput
from trimgate.ops.store._base import (
    MANIFEST,
    Manifest,
    Store,
    Stored,
    StoreError,
    split,
)
from trimgate.ops.store._local import LocalStore
from trimgate.ops.store._oci import OciStore
from trimgate.ops.store._s3 import S3Store

__all__ = [
    "MANIFEST",
    "Manifest",
    "Store",
    "StoreError",
    "Stored",
    "fetch",
    "open_store",
    "split",
    "verify",
]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_store(uri: str | Path, *, mounts: Mapping[str, str | Path] | None = None) -> Store:
    """Opens a store; nothing is read or written yet.

    Args:
        uri: A folder, or `file://`; `s3://bucket/prefix`; `pvc://claim/path`; or `oci-layout://`
            with the path of an OCI image layout.
        mounts: Where each volume claim is mounted on this machine.

    Returns:
        The store.

    Raises:
        InvalidInput: The URI is of no known kind or leads out of its place, a claim is not
            mounted, or there are no credentials for S3.
        MissingExtra: The store is in S3, and boto3 is not installed.
    """
    text = str(uri)
    if "://" not in text:
        return LocalStore(Path(text))
    parts = urlsplit(text)
    path = parts.path.strip("/")
    odd = parts.query or parts.fragment or parts.username or parts.password
    if odd or ".." in PurePosixPath(unquote(path)).parts or "//" in path:
        # the value is not shown: it may hold a password
        raise InvalidInput(
            "a store's URI has no user, no query and no `..`", key="store",
            mend="credentials come from the environment (AWS_ACCESS_KEY_ID, ...)",
        )  # fmt: skip
    if parts.scheme == "s3" and _BUCKET.fullmatch(parts.netloc):
        return S3Store(parts.netloc, path)
    if parts.scheme == "pvc" and parts.netloc:
        return _volume(parts.netloc, path, mounts or {})
    if parts.scheme in ("file", "oci-layout") and not parts.netloc and path:
        place = Path("/", unquote(path))
        if parts.scheme == "file":
            return LocalStore(place)
        return OciStore(place)
    raise InvalidInput(
        "is not a store",
        key="store",
        value=text,
        mend="give a folder, s3://bucket/prefix, pvc://claim/path or oci-layout:///path",
    )


def verify(uri: str, *, mounts: Mapping[str, str | Path] | None = None) -> Manifest:
    """Reads every byte of a published model, and compares it with the digest in its URI.

    Args:
        uri: The model's URI, as `Store.put` returned it.
        mounts: As for `open_store`.

    Raises:
        InvalidInput: Nothing is published there, or a file is missing or was altered.
        StoreError: The store cannot be reached.
    """
    return open_store(split(uri)[0], mounts=mounts).verify(uri)


def fetch(uri: str, dest: str | Path, *, mounts: Mapping[str, str | Path] | None = None) -> Path:
    """Downloads a published model, and verifies it on the way.

    Args:
        uri: The model's URI, as `Store.put` returned it.
        dest: Where the model directory shall stand; it is there whole or not at all.
        mounts: As for `open_store`.

    Returns:
        `dest`.

    Raises:
        InvalidInput: As `verify`, or `dest` exists and is not empty.
        StoreError: The store cannot be reached.
    """
    return open_store(split(uri)[0], mounts=mounts).fetch(uri, dest)


def _volume(claim: str, path: str, mounts: Mapping[str, str | Path]) -> Store:
    if claim not in mounts:
        raise InvalidInput(
            f"the volume claim {claim!r} is not mounted here", key="store",
            value=f"pvc://{claim}/{path}", mend=f"say where: mounts: {{{claim}: /mnt/{claim}}}",
        )  # fmt: skip
    mount = Path(mounts[claim])
    if not mount.is_dir():
        raise InvalidInput("is not a folder", key=f"mounts.{claim}", value=str(mount))
    return LocalStore(mount / path, f"pvc://{claim}/{path}".rstrip("/"))
