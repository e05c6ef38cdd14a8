"""What was tried on which architecture: each technique on small models of many kinds.

    python benchmarks/architectures.py WORK [--family FAMILY] [--only MODEL] [--write]

The models are small and hardly trained (tests/techniques/zoo): whether a technique
works on an architecture, or says why not, shows on them as well as on large ones; how good and how
fast the result is does not. What stands in a cell is the share of the rows that get the label
which they got before, or the number of the reason why the technique was refused. Anything else
that is raised stops the command. Outcomes are kept in WORK. `--write` puts the tables into
docs/architectures.md, each in the place of the one before.
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _bench import hashed, log, logging_to_console, markdown

from trimgate import runtimes
from trimgate.data import Dataset
from trimgate.errors import TrimgateError
from trimgate.models import ModelSource, build_inputs, import_model
from trimgate.models.directory import ModelInfo, read
from trimgate.recipes import make_recipe
from trimgate.targets import PROFILES
from trimgate.techniques import Context, StepConfig, get, parse_step

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "architectures.md"
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "techniques")]

_HEADING = "## "
_INTRODUCTION = """# What was tried on which architecture

By `benchmarks/architectures.py`, on small models that were hardly trained
(`tests/techniques/zoo`). A number is the share of the validation rows that keep their label (of a
regression: their value, within a tenth of the deviation of all); one in brackets is the reason why
the technique is refused, below the table. Pruning, distillation and training with rounding had one
epoch, so that their numbers say that they work, not how well."""

Step = dict[str, Any]
_BRIEF = {"epochs": 1, "learning_rate": 1e-3}
_TARGET = PROFILES["cloud-cpu"].model_copy(update={"threads": 1, "batch_sizes": (1,)})


@dataclass(frozen=True)
class Brought:
    """A model as a user brings it, and rows.

    Attributes:
        source: The model.
        train: Rows.
        validation: Other rows.
        metric: The primary metric.
    """

    source: ModelSource
    train: Dataset
    validation: Dataset
    metric: str = "accuracy"


@dataclass(frozen=True)
class Family:
    """Models of one kind.

    Attributes:
        title: Above the table.
        models: By name: makes the model in a folder.
        steps: By the head of a column: what is done.
    """

    title: str
    models: Mapping[str, Callable[[Path], Brought]]
    steps: Mapping[str, Sequence[Step]]


def _step(technique: str, **parameters: Any) -> Step:
    return {"technique": technique, **parameters}


def _prune(method: str, amount: float = 0.5) -> Sequence[Step]:
    return [_step("prune", method=method, amount=amount, finetune=_BRIEF)]


def _distill(**parameters: Any) -> Sequence[Step]:
    return [_step("distill", epochs=1, **parameters)]


_EXPORT = _step("optimize_graph")
_STATIC = _step("quantize", scheme="static-int8", rows=32)
_OPENVINO = _step("runtime", engine="openvino")
_GRAPH: dict[str, Sequence[Step]] = {
    "fused (extended)": [_EXPORT, _step("optimize_graph", level="extended")],
    "fused (transformer)": [_EXPORT, _step("optimize_graph", level="transformer")],
    "static INT8": [_EXPORT, _STATIC],
    "static INT8, NNCF": [_EXPORT, {**_STATIC, "quantizer": "nncf"}],
    "dynamic INT8": [_EXPORT, _step("quantize", scheme="dynamic-int8", embeddings=True)],
    "INT8 weights": [_EXPORT, _step("quantize", scheme="weight-only", bits=8)],
    "INT4 weights": [_EXPORT, _step("quantize", scheme="weight-only", bits=4)],
    "FP16 weights": [_EXPORT, _step("quantize", scheme="fp16")],
    "OpenVINO": [_EXPORT, _OPENVINO],
    "OpenVINO, INT8": [_EXPORT, _STATIC, _OPENVINO],
}
_QAT = [_step("quantize", scheme="qat-int8", rows=32, finetune=_BRIEF)]


def _texts() -> Family:
    from zoo import encoders

    def maker(kind: str) -> Callable[[Path], Brought]:
        def make(folder: Path) -> Brought:
            from text_models import sentences, write_folder

            user = write_folder(folder / kind, encoders.config(kind), epochs=3)
            return Brought(ModelSource(path=user), sentences(160, 1), sentences(120, 2))

        return make

    steps = {
        "export": [_EXPORT],
        "heads": _prune("heads"),
        "FFN": _prune("ffn"),
        "layers": _prune("layers"),
        "weights": _prune("weights"),
        "distill: layers": _distill(student={"layers": 1}),
        "distill: width": _distill(student={"width": 0.5}),
        "distill: inside": _distill(student={"layers": 1}, loss={"hidden": 1.0, "attention": 1.0}),
        **_GRAPH,
    }
    return Family("Text encoders", {k: maker(k) for k in encoders.ENCODERS}, steps)


def _vision() -> Family:
    from zoo import nets

    def maker(net: Any) -> Callable[[Path], Brought]:
        def make(folder: Path) -> Brought:
            return _trained(net, folder)

        return make

    steps = {
        "export": [_EXPORT],
        "channels": _prune("channels"),
        "layers": _prune("layers", 0.4),
        "heads": _prune("heads"),
        "FFN": _prune("ffn"),
        "weights": _prune("weights"),
        **{name: what for name, what in _GRAPH.items() if name != "fused (transformer)"},
        "QAT": _QAT,
    }
    models = {net.__name__: maker(net) for net in nets.NETS}
    return Family("Images in torch", models, steps)


def _trained(net: Callable[[], Any], folder: Path) -> Brought:
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = net().train()
    train, validation = _spots(400, 1), _spots(200, 2)
    pixels = torch.from_numpy(train.features["image"])
    labels = torch.from_numpy(train.labels)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    for _ in range(6):
        for rows in torch.randperm(len(labels)).split(32):
            loss = torch.nn.functional.cross_entropy(module(pixels[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "weights.safetensors"
    save_file(module.state_dict(), file)
    builder = f"{net.__module__}:{net.__name__}"
    return Brought(ModelSource(path=file, builder=builder), train, validation)


def _spots(rows: int, seed: int) -> Dataset:
    """Noise with a bright spot in one quarter, which is the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rows)
    pixels = rng.normal(0, 1, (rows, 3, 32, 32)).astype(np.float32)
    for row, label in enumerate(labels):
        y, x = rng.integers(2, 8, 2) + np.array([16 * (label // 2), 16 * (label % 2)])
        pixels[row, :, y : y + 7, x : x + 7] += 2.5
    return Dataset({"image": pixels}, labels)


def _graphs() -> Family:
    from zoo import graphs

    def maker(name: str) -> Callable[[Path], Brought]:
        def make(folder: Path) -> Brought:
            import onnx

            make_graph, rows = graphs.GRAPHS[name]
            folder.mkdir(parents=True, exist_ok=True)
            onnx.save(make_graph(), folder / "model.onnx")
            given = rows()
            half = len(given) // 2
            halves = given.take(slice(0, half)), given.take(slice(half, None))
            return Brought(ModelSource(path=folder / "model.onnx"), *halves)

        return make

    steps = {"optimized": [_EXPORT], **_GRAPH}
    return Family("Foreign ONNX graphs", {name: maker(name) for name in graphs.GRAPHS}, steps)


def _tables() -> Family:
    from zoo import tables

    def pipeline(name: str, kind: str) -> Callable[[Path], Brought]:
        def make(folder: Path) -> Brought:
            import skops.io

            train, validation = tables.rows(400, 1, kind), tables.rows(200, 2, kind)
            folder.mkdir(parents=True, exist_ok=True)
            skops.io.dump(tables.fitted(name, kind, train), folder / "model.skops")
            metric = "r2" if kind == "regression" else "accuracy"
            return Brought(ModelSource(path=folder / "model.skops"), train, validation, metric)

        return make

    def booster(name: str) -> Callable[[Path], Brought]:
        def make(folder: Path) -> Brought:
            train, validation = tables.numbers(400, 1), tables.numbers(200, 2)
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / ("model.ubj" if name.startswith("XGBoost") else "model.txt")
            tables.BOOSTERS[name](train).save_model(str(file))
            return Brought(ModelSource(path=file), train, validation)

        return make

    models = {
        (name if kind == "binary" else f"{name}, {kind}"): pipeline(name, kind)
        for kind in ("binary", "multiclass", "regression")
        for name in tables.names(kind)
    }
    models |= {name: booster(name) for name in tables.BOOSTERS}
    steps = {
        "export": [_EXPORT],
        "trees": [_step("prune", method="trees", amount=0.5)],
        "depth": [_step("prune", method="depth", depth=2)],
        "cost complexity": [_step("prune", method="cost_complexity", alpha=0.002)],
        "distill": [_step("distill")],
        "select features": [_step("select_features", method="permutation", keep=2)],
        "reduce dimensions": [_step("reduce_dimensions", components=2)],
        "tune": [_step("tune", trials=2)],
        "daal4py": [_step("runtime", engine="daal4py")],
        "OpenVINO": [_EXPORT, _OPENVINO],
        "dynamic INT8": [_EXPORT, _step("quantize", scheme="dynamic-int8")],
    }
    return Family("Tables", models, steps)


FAMILIES: dict[str, Callable[[], Family]] = {
    "text": _texts, "vision": _vision, "graphs": _graphs, "tables": _tables
}  # fmt: skip


def outcomes(brought: Brought, steps: Mapping[str, Sequence[Step]], folder: Path) -> Iterator[str]:
    """What comes of each of the steps on a model: `=` and a share of the rows, or a reason."""
    base = folder / "model"
    shutil.rmtree(base, ignore_errors=True)
    try:
        info = import_model(brought.source, brought.train, base)
    except TrimgateError as error:
        yield from [f"not imported: {_brief(error, folder)}"] * len(steps)
        return
    context = Context(brought.train, brought.validation, brought.metric, _TARGET, seed=0)
    before = _labels(base, brought.validation)
    made: dict[str, Path] = {"": base}
    for what in steps.values():
        try:
            path, key = base, ""
            for step in _recipe(what, info):
                key = hashed([key, step.model_dump(mode="json")])
                if key not in made:
                    technique = get(step.technique)
                    if reason := technique.refusal(read(path), step, _TARGET):
                        raise TrimgateError(reason)
                    out = folder / "steps" / key
                    shutil.rmtree(out, ignore_errors=True)
                    technique.apply(path, out, step, context)
                    made[key] = out
                path = made[key]
            same = _same(before, _labels(path, brought.validation))
            yield f"={same:.2f}"
        except TrimgateError as error:
            yield _brief(error, folder)


def _recipe(what: Sequence[Step], info: ModelInfo) -> Sequence[StepConfig]:
    """The steps; a model that can still be trained after them is judged in that form."""
    parsed = [parse_step(dict(step)) for step in what]
    if all(get(step.technique).form_given(step) == "trainable" for step in parsed):
        return parsed
    return make_recipe([dict(step) for step in what], info, _TARGET).steps


def _labels(directory: Path, rows: Dataset) -> Any:
    session = runtimes.load(directory, threads=1)
    try:
        scores = session.predict(build_inputs(session.info, rows.features))
    finally:
        session.close()
    return scores.argmax(axis=1) if scores.ndim == 2 else scores


def _same(before: Any, after: Any) -> float:
    """The share of equal labels; of values, of those within a tenth of their deviation."""
    if before.dtype.kind == "f" and after.dtype.kind == "f":
        return float((np.abs(before - after) <= 0.1 * before.std()).mean())
    return float((before == after).mean())


def _brief(error: TrimgateError, folder: Path) -> str:
    """The message without the file's name, which differs from machine to machine."""
    words = " ".join(str(error).split())
    return re.sub(rf"{re.escape(str(folder))}\S*:? ", "", words)


def section(family: Family, found: Mapping[str, Sequence[str]]) -> str:
    """The Markdown of a family: the table, and the reasons that it points to."""
    reasons = list(dict.fromkeys(c for cells in found.values() for c in cells if c[0] != "="))
    lines = [
        [name, *(c[1:] if c[0] == "=" else f"({reasons.index(c) + 1})" for c in cells)]
        for name, cells in found.items()
    ]
    parts = [f"{_HEADING}{family.title}", markdown(("", *family.steps), lines)]
    if reasons:
        listed = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
        parts += ["Why not:", "\n".join(listed)]
    return "\n\n".join(parts)


def write(sections: Mapping[str, str]) -> None:
    """Puts sections, by their titles, in the place of those in the document."""
    there = DOCUMENT.read_text() if DOCUMENT.is_file() else ""
    old = {part.partition("\n")[0]: part for part in there.split(f"\n{_HEADING}")[1:]}
    new = {title: text.removeprefix(_HEADING) for title, text in sections.items()}
    kept = {title: part.strip("\n") for title, part in old.items()} | new
    order = [title for make in FAMILIES.values() if (title := make().title) in kept]
    parts = [_INTRODUCTION, *(f"{_HEADING}{kept[title]}" for title in order)]
    DOCUMENT.write_text("\n\n".join(parts) + "\n")


def main() -> int:
    """Tries everything and prints the tables."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("work", type=Path, help="a folder that keeps everything")
    parser.add_argument("--family", action="append", choices=sorted(FAMILIES))
    parser.add_argument("--only", action="append", help="models of this name")
    parser.add_argument("--write", action="store_true", help=f"into {DOCUMENT.name}")
    given = parser.parse_args()
    if given.write and given.only:
        parser.error("a part of a table is not written")
    logging_to_console()
    sections = {}
    for key, make in FAMILIES.items():
        if given.family and key not in given.family:
            continue
        family = make()
        found: dict[str, Sequence[str]] = {}
        for name, maker in family.models.items():
            if given.only and name not in given.only:
                continue
            folder = given.work / key / hashed(name)
            kept = folder / "outcomes.json"
            if kept.is_file():
                found[name] = json.loads(kept.read_text())
                continue
            log.info("%s: %s", key, name)
            shutil.rmtree(folder, ignore_errors=True)
            found[name] = list(outcomes(maker(folder / "brought"), family.steps, folder))
            kept.write_text(json.dumps(found[name], indent=1, ensure_ascii=False) + "\n")
        sections[family.title] = section(family, found)
        print(f"{sections[family.title]}\n", flush=True)
    if given.write:
        write(sections)
        print(f"written to {DOCUMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
