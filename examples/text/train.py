"""Trains the model that a data scientist would bring: MiniLM fine-tuned on movie sentences.

One epoch over the training sentences, a few minutes on two cores. The model learns from
`train.parquet` alone; trimgate ranks candidates on `validation.parquet` and judges the winner on
`test.parquet`.
"""

import os
import sys
import time
from pathlib import Path

import pyarrow.parquet
import torch
from fetch import ENCODER, fetch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

MAX_LENGTH = 64
BATCH = 32
LEARNING_RATE = 1e-4


def train(folder: Path) -> Path:
    """Writes the Hugging Face folder `minilm` into the folder that has the sentences."""
    target = folder / "minilm"
    if target.is_dir():
        return target
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    encoder = fetch(ENCODER)
    tokenizer = AutoTokenizer.from_pretrained(encoder, model_max_length=MAX_LENGTH)
    names = {0: "negative", 1: "positive"}
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, id2label=names, label2id={name: i for i, name in names.items()}
    )
    texts, labels = read(folder / "train.parquet")
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    batches = torch.randperm(len(texts)).split(BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=len(batches), pct_start=0.1, anneal_strategy="linear"
    )
    model.train()
    began, total = time.monotonic(), 0.0
    for number, rows in enumerate(batches, 1):
        inputs = tokenizer(
            [texts[row] for row in rows.tolist()],
            padding=True, truncation=True, return_tensors="pt",
        )  # fmt: skip
        loss = model(**inputs, labels=labels[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()
        if number % 20 == 0 or number == len(batches):
            seconds = time.monotonic() - began
            print(
                f"batch {number} of {len(batches)}: mean loss {total / number:.3f}, "
                f"{seconds:.0f} s, {seconds / number * (len(batches) - number):.0f} s to go",
                flush=True,
            )
    print(f"accuracy on the validation sentences {accuracy(model.eval(), tokenizer, folder):.3f}")
    partial = folder / f".minilm.{os.getpid()}.partial"
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(target)
    return target


def read(file: Path) -> tuple[list[str], torch.Tensor]:
    """Sentences and labels of one split."""
    table = pyarrow.parquet.read_table(file)
    return table["text"].to_pylist(), torch.tensor(table["positive"].to_pylist())


def accuracy(model: torch.nn.Module, tokenizer: object, folder: Path) -> float:
    """Share of the validation sentences that get their label."""
    texts, labels = read(folder / "validation.parquet")
    right = 0
    with torch.inference_mode():
        for rows in torch.arange(len(texts)).split(BATCH):
            inputs = tokenizer(
                [texts[row] for row in rows.tolist()],
                padding=True, truncation=True, return_tensors="pt",
            )  # fmt: skip
            right += int((model(**inputs).logits.argmax(dim=1) == labels[rows]).sum())
    return right / len(texts)


if __name__ == "__main__":
    print(train(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
