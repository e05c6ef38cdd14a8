"""Text to tokens: the tokenizers of the models that this process has met.

A tokenizer is known by the SHA-256 of its file. `directory.read` and `directory.seal` hand the
file's bytes over, so that rows can be tokenized where a model's record is known and its directory
is not. The library `tokenizers` is imported when the first text comes.
"""

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from trimgate.models.directory import ModelInfo

Array = NDArray[Any]

MASK = "attention_mask"
_ROWS = 32
_TOKENS = 8192
_contents: dict[str, bytes] = {}


def keep(file: Path, sha256: str) -> None:
    """Remembers the content of a tokenizer's file, unless it is known already.

    Raises:
        InvalidInput: The file's SHA-256 is another one.
    """
    if sha256 in _contents:
        return
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InvalidInput(
            "the file was altered after it was written (its SHA-256 differs)", file=file
        )
    _contents[sha256] = content


def remember(content: bytes) -> str:
    """Remembers the content of a tokenizer's file, and gives its SHA-256."""
    sha256 = hashlib.sha256(content).hexdigest()
    _contents[sha256] = content
    return sha256


def copy_tokenizer(info: "ModelInfo", directory: Path) -> None:
    """Writes the tokenizer of a text model into the directory, unless it is there already.

    Does nothing for other models.

    Args:
        info: The model's record, or that of the model which it is made from.
        directory: An existing directory.
    """
    if info.tokenizer is None or (directory / info.tokenizer.file).exists():
        return
    (directory / info.tokenizer.file).write_bytes(_contents[info.files[info.tokenizer.file].sha256])


def encode(info: "ModelInfo", texts: Array) -> dict[str, Array]:
    """The tokens of texts, cut to the model's length and filled up to the longest of them.

    Args:
        info: The record of a model with a tokenizer.
        texts: `(rows,)` object of `str`.

    Returns:
        For each name of `info.inputs`, in their order: `(rows, length)` int64.

    Raises:
        InvalidInput: A value is missing or is no text.
        MissingExtra: The library `tokenizers` is not installed.
    """
    if info.tokenizer is None:
        raise ValueError(f"{info.name} has no tokenizer")
    name = info.tokenizer.feature
    if texts.ndim != 1:
        raise InvalidInput("the model needs one text per row here", key=name)
    listed = texts.tolist()
    for value in listed:
        if value is None or value != value:
            raise InvalidInput("has missing values, and the model cannot take them", key=name)
        if not isinstance(value, str):
            raise InvalidInput("the model needs text here", key=name, value=value)
    if not listed:
        return {spec.name: np.zeros((0, 1), dtype=np.int64) for spec in info.inputs}
    digest = info.files[info.tokenizer.file].sha256
    encodings = _loaded(digest, info.tokenizer.max_length).encode_batch_fast(listed)
    parts = {"input_ids": "ids", MASK: "attention_mask", "token_type_ids": "type_ids"}
    return {
        spec.name: np.array([getattr(e, parts[spec.name]) for e in encodings], dtype=spec.dtype)
        for spec in info.inputs
    }


def trim(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Tokens of some rows without the columns that fill up other rows only."""
    used = inputs[MASK].any(axis=0)
    length = int(np.flatnonzero(used)[-1]) + 1 if used.any() else 1
    return {name: np.ascontiguousarray(values[:, :length]) for name, values in inputs.items()}


def batches(info: "ModelInfo", inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """The inputs in calls of bounded memory.

    A call has 32 texts, or fewer that are very long; or all rows of another model at once.
    """
    if info.tokenizer is None:
        yield dict(inputs)
        return
    rows, length = inputs[MASK].shape
    size = min(_ROWS, max(1, _TOKENS // length))
    for start in range(0, max(rows, 1), size):
        yield trim({name: values[start : start + size] for name, values in inputs.items()})


@functools.lru_cache(maxsize=16)
def _loaded(sha256: str, max_length: int) -> Any:
    # One thread: a row is tokenized in microseconds, and sessions state their threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtra("tokenizers", "text") from error
    tokenizer = tokenizers.Tokenizer.from_buffer(_contents[sha256])
    tokenizer.enable_truncation(max_length)
    return tokenizer
