"""What a torch module is: family, and kind of its scores."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimgate.errors import InvalidInput
from trimgate.models.directory import Family, ModelInfo, ScoreKind
from trimgate.models.source import ModelSource

Array = NDArray[Any]

_ENOUGH_ROWS = 20
# How layers that make queries are called: q, query, q_proj, qkv, to_q, Wqkv, in_proj_weight, ...
_QUERY = re.compile(r"^(q|query|qkv)(_|$)|^(to|linear|w)_?q|in_proj|c_attn", re.IGNORECASE)


def refine(model: Any, info: ModelInfo, raw: Array, source: ModelSource) -> ModelInfo:
    """Fills in what only the module and its output tell.

    Args:
        model: The `torch.nn.Module`.
        info: The record so far.
        raw: Its output on the sample.
        source: What the user says.

    Raises:
        InvalidInput: The output is no `(rows, columns)`.
    """
    if raw.ndim > 2 or (raw.ndim == 2 and raw.shape[1] == 0):
        raise InvalidInput(
            f"the model gives a tensor of shape {raw.shape[1:]} a row, and not scores",
            file=source.path,
            key="model.builder",
            value=source.builder,
        )
    kind = info.score_kind
    if info.task != "regression" and source.scores is None:
        kind = guess_kind(raw)
    return info.model_copy(update={"family": _family(model), "score_kind": kind})


def guess_kind(raw: Array) -> ScoreKind:
    """Probabilities if every row looks like one on enough rows, else logits."""
    scores = raw.reshape(len(raw), -1)
    if len(scores) < _ENOUGH_ROWS or scores.min() < 0 or scores.max() > 1:
        return "logit"
    sums_to_one = scores.shape[1] == 1 or np.allclose(scores.sum(axis=1), 1, atol=1e-4)
    return "probability" if sums_to_one else "logit"


def _family(model: Any) -> Family:
    parts = list(model.modules())
    kinds = {type(module).__name__ for module in parts}
    attentions = [m for m in parts if re.search("Attention|Transformer", type(m).__name__)]
    if kinds & {"Conv1d", "Conv2d", "Conv3d"}:
        # convolutional networks call what weighs their channels or places attention too
        names = {n.rpartition(".")[2] for m in attentions for n, _ in m.named_parameters()}
        names |= {part for m in attentions for n, _ in m.named_modules() for part in n.split(".")}
        return "transformer" if any(map(_QUERY.search, names)) else "cnn"
    if attentions:
        return "transformer"
    layers = [m for m in model.modules() if type(m).__name__ == "Linear"]
    if not layers:
        return "other"
    return "linear" if len(layers) == 1 else "mlp"
