"""How much faster and smaller the recipes make three known shapes, and what that costs.

    python benchmarks/shapes.py WORK [--only cnn|text|trees] [--tiny]

- cnn: a ResNet-50 trained on Fashion-MNIST as it is (28 x 28 pixels; accuracy), and one with
  random weights on images of 224 x 224 (speed and size alone); half of the channels and INT8, on
  ONNX Runtime and OpenVINO, against FP32 on ONNX Runtime.
- text: an encoder of the size of BERT-base with random weights (speed and size alone), and MiniLM
  trained on sentences (accuracy too), with students of fewer layers or half the width.
- trees: boosted trees and a forest of 300 trees on 30 features, a row and 1,000 rows a call,
  against the library that trained them; the predictions must be the same.

All through trimgate's techniques, judged and timed by its harness, in one run on one machine.
The ratios in the column "expected" are for a CPU with AMX. What is made and measured is kept in
WORK; `--prepare` makes everything and times nothing, so that a machine need be quiet only while
it is timed.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import _bench
import _models
from _bench import EXPORT, Model, RefusedError, log
from _steps import DYNAMIC, FUSED, OPENVINO, STATIC, STATIC_WORDS, Step, channels, student

from trimgate.errors import TrimgateError
from trimgate.models import ModelSource

# It takes half a second for each row, and what it says of them means nothing.
_BERT_ROWS, _BERT_TOKENS = 64, 128


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes:
        model: One of `_models.MODELS`.
        steps: Of the recipe.
        expected: What is claimed of it, for people.
        accuracy: Whether the model was trained, so that its quality means something.
        native: Compared with the model as it was trained rather than its ONNX form.
    """

    model: str
    steps: tuple[Step, ...]
    expected: str = ""
    accuracy: bool = True
    native: bool = False


OPENVINO_BF16: Step = {**OPENVINO, "precision": "bf16"}
COMPILED: Step = {"technique": "runtime", "engine": "daal4py"}
AUTO: Step = {"technique": "runtime", "engine": "auto"}


def lines(epochs: int, lessons: int, unlabeled: Path) -> dict[str, tuple[Line, ...]]:
    """The rows of each table.

    Args:
        epochs: Of fine-tuning, at most.
        lessons: Epochs of distillation.
        unlabeled: Sentences that students learn their teacher's answers on besides.
    """
    half, most = channels(0.5, epochs), channels(0.7, epochs)
    untrained = {"epochs": 0}
    shallow: Step = {
        "technique": "prune", "method": "layers", "amount": 0.5, "importance": "random",
        "finetune": untrained,
    }  # fmt: skip
    cut: Step = {**half, "importance": "random", "finetune": untrained}
    narrow: Step = {
        "technique": "prune", "method": "heads_and_ffn", "amount": 0.5, "importance": "magnitude",
        "finetune": untrained,
    }  # fmt: skip
    cnn, large = "fashion-resnet50", "resnet50-224"
    bert, minilm = "text-bert", "text-minilm"

    shorter = student(lessons, unlabeled, layers=3)
    narrower = student(lessons, unlabeled, width=0.5)
    return {
        "cnn": (
            Line(cnn, (STATIC,)),
            Line(cnn, (STATIC, OPENVINO)),
            Line(cnn, (half,)),
            Line(cnn, (half, STATIC), "8× faster, 14× smaller, at most 1 point lost"),
            Line(cnn, (half, STATIC, OPENVINO), "15× faster"),
            Line(cnn, (most, STATIC), "8× faster, 14× smaller, at most 1 point lost"),
            Line(cnn, (most, STATIC, OPENVINO), "15× faster"),
            Line(large, (STATIC,), accuracy=False),
            Line(large, (STATIC, OPENVINO), accuracy=False),
            Line(large, (cut, STATIC), "8× faster, 14× smaller", accuracy=False),
            Line(large, (cut, STATIC, OPENVINO), "15× faster", accuracy=False),
        ),
        "text": (
            Line(bert, (FUSED, DYNAMIC), "3.3× faster", accuracy=False),
            Line(bert, (*EXPORT, OPENVINO), accuracy=False),
            Line(bert, (*EXPORT, OPENVINO_BF16), "4.5× faster", accuracy=False),
            Line(bert, (STATIC_WORDS, OPENVINO), accuracy=False),
            Line(bert, (shallow, narrow, FUSED, DYNAMIC), "10× faster", accuracy=False),
            Line(bert, (shallow, narrow, *EXPORT, OPENVINO_BF16), "17× faster", accuracy=False),
            Line(minilm, (FUSED, DYNAMIC)),
            Line(minilm, (*EXPORT, OPENVINO_BF16)),
            Line(minilm, (shorter, FUSED, DYNAMIC), "at most 1 point lost"),
            Line(minilm, (narrower, FUSED, DYNAMIC), "10× faster"),
            Line(minilm, (narrower, *EXPORT, OPENVINO_BF16), "17× faster"),
        ),
        "trees": tuple(
            Line(f"fraud-{name}", steps, claim, native=True)
            for name, claim in (
                ("gradient", "20× at 1 row"),
                ("histogram", "150× at 1 row"),
                ("forest", "450× at 1 row"),
                ("xgboost", ""),
                ("lightgbm", ""),
            )
            for steps, claim in (
                (EXPORT, claim),
                ((COMPILED,), ""),
                ((AUTO,), "; ".join(filter(None, (claim, "never below 1× at 1000 rows")))),
            )
        ),
    }


@_models.maker("resnet50-224")
def _resnet50_224(folder: Path, scale: _models.Scale) -> _models.Brought:
    """ResNet-50 for images of 224 x 224 grey pixels, random weights."""
    import nets
    import numpy as np
    import torch
    from safetensors.torch import save_file

    small = _models.MODELS["fashion-resnet50"](folder, scale)
    folder = folder / "resnet50-224"
    files = [folder / file.name for file in small.three]
    weights = folder / "resnet50.safetensors"
    arguments = {"width": scale.width, "stride": 2, "pool": True}
    if not weights.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for file, target in zip(small.three, files, strict=True):
            with np.load(file) as rows:
                images = rows["image"][:200].repeat(8, axis=2).repeat(8, axis=3)
                np.savez_compressed(target, image=images, label=rows["label"][:200])
        torch.manual_seed(_bench.SEED)
        save_file(nets.resnet50(**arguments).state_dict(), weights)
    source = small.source.model_copy(
        update={"path": weights, "name": "resnet50-224", "builder_arguments": arguments}
    )
    return _models.Brought(source, (files[0], files[1], files[2]), "label", "accuracy", (1,))


@_models.maker("text-bert")
def _bert(folder: Path, scale: _models.Scale) -> _models.Brought:
    """12 layers, 768 wide, random weights; rows are sentences put together to 128 tokens."""
    text, folder = folder / "text", folder / "bert"
    given = tuple(text / f"{split}.parquet" for split in ("train", "validation", "test"))
    if not all(file.is_file() for file in given):
        _models.run_example("text/fetch.py", text)
    if not folder.is_dir():
        _write_bert(folder, scale.layers)
    files = [_long_rows(file, folder / file.name) for file in given]
    source = ModelSource(path=folder, name="text-bert")
    return _models.Brought(source, (files[0], files[1], files[2]), "positive", "accuracy", (1,))


def _write_bert(target: Path, layers: int) -> None:
    """A classifier with the tokenizer of MiniLM, as `transformers` writes it."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    log.info("text-bert: making %d layers with random weights", layers)
    script = _models.EXAMPLES / "text" / "fetch.py"
    spec = importlib.util.spec_from_file_location("text_fetch", script)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(script)
    fetch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fetch)
    encoder = fetch.fetch(fetch.ENCODER)
    tokenizer = AutoTokenizer.from_pretrained(encoder, model_max_length=_BERT_TOKENS)
    torch.manual_seed(_bench.SEED)
    config = BertConfig(
        vocab_size=len(tokenizer), num_hidden_layers=layers, num_labels=2,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    partial = target.with_name("bert-partial")
    BertForSequenceClassification(config).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.replace(target)


def _long_rows(file: Path, target: Path) -> Path:
    """Each row's text put together with the eleven after it, which is cut at 128 tokens."""
    import pandas as pd

    if not target.is_file():
        rows = pd.read_parquet(file)
        texts = [" ".join(rows["text"].iloc[i : i + 12]) for i in range(_BERT_ROWS)]
        rows.iloc[:_BERT_ROWS].assign(text=texts).to_parquet(target, index=False)
    return target


def run_line(line: Line, model: Model, seconds: float | None) -> tuple[str, ...]:
    """Measures one row of a table, or takes what is kept; times nothing if `seconds` is None."""
    from trimgate.techniques import parse_step

    title = " → ".join(parse_step(step).title() for step in line.steps)
    try:
        before = model.native if line.native else _bench.apply_steps(model, EXPORT)
        after = _bench.apply_steps(model, line.steps)
    except RefusedError as error:
        return (line.model, title, f"does not apply: {error}", "", "", "", line.expected)
    log.info("%s: measuring %s", model.name, title)
    try:
        quality = _quality(line, model, before, after)
        if seconds is None:
            return (line.model, title, quality, "", "", "", line.expected)
        benchmark = _bench.measure_once(model, before, after, seconds)
    except TrimgateError as error:
        return (line.model, title, f"fails: {error}", "", "", "", line.expected)
    speeds = [f"{_bench.ratio(b.wall, b.state)} at {b.batch_size}" for b in benchmark.batches]
    size = f"{benchmark.baseline.size / benchmark.candidate.size:.3g}× smaller"
    memory = f"{benchmark.baseline.peak_rss / benchmark.candidate.peak_rss:.3g}× less"
    return (line.model, title, quality, "; ".join(speeds), size, memory, line.expected)


def _quality(line: Line, model: Model, before: Path, after: Path) -> str:
    if not line.accuracy:
        return "random weights"
    record = _bench.judge(model, before, after)
    change = record.differences[model.metric]
    shown = f"{model.metric} {_bench.difference(change)} points"
    if line.native and record.parity is not None:
        shown += (
            f"; same label in {record.parity.agreement:.4%} of {record.parity.rows} rows, "
            f"scores differ by {record.parity.max_difference:.1g} at most"
        )
    return shown


def show(
    stage: str, rows: Sequence[Line], scale: _models.Scale, given: argparse.Namespace
) -> None:
    """Measures a stage and prints its table."""
    measured = []
    for line in rows:
        if given.model and line.model not in given.model:
            continue
        model = _models.make(line.model, given.work, scale)
        measured.append(run_line(line, model, None if given.prepare else given.seconds))
    header = ("Model", "Steps", "Quality on test rows", "Speed", "Size", "Memory", "Expected")
    print(f"\n## {stage}\n\n{_bench.machine()}\n")
    print(_bench.markdown(header, measured), flush=True)


def main() -> int:
    """Measures the stages asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("work", type=Path, help="a folder that keeps everything")
    parser.add_argument("--only", action="append", choices=("cnn", "text", "trees"))
    parser.add_argument("--model", action="append", help="only rows of this model")
    parser.add_argument("--tiny", action="store_true", help="small models, few rows: a rehearsal")
    parser.add_argument("--epochs", type=int, default=4, help="of fine-tuning; %(default)s")
    parser.add_argument("--lessons", type=int, default=2, help="of distillation; %(default)s")
    parser.add_argument("--prepare", action="store_true", help="make all, time nothing")
    parser.add_argument("--seconds", type=float, default=12, help="per timing; %(default)s")
    given = parser.parse_args()
    _bench.logging_to_console()
    epochs, lessons = (1, 1) if given.tiny else (given.epochs, given.lessons)
    scale = _models.SCALES["tiny" if given.tiny else "full"]
    unlabeled = _models.unlabeled_sentences(given.work, scale)
    for stage, rows in lines(epochs, lessons, unlabeled).items():
        if not given.only or stage in given.only:
            show(stage, rows, scale, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
