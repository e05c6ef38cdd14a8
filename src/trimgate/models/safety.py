"""Refuses files that could run code, or reach outside their directory, when a model is loaded.

What is allowed is listed, and decided by content: a file must be what its suffix says. A list of
dangerous pickles is not kept, because no pickle is allowed at all.
"""

import json
import pickletools
import re
import stat
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from trimgate.errors import InvalidInput, MissingExtra

DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "com.microsoft", "com.microsoft.nchwc"}
)
"""Operator domains that ONNX Runtime itself implements."""

_HEAD = 4096
_PROGRAMS = {
    b"\x7fELF": "an executable (ELF)",
    b"MZ": "an executable (Windows)",
    b"\xfe\xed\xfa\xce": "an executable (Mach-O)",
    b"\xfe\xed\xfa\xcf": "an executable (Mach-O)",
    b"\xce\xfa\xed\xfe": "an executable (Mach-O)",
    b"\xcf\xfa\xed\xfe": "an executable (Mach-O)",
    b"\xca\xfe\xba\xbe": "an executable (Mach-O or Java)",
    b"\x00asm": "a program (WebAssembly)",
    b"#!": "a script",
}
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"\x04\x22\x4d\x18": "an lz4 archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x89HDF": "an HDF5 file (Keras may keep code in one)",
}
_TRITON = frozenset(
    {
        "name", "backend", "max_batch_size", "input", "output", "data_type", "dims",
        "instance_group", "count", "kind", "parameters", "key", "value", "string_value",
    }
)  # fmt: skip
_PICKLE_OPCODES = 100_000
_SKOPS_MEMBERS = ("schema.json", ".npy", ".npz", ".bin")
_TUPLES = frozenset({"TUPLE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})


def check(model: str | Path, *, unread: Collection[str] = ()) -> None:
    """Checks every file of a model directory.

    Args:
        model: The directory; it need not have a `model.json`.
        unread: Names of files that will not be loaded, and are left out.

    Raises:
        InvalidInput: A file is unsafe, or of a kind that trimgate does not know; the message
            names the first, and says how many more there are.
    """
    found = problems(model, unread=unread)
    if found:
        name, problem = found[0]
        more = f" (and {len(found) - 1} more files)" if len(found) > 1 else ""
        raise InvalidInput(
            f"{problem}{more}",
            file=Path(model) / name,
            mend="publish only formats without code: ONNX, safetensors, skops, JSON, "
            "XGBoost's and LightGBM's own, OpenVINO",
        )


def problems(model: str | Path, *, unread: Collection[str] = ()) -> list[tuple[str, str]]:
    """What is unsafe about the files of a directory.

    Args:
        model: The directory.
        unread: As for `check`.

    Returns:
        Name and problem of each file at fault, by name; empty when there is none.

    Raises:
        InvalidInput: It holds a link, or something that is no file.
    """
    root = Path(model)
    names = [name for name in members(root) if name not in unread]
    return [(name, problem) for name in names if (problem := _problem(root, name))]


def members(model: str | Path) -> list[str]:
    """Names of all files of a directory, relative to it and sorted.

    Raises:
        InvalidInput: It holds a link or something that is no file, or a name that a store could
            take for something else.
    """
    root = Path(model)
    names = []
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        name = path.relative_to(root).as_posix()
        if stat.S_ISLNK(mode):
            target = path.readlink()
            raise InvalidInput(
                f"is a link (to {target})", file=path, mend="put the file itself in its place"
            )
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InvalidInput("is neither a file nor a folder", file=path)
        if re.search(r"[\\\x00-\x1f\x7f]", name):
            raise InvalidInput("has a character in its name that is not portable", file=path)
        if stat.S_ISREG(mode):
            names.append(name)
    return sorted(names)


def _problem(root: Path, name: str) -> str | None:
    path = root / name
    kind = next((k for suffix, k in _KINDS.items() if name.endswith(suffix)), None)
    raw = (kind is None or kind is _openvino_weights) and _is_external_data(root, name)
    if (problem := _dangerous(path, zipped=kind is _skops, raw=raw)) is not None:
        return problem
    if raw:
        return None
    if kind is None:
        return "is of a kind that is not published"
    try:
        return kind(path)
    except MissingExtra:
        raise
    # a damaged or planted file fails in as many ways as it has bytes
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"is not what its name says ({lines[0][:160]})"


def _dangerous(path: Path, *, zipped: bool = False, raw: bool = False) -> str | None:
    """What a file is by its first bytes, where that is never allowed.

    Raw numbers may begin with two given bytes by chance.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
        for magic, what in {**_PROGRAMS, **_ARCHIVES}.items():
            allowed = (zipped and magic.startswith(b"PK")) or (raw and len(magic) < 4)
            if head.startswith(magic) and not allowed:
                return f"is {what}"
        if head[257:262] == b"ustar":
            return "is a tar archive"
        stream.seek(0)
        if _is_pickle(stream):
            return "is a pickle, which runs code when it is loaded"
    return None


def _is_pickle(stream: BinaryIO) -> bool:
    """Whether it reads as a pickle; nothing of it is carried out.

    Protocols before 2 have no mark at their begin, and are dangerous only if they name something
    and call it.
    """
    seen: list[str] = []
    try:
        for opcode, _, _ in pickletools.genops(stream):
            seen.append(opcode.name)
            if seen[0] == "PROTO" and len(seen) > 1:
                return True
            called = opcode.name == "REDUCE" and not _TUPLES.isdisjoint(seen)
            if (called and "GLOBAL" in seen) or (opcode.name in ("INST", "OBJ") and "MARK" in seen):
                return True
            if len(seen) > _PICKLE_OPCODES:
                return False
    except Exception:  # noqa: S110, whatever is no pickle ends here
        pass
    return False


def _onnx(path: Path) -> str | None:
    import onnx

    model = onnx.ModelProto.FromString(path.read_bytes())
    if not model.ir_version or not model.HasField("graph"):
        return "is not an ONNX model"
    own = {function.domain for function in model.functions}
    for function in model.functions:
        if (domain := _foreign_domain(function.node, own)) is not None:
            return domain
    return _onnx_graph(model.graph, path, own)


def _onnx_graph(graph: Any, path: Path, own: set[str]) -> str | None:
    if (problem := _foreign_domain(graph.node, own)) is not None:
        return problem
    for tensor in _tensors(graph):
        location = next((e.value for e in tensor.external_data if e.key == "location"), None)
        if location is None:
            continue
        inside = PurePosixPath(location)
        if inside.is_absolute() or ".." in inside.parts or "\\" in location:
            return f"reads its weights from outside the model directory ({location!r})"
        if not (path.parent / location).is_file():
            return f"lacks its weights ({location!r})"
    return None


def _foreign_domain(nodes: Any, own: set[str]) -> str | None:
    for node in _all_nodes(nodes):
        if node.domain not in DOMAINS | own:
            return (
                f"needs operators from outside ONNX Runtime (domain {node.domain!r}, "
                f"{node.op_type})"
            )
    return None


def _all_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all_nodes(graph.node)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in _all_nodes(graph.node):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from inner.initializer


def _is_external_data(root: Path, name: str) -> bool:
    """Whether an ONNX file beside it says that it is its weights."""
    import onnx

    folder = (root / name).parent
    for path in folder.glob("*.onnx"):
        try:
            graph = onnx.ModelProto.FromString(path.read_bytes()).graph
        except Exception:  # noqa: S112, reported under its own name
            continue
        for tensor in _tensors(graph):
            for entry in tensor.external_data:
                if entry.key == "location" and folder / entry.value == root / name:
                    return True
    return False


def _safetensors(path: Path) -> str | None:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        data = path.stat().st_size - 8 - length
        if not 2 <= length <= 100_000_000 or data < 0:
            return "is not a safetensors file"
        header = json.loads(stream.read(length))
    for key, tensor in header.items():
        if key == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        if not 0 <= begin <= end <= data:
            return "is not a safetensors file (a tensor lies outside it)"
    return None


def _skops(path: Path) -> str | None:
    from trimgate.models._skops import foreign_types

    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as stream:
                head = stream.read(_HEAD)
                stream.seek(0)
                if not name.endswith(_SKOPS_MEMBERS) or _is_pickle(cast(BinaryIO, stream)):
                    return f"is an archive that holds {name!r}, which is no part of a skops file"
            if name.endswith(".npy") and not head.startswith(b"\x93NUMPY"):
                return f"is an archive that holds {name!r}, which is no array"
    foreign = foreign_types(path)
    return f"holds types that are not trusted: {', '.join(foreign)}" if foreign else None


def _npy_file(path: Path) -> str | None:
    import numpy as np

    np.load(path, mmap_mode="r", allow_pickle=False)
    return None


def _json(path: Path) -> str | None:
    json.loads(path.read_bytes())
    return None


def _ubjson(path: Path) -> str | None:
    """XGBoost's binary form: a UBJSON object that begins with the learner or the version."""
    head = path.read_bytes()[:64]
    return None if head[:1] == b"{" and head[1:2] in (b"L", b"i", b"U") else "is not UBJSON"


def _lightgbm_or_text(path: Path) -> str | None:
    content = path.read_bytes()
    content.decode()
    return "holds a zero byte" if b"\0" in content else None


def _triton(path: Path) -> str | None:
    """A config of Triton, which can name backends and libraries that are code.

    What is allowed is what `trimgate.ops.kserve.triton_config` writes.
    """
    text = path.read_text()
    bare = re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', text)
    if re.search(r"[^\w\s:{}\[\],\"-]", bare):
        return "holds what trimgate does not write into a config of Triton"
    words = re.findall(r"[A-Za-z_]\w*", bare)
    foreign = [w for w in words if w not in _TRITON and not w.startswith(("TYPE_", "KIND_"))]
    if foreign:
        return f"sets {foreign[0]} of Triton, which trimgate does not write"
    if re.findall(r"\bbackend\s*:\s*(\S+)", text) != ['"onnxruntime"']:
        return "configures Triton for another backend than onnxruntime"
    return None


def _openvino(path: Path) -> str | None:
    content = path.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        return "declares XML entities"
    if ElementTree.fromstring(content).tag != "net":  # noqa: S314, entities are refused above
        return "is not an OpenVINO model"
    return None


def _openvino_weights(path: Path) -> str | None:
    graph = path.with_suffix(".xml")
    if not graph.is_file() or _openvino(graph) is not None:
        return "has no OpenVINO model beside it that it belongs to"
    return None


_KINDS: dict[str, Callable[[Path], str | None]] = {
    ".onnx": _onnx,
    ".safetensors": _safetensors,
    ".skops": _skops,
    ".npy": _npy_file,
    ".json": _json,
    ".ubj": _ubjson,
    ".txt": _lightgbm_or_text,
    ".md": _lightgbm_or_text,
    ".pbtxt": _triton,
    ".xml": _openvino,
    ".bin": _openvino_weights,
}
