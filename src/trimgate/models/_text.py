"""Text classifiers in the folders that `transformers` writes: what they are, and what they take."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from trimgate.data.dataset import Dataset
from trimgate.errors import InvalidInput, MissingExtra
from trimgate.models import _tokenizer
from trimgate.models._match import sample_labels, some
from trimgate.models.directory import FileInfo, ModelInfo, Task, TensorSpec, Tokenizer
from trimgate.models.source import ModelSource

Array = NDArray[Any]

_CONFIG, _TOKENIZER, _TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
_HEAD = "ForSequenceClassification"
_WRITER = "save_pretrained of model and tokenizer"
# Tokenizers write a huge number where they know of no limit.
_NO_LIMIT = 10**6
_USUAL = ("text", "sentence", "content", "message", "review", "comment")


def folder_files(folder: Path) -> list[Path]:
    """The files of a Hugging Face folder that make the model, sorted by name."""
    names = (_CONFIG, _TOKENIZER, _TOKENIZER_CONFIG)
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and (file.name in names or ".safetensors" in file.name)
    )


def load_folder(folder: Path, *, builder: str | None = None) -> Any:
    """Loads a fine-tuned text classifier.

    Args:
        folder: What `save_pretrained` wrote: `config.json`, weights as safetensors, and
            `tokenizer.json`.
        builder: What the user says of it; a folder needs none.

    Returns:
        A `trimgate.models.transformers.TextClassifier` in eval mode.

    Raises:
        InvalidInput: A file is missing or damaged, it is no classifier, or its weights are
            pickled.
        MissingExtra: What it needs is not installed.
    """
    if builder is not None:
        raise InvalidInput(
            "a folder says itself how its model is made",
            file=folder,
            key="model.builder",
            value=builder,
            mend="leave it out, or name the weights in the folder as model.path",
        )
    config = _read_config(folder)
    if not (folder / _TOKENIZER).is_file():
        raise InvalidInput(
            f"has no {_TOKENIZER}",
            file=folder,
            key="model.path",
            mend="write it beside the model with save_pretrained of a fast tokenizer",
        )
    try:
        from trimgate.models import transformers
    except ImportError as error:
        raise MissingExtra("torch", "text") from error
    return transformers.load_folder(folder, config)


def _read_config(folder: Path) -> dict[str, Any]:
    """The config of a folder that holds what is needed.

    Raises:
        InvalidInput: It does not.
    """

    def wrong(problem: str, mend: str) -> InvalidInput:
        return InvalidInput(problem, file=folder, key="model.path", mend=mend)

    names = {file.name for file in folder.iterdir()}
    if "adapter_config.json" in names:
        raise wrong("is an adapter, not a model", "merge it (merge_and_unload) and save the model")
    if _CONFIG not in names:
        raise wrong(
            f"is a folder without {_CONFIG}", f"name a file in it, or a folder made by {_WRITER}"
        )
    config = _read_json(folder / _CONFIG)
    architectures = [str(name) for name in config.get("architectures") or []]
    if not any(name.endswith(_HEAD) for name in architectures):
        raise wrong(
            f"{', '.join(architectures) or 'it'} has no classification head",
            f"fine-tune it on your labels first (AutoModel{_HEAD})",
        )
    if config.get("quantization_config"):
        raise wrong("is quantized already", "give the model that it was made from")
    if config.get("problem_type") == "multi_label_classification":
        raise wrong(
            "gives several labels to one row", "trimgate judges one label or one value per row"
        )
    if not any(name.endswith(".safetensors") for name in names):
        pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".h5")))
        raise wrong(
            f"{pickled[0]} may run code when it is loaded, so it is not loaded"
            if pickled
            else "has no weights (model.safetensors)",
            "write model.safetensors with save_pretrained(..., safe_serialization=True)",
        )
    return config


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_bytes())
    except ValueError as error:
        mend = f"write it again with {_WRITER}"
        raise InvalidInput(f"is not JSON ({error})", file=file, mend=mend) from error
    if not isinstance(values, dict):
        raise InvalidInput("is not a JSON object", file=file)
    return values


def describe_folder(model: Any, source: ModelSource, sample: Dataset) -> ModelInfo:
    """Finds out all that `model.json` says of a text classifier.

    Args:
        model: What `load_folder` gave.
        source: What the user says about it.
        sample: Rows that it shall work on.

    Raises:
        InvalidInput: The data has no text column or several, other labels than the model, or the
            tokenizer does not fit the model.
    """
    from trimgate.models import transformers

    if _tokenizer.MASK not in model.inputs:
        raise InvalidInput(
            f"{type(model.model).__name__} takes no attention_mask, so its scores depend on the "
            "rows beside a row",
            file=source.path,
        )
    config = model.model.config
    feature = _text_feature(sample, source)
    task = _task(config, source)
    length = _longest(model, source)
    content = _settled_tokenizer(source.path, config, length)
    tokenizer = Tokenizer(feature=feature, max_length=length)
    return ModelInfo(
        name=source.name or source.path.name,
        task=task,
        family="transformer",
        framework="torch",
        inputs=tuple(
            TensorSpec(name=name, dtype="int64", shape=(-1, -1), features=(feature,))
            for name in model.inputs
        ),
        score_kind="value" if task == "regression" else "logit",
        labels=() if task == "regression" else _labels(config, sample, source),
        features=(feature,),
        builder=transformers.BUILDER,
        builder_arguments={"config": transformers.dump_config(config)},
        tokenizer=tokenizer,
        files={
            tokenizer.file: FileInfo(sha256=_tokenizer.remember(content), size=len(content)),
        },
    )


def text_feature(folder: Path, columns: Mapping[str, Array]) -> str:
    """The column that a text model reads.

    Args:
        folder: Of the model.
        columns: All columns of the data, labels too; those that hold the names of the model's
            classes are not the text.

    Raises:
        InvalidInput: No column is text, or several may be it.
    """
    classes = set(map(str, (_read_config(folder).get("id2label") or {}).values()))
    found = [
        name
        for name in _text_columns(columns)
        if not {value for value in columns[name].tolist() if value is not None} <= classes
    ]
    named = [name for name in found if name.lower() in _USUAL]
    if len(found) == 1 or len(named) == 1:
        return named[0] if len(named) == 1 else found[0]
    raise InvalidInput(
        f"the model reads one text, and the data has {len(found)} columns of it"
        + (f": {some(found)}" if found else ""),
        key="data",
        mend="name it with --text" if found else "bring the texts that it reads, one per row",
    )


def _text_columns(columns: Mapping[str, Array]) -> list[str]:
    return [n for n, v in columns.items() if v.ndim == 1 and v.dtype == object]


def _text_feature(sample: Dataset, source: ModelSource) -> str:
    names = _text_columns(sample.features)
    if not names:
        raise InvalidInput(
            f"the model takes text, and the data has no column of it (it has "
            f"{some(sample.features)})",
            file=source.path,
            mend="bring the texts that it reads, one per row",
        )
    if len(sample.features) > 1:
        others = [n for n in sample.features if n != names[0]]
        raise InvalidInput(
            f"the model reads one text per row, and the data has the columns "
            f"{some(sample.features)}",
            file=source.path,
            mend=f"which of them is it? Name the others under data.drop, such as {some(others)}",
        )
    return names[0]


def _task(config: Any, source: ModelSource) -> Task:
    outputs, kind = int(config.num_labels), config.problem_type
    if outputs == 1 and (source.task == "binary" or kind == "single_label_classification"):
        task: Task = "binary"  # one logit, that of the second class
    elif outputs == 1:
        task = "regression"
    elif kind == "regression":
        raise InvalidInput("the model predicts several values at once", file=source.path)
    else:
        task = "binary" if outputs == 2 else "multiclass"
    if source.task not in (None, task):
        raise InvalidInput(
            f"the model is made for {task} (its config has {outputs} labels)",
            file=source.path,
            key="model.task",
            value=source.task,
        )
    return task


def _labels(config: Any, sample: Dataset, source: ModelSource) -> tuple[Any, ...]:
    """The data's labels in the order of the logits: the config's names, or their positions.

    A model that was fine-tuned on numbers has names such as LABEL_0; data with other labels than
    these names and 0, 1, ... does not tell which logit is which.
    """
    count = max(int(config.num_labels), 2)
    names = [str(config.id2label.get(i, f"LABEL_{i}")) for i in range(count)]
    given = sample_labels(sample)
    if set(given) <= set(names):
        return tuple(names)
    if all(name.isdecimal() for name in names) and set(given) <= set(map(int, names)):
        return tuple(map(int, names))
    if all(isinstance(label, bool) for label in given) and count == 2:
        return (False, True)
    if all(isinstance(label, int | float) and label in range(count) for label in given):
        return tuple(range(count))
    raise InvalidInput(
        f"the data has labels that the model does not know ({some(given)}); it knows "
        f"{some(names)} or 0 to {count - 1}",
        file=source.path,
        mend="give the label column that the model was trained on, or write its names into "
        "id2label of config.json, in the order of the model's outputs",
    )


def _longest(model: Any, source: ModelSource) -> int:
    """The most tokens that a row may have: the tokenizer's limit, within that of the model."""
    file = source.path / _TOKENIZER_CONFIG
    stated = _read_json(file).get("model_max_length") if file.is_file() else None
    if not isinstance(stated, int | float) or not 0 < stated < _NO_LIMIT:
        truncation = _read_json(source.path / _TOKENIZER).get("truncation") or {}
        stated = truncation.get("max_length")
    positions = getattr(model.model.config, "max_position_embeddings", None)
    found = [int(n) for n in (stated, positions) if isinstance(n, int | float) and n > 0]
    if not found:
        raise InvalidInput(
            "says nowhere how long a text may be",
            file=source.path,
            mend=f"set model_max_length in {_TOKENIZER_CONFIG}",
        )
    length = min(found)
    # RoBERTa and its like count positions from after the padding token's number.
    offset = int(model.model.config.pad_token_id or 0) + 1
    for tried in (length, length - offset):
        if tried > 0 and _takes(model, tried):
            return tried
    raise InvalidInput(f"the model fails on a row of {length} tokens", file=source.path)


def _takes(model: Any, length: int) -> bool:
    """Whether the model has places for so many tokens; those without a table of them have."""
    import torch

    embeddings = getattr(model.model.base_model, "embeddings", None)
    if embeddings is None:
        return True
    # a token that is not the padding token
    token = 1 if model.model.config.pad_token_id != 1 else 2
    row = torch.full((1, length), token, dtype=torch.int64)
    # some keep positions apart from a plain table of words
    plain = isinstance(embeddings, torch.nn.Embedding)
    try:
        with torch.inference_mode():
            if plain:
                model(row, torch.ones_like(row))
            else:
                embeddings(input_ids=row)
    except (IndexError, RuntimeError):
        return False
    return True


def _settled_tokenizer(folder: Path, config: Any, length: int) -> bytes:
    """The folder's tokenizer with the truncation and padding that the model needs written in."""
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtra("tokenizers", "text") from error
    file = folder / _TOKENIZER
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(file.read_bytes())
    # the library raises plain exceptions
    except Exception as error:
        raise InvalidInput(
            f"is not a tokenizer that can be read ({error})",
            file=file,
            mend=f"write it again with {_WRITER}",
        ) from error
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise InvalidInput(
            f"has {tokenizer.get_vocab_size()} tokens, and the model knows {config.vocab_size}",
            file=file,
            mend="give the tokenizer that the model was trained with",
        )
    number = config.pad_token_id
    token = None if number is None else tokenizer.id_to_token(int(number))
    if token is None:
        raise InvalidInput(
            "the config names no token that fills up short rows",
            file=folder / _CONFIG,
            key="pad_token_id",
            value=number,
            mend="set it to a token of the tokenizer",
        )
    tokenizer.enable_padding(pad_id=int(number), pad_token=token, direction="right")
    tokenizer.enable_truncation(length)
    content: bytes = tokenizer.to_str().encode()
    return content
