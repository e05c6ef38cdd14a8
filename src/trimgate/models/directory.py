"""The model directory: what every step of trimgate reads and writes.

A directory with `model.json` (this module's `ModelInfo`) and beside it the files of each form
that the model has:

- `model.onnx`: what is served by ONNX Runtime, OpenVINO and Triton;
- a trainable form: `model.skops`, `model.ubj` (XGBoost), `model.txt` (LightGBM) or
  `weights.safetensors` with `ModelInfo.builder`;
- whatever a runtime needs beside those.

`model.json` is written last and names every file with its SHA-256, so a directory is either
whole or not a model directory.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimgate.directories import writing as writing
from trimgate.errors import InvalidInput
from trimgate.models import _tokenizer

MODEL_JSON = "model.json"
ONNX_FILE = "model.onnx"

Task = Literal["binary", "multiclass", "regression"]
Family = Literal["trees", "linear", "mlp", "cnn", "transformer", "other"]
Framework = Literal["sklearn", "xgboost", "lightgbm", "torch", "onnx"]
ScoreKind = Literal["probability", "logit", "value", "label"]
RuntimeName = Literal["native", "onnxruntime", "openvino", "openvino-ep", "daal4py", "torch"]
ONNX_RUNTIMES = ("onnxruntime", "openvino", "openvino-ep")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class TensorSpec(_Record):
    """One input or output tensor.

    Attributes:
        name: Its name in the ONNX graph and in the served protocol.
        dtype: NumPy name (`float32`, `float64`, `int64`, `uint8`, ...) or `string`.
        shape: -1 stands for the batch (always the first) and other dynamic dimensions.
        features: For an input: the features of the row it is made of, in order. Numeric
            features are stacked to `(rows, len(features))`; a single feature that is itself an
            array `(rows, ...)` is passed as it is.
        missing: For a string input: the text that stands for a missing value.
        no_nan: For a numeric input: those of `features` in which the model cannot take NaN.
        no_inf: The same for infinite values.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    features: tuple[str, ...] = ()
    missing: str | None = None
    no_nan: tuple[str, ...] = ()
    no_inf: tuple[str, ...] = ()


class Tokenizer(_Record):
    """What turns the text of a row into the integers that a transformer takes.

    Attributes:
        file: Its file in the model directory, in the format of the library `tokenizers`; it says
            how rows of different length are filled up.
        feature: The feature of the row that holds the text.
        max_length: Tokens of a row, special ones included; a longer text is cut.
    """

    file: str = "tokenizer.json"
    feature: str
    max_length: int = Field(ge=1)


class RuntimeChoice(_Record):
    """The engine that serves the model, with its session options.

    Attributes:
        name: `native` is the framework that trained it.
        precision: What the engine computes in: `f32`, `bf16` or `f16`. It is stated, never
            left to the engine's default.
        options: Engine-specific session options (documented in the runtime's module).
        cpu_flags: Flags of the CPU that the files were optimized for; a CPU that lacks one of
            them does not load the model.
        large: Another engine for calls with many rows.
    """

    name: RuntimeName = "native"
    precision: Literal["f32", "bf16", "f16"] = "f32"
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    cpu_flags: tuple[str, ...] = ()
    large: "LargeBatches | None" = None

    def engines(self) -> tuple["RuntimeChoice", ...]:
        """The engines that it loads: itself, and the one for many rows."""
        return (self,) if self.large is None else (self, *self.large.runtime.engines())


class LargeBatches(_Record):
    """The engine for calls with many rows.

    Attributes:
        rows: From so many rows on.
        runtime: The engine, with its options.
    """

    rows: int = Field(ge=2)
    runtime: RuntimeChoice


class FileInfo(_Record):
    """Digest and size in bytes of one file."""

    sha256: str
    size: int


class ModelInfo(_Record):
    """What `model.json` says.

    Attributes:
        name: The model's name, the same for all its descendants.
        task: `binary` and `multiclass` have `labels`; `regression` has none.
        family: Decides the default recipes.
        framework: What the trainable form is made with (`onnx`: there is none).
        inputs: Input tensors, in order.
        outputs: Output tensors of the ONNX form, in order; empty while there is none.
        score_output: The output that holds the scores.
        score_kind: What the scores are. `label`: the model gives class labels only.
        labels: Class labels in the order of the scores' columns.
        builder: For torch: `package.module:function` that makes the module.
        builder_arguments: Keyword arguments for the builder (JSON values).
        tokenizer: Of a model that takes text: all its inputs are made of the text.
        features: All features of the original row, in order.
        unused_features: Features that the model no longer looks at.
        runtime: How it is served.
        files: Every file but `model.json`, by name relative to the directory.
        digest: `sha256:...` over all the rest of this record but `parent`, `recipe`, `notes`.
        parent: Digest of the model it was made from.
        recipe: The steps so far, each with `technique` and its parameters.
        notes: Facts that a step wants shown in the card (JSON values), by step name.
    """

    schema_version: Literal[1] = 1
    name: str
    task: Task
    family: Family
    framework: Framework
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    score_output: str | None = None
    score_kind: ScoreKind = "probability"
    labels: tuple[str | int | float | bool, ...] = ()
    builder: str | None = None
    builder_arguments: dict[str, Any] = Field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    features: tuple[str, ...] = ()
    unused_features: tuple[str, ...] = ()
    runtime: RuntimeChoice = Field(default_factory=RuntimeChoice)
    files: dict[str, FileInfo] = Field(default_factory=dict)
    digest: str = ""
    parent: str | None = None
    recipe: tuple[dict[str, Any], ...] = ()
    notes: dict[str, Any] = Field(default_factory=dict)

    @property
    def has_onnx(self) -> bool:
        """Whether it has the form that model servers read."""
        return ONNX_FILE in self.files

    @property
    def size(self) -> int:
        """Bytes that the served forms take: the ONNX form, the trainable form, or both.

        The tokenizer belongs to each.
        """
        onnx = {choice.name in ONNX_RUNTIMES for choice in self.runtime.engines()}
        both = self.tokenizer.file if self.tokenizer else None
        return sum(
            f.size for n, f in self.files.items() if n == both or n.startswith(ONNX_FILE) in onnx
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read(path: str | Path, *, verify: bool = False) -> ModelInfo:
    """Reads the `model.json` of a model directory.

    Args:
        path: The model directory.
        verify: Also compare every file with its SHA-256.

    Raises:
        InvalidInput: It is not a model directory, or a file is missing or was altered.
    """
    path = Path(path)
    file = path / MODEL_JSON
    if not file.is_file():
        raise InvalidInput(
            "is not a model directory (it has no model.json)",
            file=path,
            mend="give the directory that a trimgate run or `trimgate promote` wrote",
        )
    try:
        info = ModelInfo.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            first["msg"], file=file, key=".".join(map(str, first["loc"])) or None
        ) from error
    for name, expected in info.files.items():
        member = path / name
        if path.resolve() not in member.resolve().parents:
            raise InvalidInput(
                "leads out of the model directory", file=file, key="files", value=name
            )
        if not member.is_file():
            raise InvalidInput("the file is missing", file=member)
        if verify and file_sha256(member) != expected.sha256:
            raise InvalidInput(
                "the file was altered after it was written (its SHA-256 differs)", file=member
            )
    if verify and _digest(info) != info.digest:
        raise InvalidInput("the record was altered (its digest differs)", file=file)
    if info.tokenizer is not None:
        if info.tokenizer.file not in info.files:
            raise InvalidInput(
                "is not among the files of the model", file=file, key="tokenizer.file",
                value=info.tokenizer.file,
            )  # fmt: skip
        digest = info.files[info.tokenizer.file].sha256
        _tokenizer.keep(path / info.tokenizer.file, digest)
    return info


def seal(directory: Path, info: ModelInfo) -> ModelInfo:
    """Writes `model.json` into a directory whose other files are complete.

    Args:
        directory: The directory, usually the one that `writing` gave. The tokenizer of a text
            model is put there if it is not there yet.
        info: The record; its `files` and `digest` are computed here.

    Returns:
        The record as written.
    """
    _tokenizer.copy_tokenizer(info, directory)
    names = sorted(
        p.relative_to(directory).as_posix()
        for p in directory.rglob("*")
        if p.is_file() and p.name != MODEL_JSON
    )
    files = {
        name: FileInfo(sha256=file_sha256(directory / name), size=(directory / name).stat().st_size)
        for name in names
    }
    info = info.model_copy(update={"files": files})
    info = info.model_copy(update={"digest": _digest(info)})
    if info.tokenizer is not None:
        name = info.tokenizer.file
        _tokenizer.keep(directory / name, files[name].sha256)
    (directory / MODEL_JSON).write_text(info.model_dump_json(indent=2) + "\n")
    return info


def _digest(info: ModelInfo) -> str:
    content = info.model_dump(mode="json", exclude={"digest", "parent", "recipe", "notes"})
    if info.tokenizer is None:
        del content["tokenizer"]  # keeps the digests of records that are older than this field
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
