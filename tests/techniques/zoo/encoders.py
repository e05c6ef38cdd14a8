"""Configs of small text classifiers of `transformers`, one of each well-known kind."""

from typing import Any

from text_models import VOCABULARY

_SHAPE: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "num_labels": 2,
}
_ROBERTA: dict[str, Any] = {**_SHAPE, "type_vocab_size": 1}
_DEBERTA: dict[str, Any] = {
    **_SHAPE,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "max_relative_positions": -1,
    "pooler_hidden_size": 64,
}

# By model type.
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": _SHAPE,
    "distilbert": {
        "vocab_size": len(VOCABULARY), "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128,
        "max_position_embeddings": 40, "pad_token_id": 0, "num_labels": 2,
    },
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "mpnet": _SHAPE,
    "electra": {**_SHAPE, "embedding_size": 32},
    "albert": {**_SHAPE, "embedding_size": 32},
    "deberta": _DEBERTA,
    "deberta-v2": {
        **_DEBERTA, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True
    },
    "roformer": {**_SHAPE, "embedding_size": 64},
    "modernbert": {
        **_SHAPE, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3,
        "local_attention": 8, "global_attn_every_n_layers": 2,
    },
    "squeezebert": {**_SHAPE, "embedding_size": 64},
    "xlnet": {
        "vocab_size": len(VOCABULARY), "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128,
        "pad_token_id": 0, "num_labels": 2,
    },
}  # fmt: skip


def config(kind: str) -> dict[str, Any]:
    """What stands in `config.json`."""
    return {
        "model_type": kind,
        "architectures": [f"{kind}ForSequenceClassification"],
        **ENCODERS[kind],
    }
