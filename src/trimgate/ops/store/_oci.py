"""Published models as images in an OCI image layout, with the model under `/models`.

The layout (`oci-layout`, `index.json`, `blobs/sha256/`) is that of the OCI image specification
1.1; KServe mounts such an image by `oci+native://` once it was pushed, for which there are tools:
`skopeo copy oci:DIR:TAG docker://registry.example.com/fraud:TAG`.
"""

import fcntl
import hashlib
import io
import json
import os
import re
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimgate.errors import InvalidInput
from trimgate.ops.store._base import MANIFEST, Absent, Manifest, Store, split

_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_REF = "org.opencontainers.image.ref.name"
_TITLE = "org.opencontainers.image.title"
_TAG = re.compile(r"(?P<name>.+)-(?P<sha256>[0-9a-f]{64})")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK = 1 << 20


class OciStore(Store):
    """Images in a layout directory, one for each published model, tagged `<name>-<sha256>`.

    Args:
        folder: The layout; made when the first model is put.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().resolve()
        super().__init__("oci-layout://" + self.folder.as_uri().removeprefix("file://"))

    def image(self, uri: str) -> tuple[str, str]:
        """The image of a published model.

        Returns:
            Its tag in the layout, and its digest (`sha256:...`), which stays when it is pushed.

        Raises:
            InvalidInput: Nothing is published there.
        """
        _, name, sha256 = split(uri)
        found = self._index().get(f"{name}-{sha256}")
        if found is None:
            raise InvalidInput("no model is published there", key="uri", value=uri)
        return f"{name}-{sha256}", str(found["digest"])

    def _write(self, model: Path, manifest: Manifest, folder: str) -> None:
        layer = self._layer(model, manifest)
        config = self._blob(
            {
                "architecture": "amd64",  # the image has no programs; the field is required
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
                "history": [{"created_by": "trimgate", "comment": manifest.digest}],
            },
            _CONFIG_TYPE,
        )
        tag = folder.replace("/", "-")
        image = self._blob(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST_TYPE,
                "config": config,
                "layers": [layer],
                "annotations": {_TITLE: manifest.name},
            },
            _MANIFEST_TYPE,
        )
        image["annotations"] = {_REF: tag}
        self._add(tag, image)

    def _layer(self, model: Path, manifest: Manifest) -> dict[str, Any]:
        """Writes the layer: the same model gives the same bytes."""
        partial = self._partial()
        try:
            with partial.open("wb") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
                contents: dict[str, Path | bytes] = {n: model / n for n in manifest.files}
                contents[MANIFEST] = manifest.encoded()
                folders = {"models"}
                for name in contents:
                    parts = Path("models", name).parents
                    folders |= {p.as_posix() for p in parts if p != Path()}
                for name in sorted(folders):
                    entry = tarfile.TarInfo(name)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
                for name, content in contents.items():
                    entry = tarfile.TarInfo(f"models/{name}")
                    entry.mode = 0o644
                    if isinstance(content, bytes):
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
                    else:
                        entry.size = content.stat().st_size
                        with content.open("rb") as source:
                            tar.addfile(entry, source)
            return self._keep(partial, _LAYER_TYPE)
        finally:
            partial.unlink(missing_ok=True)

    def _blob(self, content: dict[str, Any], media_type: str) -> dict[str, Any]:
        partial = self._partial()
        try:
            partial.write_bytes(json.dumps(content, separators=(",", ":")).encode())
            return self._keep(partial, media_type)
        finally:
            partial.unlink(missing_ok=True)

    def _partial(self) -> Path:
        blobs = self.folder / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        return self.folder / f".{uuid.uuid4().hex}.partial"

    def _keep(self, partial: Path, media_type: str) -> dict[str, Any]:
        """Names a blob by its digest, and returns its descriptor."""
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        size = partial.stat().st_size
        partial.replace(self.folder / "blobs" / "sha256" / sha256)
        return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": size}

    def _add(self, tag: str, image: dict[str, Any]) -> None:
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._replace("oci-layout", {"imageLayoutVersion": "1.0.0"})
            entries = {**self._index(), tag: image}
            self._replace(
                "index.json",
                {
                    "schemaVersion": 2,
                    "mediaType": "application/vnd.oci.image.index.v1+json",
                    "manifests": [entries[key] for key in sorted(entries)],
                },
            )

    def _replace(self, name: str, content: dict[str, Any]) -> None:
        partial = self._partial()
        partial.write_text(json.dumps(content))
        partial.replace(self.folder / name)

    def _index(self) -> dict[str, dict[str, Any]]:
        """Descriptors of the images, by tag."""
        file = self.folder / "index.json"
        if not file.is_file():
            return {}
        try:
            listed = json.loads(file.read_bytes())["manifests"]
            return {m.get("annotations", {}).get(_REF, m["digest"]): m for m in listed}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput("is not the index of an OCI image layout", file=file) from error

    def _read(self, key: str) -> Iterator[bytes]:
        name, sha256, member = key.split("/", 2)
        found = self._index().get(f"{name}-{sha256}")
        if found is None:
            raise Absent
        altered = InvalidInput("was altered after it was published", file=self._path(found))
        try:
            layer = json.loads(self._path(found).read_bytes())["layers"][0]
            with tarfile.open(self._path(layer), mode="r:") as tar:
                source = tar.extractfile(f"models/{member}")
                if source is None:
                    raise altered
                while chunk := source.read(_CHUNK):
                    yield chunk
        except FileNotFoundError as error:
            raise InvalidInput("the file is missing in the store", file=error.filename) from error
        except (ValueError, TypeError, KeyError, IndexError, tarfile.TarError) as error:
            raise altered from error

    def _folders(self, prefix: str) -> Iterator[str]:
        tags = [found for tag in self._index() if (found := _TAG.fullmatch(tag))]
        if not prefix:
            yield from {found["name"] for found in tags}
        else:
            yield from (found["sha256"] for found in tags if found["name"] == prefix.rstrip("/"))

    def _path(self, descriptor: dict[str, Any]) -> Path:
        digest = str(descriptor["digest"])
        if not _DIGEST.fullmatch(digest):
            raise InvalidInput(
                "is no digest", file=self.folder / "index.json", key="digest", value=digest
            )
        return self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
