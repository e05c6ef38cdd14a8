"""Tiny text classifiers in the folders that transformers writes, and sentences for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from trimgate.data.dataset import Dataset

GOOD = ("lovely", "bright", "clever", "warm", "great", "fresh", "honest", "moving")
BAD = ("dull", "slow", "stale", "empty", "weak", "loud", "tired", "false")
PLAIN = ("the", "a", "this", "film", "story", "plot", "cast", "song", "scene", "and", "of", "with")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY = {word: i for i, word in enumerate((*SPECIAL, *GOOD, *BAD, *PLAIN))}
BERT: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "num_labels": 2,
}


def sentences(rows: int, seed: int = 0, feature: str = "text") -> Dataset:
    """Sentences of 2 to 24 words; labels say whether more are good than bad, 95 % of them right."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(rows):
        good = rng.random() < 0.5
        kinds = rng.random(rng.integers(2, 25))
        words = [
            rng.choice(GOOD if (kind < 0.3) == good else BAD) if kind < 0.4 else rng.choice(PLAIN)
            for kind in kinds
        ]
        counts = [sum(word in bag for word in words) for bag in (GOOD, BAD)]
        if counts[0] == counts[1]:
            words.append(str(rng.choice(GOOD if good else BAD)))
            counts[0 if good else 1] += 1
        texts.append(" ".join(map(str, words)))
        labels.append(int((counts[0] > counts[1]) != (rng.random() < 0.05)))
    return Dataset({feature: np.array(texts, dtype=object)}, np.array(labels, dtype=np.int64))


def write_folder(
    folder: Path, config: dict[str, Any] | None = None, *, epochs: int = 0, seed: int = 0
) -> Path:
    """Writes a classifier with random weights, or trained for a moment, and its tokenizer."""
    import torch

    from trimgate.models import transformers

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    module = transformers.build(config or BERT)
    write_tokenizer(folder)
    if epochs:
        _train(module, folder, epochs, seed)
    module.model.save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, max_length: int = 32) -> None:
    """A tokenizer of whole words, and its config."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": max_length}))


def _train(module: Any, folder: Path, epochs: int, seed: int) -> None:
    import torch
    from tokenizers import Tokenizer

    data = sentences(800, seed + 1000)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(data.features["text"].tolist())
    ids = torch.tensor([e.ids for e in encodings])
    mask = torch.tensor([e.attention_mask for e in encodings])
    labels = torch.from_numpy(data.labels)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(32):
            loss = torch.nn.functional.cross_entropy(module(ids[rows], mask[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    module.eval()
