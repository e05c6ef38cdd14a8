"""Text classifiers of the library `transformers`.

This module imports torch and is imported only when such a model is built. Models are made from
their config by the classes that `transformers` itself has; code that lies beside a model is
never run, and nothing is downloaded.
"""

import inspect
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trimgate.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    import transformers

BUILDER = "trimgate.models.transformers:build"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_HEAD = "ForSequenceClassification"
# What says where a model came from, or would change how it is loaded, is no part of it.
_APART = ("_name_or_path", "transformers_version", "auto_map", "dtype", "torch_dtype")


class TextClassifier(torch.nn.Module):
    """A transformer with a classification head, called with tensors in a fixed order.

    Attributes:
        model: The `transformers` model.
        inputs: Names of the tensors that `forward` takes, in order.
    """

    def __init__(self, model: "transformers.PreTrainedModel") -> None:
        super().__init__()
        self.model = model
        self.inputs = input_names(model)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits of a batch of token rows.

        Args:
            input_ids: `(rows, length)` int64.
            attention_mask: `(rows, length)` int64: 1 for a token, 0 for what fills the row up.
            token_type_ids: `(rows, length)` int64, for models that have it among `inputs`.

        Returns:
            `(rows, classes)`, or `(rows, 1)` of a regression.
        """
        logits: torch.Tensor = self._call(input_ids, attention_mask, token_type_ids).logits
        return logits

    def detailed(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """As `forward`, with what happens inside.

        Returns:
            The logits; the hidden states `(rows, length, width)` before the first layer and after
            each; the attention weights `(rows, heads, length, length)` of each layer.
        """
        output = self._call(
            input_ids,
            attention_mask,
            token_type_ids,
            output_hidden_states=True,
            output_attentions=True,
        )
        return output.logits, tuple(output.hidden_states), tuple(output.attentions)

    def _call(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None,
        **options: bool,
    ) -> Any:
        extra = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **extra, **options
        )


def build(config: Mapping[str, Any]) -> TextClassifier:
    """Makes the module of a text model with random weights (drawn from torch's generator).

    The generator is left as it was, so that a second call makes an equal module.

    Args:
        config: The model's config as `transformers` writes it, with `model_type`.

    Raises:
        InvalidInput: `transformers` does not know the model type, or has no classifier of it.
        MissingExtra: The library `transformers` is not installed.
    """
    library = _library()
    parsed = parse_config(config)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = library.AutoModelForSequenceClassification.from_config(
                parsed, attn_implementation="eager", dtype=torch.float32, trust_remote_code=False
            )
        except ValueError as error:
            raise InvalidInput(
                f"transformers cannot make a classifier of it ({_first_line(error)})",
                key="model_type",
                value=config.get("model_type"),
            ) from error
    return TextClassifier(model).eval()


def load_folder(folder: Path, config: Mapping[str, Any]) -> TextClassifier:
    """Loads the weights of a Hugging Face folder.

    Args:
        folder: Has the weights as safetensors.
        config: The folder's config, read already.

    Raises:
        InvalidInput: The weights are damaged or incomplete, or of another model.
        MissingExtra: The library `transformers` is not installed.
    """
    library = _library()
    parsed = parse_config(config)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model, found = library.AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=parsed,
                attn_implementation="eager",
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # told below, in one line
            )
        # the library and safetensors fail in many ways on a damaged file
        except Exception as error:
            raise InvalidInput(
                f"the weights cannot be loaded ({_first_line(error)})",
                file=folder,
                mend="write the folder again with save_pretrained",
            ) from error
    wrong = [*map(str, found["missing_keys"]), *map(str, found["mismatched_keys"])]
    if wrong:
        raise InvalidInput(
            f"the weights lack {len(wrong)} tensors of the right shape, such as {sorted(wrong)[0]}",
            file=folder,
            mend=f"save a fine-tuned model: its architecture ends in {_HEAD}",
        )
    return TextClassifier(model).eval()


def parse_config(config: Mapping[str, Any]) -> "transformers.PretrainedConfig":
    """A config of the class that its `model_type` names.

    Raises:
        InvalidInput: `transformers` does not know the type, or refuses the config.
        MissingExtra: The library `transformers` is not installed.
    """
    library = _library()
    kind = config.get("model_type")
    kept = {name: value for name, value in config.items() if name not in _APART}
    try:
        parsed: transformers.PretrainedConfig = library.AutoConfig.for_model(
            kind, **{name: value for name, value in kept.items() if name != "model_type"}
        )
    # the classes check their fields in many ways
    except Exception as error:
        raise InvalidInput(
            f"transformers {library.__version__} does not take this config ({_first_line(error)})",
            key="model_type",
            value=kind,
        ) from error
    if hasattr(parsed, "reference_compile"):  # ModernBERT compiles itself where it can
        parsed.reference_compile = False
    return parsed


def dump_config(config: "transformers.PretrainedConfig") -> dict[str, Any]:
    """A config as the JSON values that `build` takes, every parameter spelled out."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {name: value for name, value in values.items() if name not in _APART}


def input_names(model: "transformers.PreTrainedModel") -> tuple[str, ...]:
    """The tensors that a model takes of what a tokenizer gives, in order."""
    taken = inspect.signature(model.forward).parameters
    names = [name for name in INPUTS if name in taken]
    # A table of one row (RoBERTa) or none (DeBERTa) cannot tell sentences apart.
    if getattr(model.config, "type_vocab_size", 2) < 2 and "token_type_ids" in names:
        names.remove("token_type_ids")
    return tuple(names)


def _library() -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "text") from error
    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return transformers


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
