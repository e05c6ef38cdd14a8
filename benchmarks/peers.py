"""trimgate's recipes beside Olive, NNCF and Neural Compressor: one model, one run, one judge.

    python benchmarks/peers.py WORK [--model NAME] [--only PEER] [--tiny]

Each peer gets an environment of its own under WORK, the same FP32 ONNX file (Neural Compressor 3,
which reads torch alone, the same weights), the same calibration rows and the same validation rows
to search on. What it makes is judged on the test rows and timed beside that FP32 file by
trimgate's harness, as trimgate's own recipes are. trimgate's best is chosen on the other half of
the validation rows: the fastest that loses less than the tolerance. A peer that cannot be
installed, or fails, stands in the table with the reason.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _bench
import _models
import numpy as np
from _bench import EXPORT, SEED, Model, RefusedError, log
from _steps import DYNAMIC, FUSED, OPENVINO, STATIC, Step, channels, student

import trimgate
from trimgate.data import Dataset, halves
from trimgate.errors import TrimgateError
from trimgate.judge.benchmark import BenchmarkSettings, Samples, summarise
from trimgate.judge.records import BatchBenchmark
from trimgate.models import build_inputs
from trimgate.models.directory import ONNX_FILE, RuntimeChoice, read, seal, writing
from trimgate.techniques import parse_step

HERE = Path(__file__).resolve().parent
CALIBRATION_ROWS = 256
HELD_ROWS = 1000
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Peer:
    """Another toolkit.

    Attributes:
        script: In `_peers`; runs in the peer's own environment.
        packages: What is installed there, in this order; each entry is one call of pip.
        engines: What its model is timed on.
    """

    script: str
    packages: tuple[tuple[str, ...], ...]
    engines: tuple[str, ...] = ("onnxruntime",)


PEERS = {
    # It imports requests without asking for it, and fails with pydantic 2.14.
    "olive": Peer(
        "olive_search.py",
        ((TORCH,), ("olive-ai==0.13.0", "onnxruntime", "requests", "pydantic<2.14")),
    ),
    "nncf": Peer(
        "nncf_quantize.py",
        (("nncf==3.4.0", "onnx", "onnxruntime", "openvino"),),
        ("onnxruntime", "openvino"),
    ),
    "inc-2.6": Peer(
        "inc_onnx.py",
        (("neural-compressor==2.6", "onnx<1.17", "onnxruntime<1.20", "numpy<2", "six"),),
    ),
    "inc-3.10": Peer(
        "inc_torch.py",
        ((TORCH,), (
            "neural-compressor-pt==3.10", "onnxruntime", "pydantic", "safetensors",
            "transformers<6",
        )),
        ("torch",),
    ),
}


@dataclass
class Entry:
    """One row of the table.

    Attributes:
        who: trimgate or the peer.
        what: Recipe, or the engine.
        quality: Difference on the test rows, with its interval.
        speeds: Ratios, with their intervals.
        size: Ratio.
        claims: What the peer itself says.
        score: Speed at the first batch size, for the choice of the best; None if not allowed.
    """

    who: str
    what: str
    quality: str = ""
    speeds: list[str] = field(default_factory=list)
    size: str = ""
    claims: str = ""
    score: float | None = None

    def row(self) -> tuple[str, ...]:
        """Cells of the table."""
        return (self.who, self.what, self.quality, "; ".join(self.speeds), self.size, self.claims)


def recipes(model: Model, epochs: int, unlabeled: Path) -> list[list[Step]]:
    """Steps of trimgate that are tried on a model.

    Args:
        model: The model.
        epochs: Of fine-tuning or distillation.
        unlabeled: Sentences that students of an encoder learn their teacher's answers on besides.
    """
    if read(model.native).tokenizer is not None:
        narrower = student(epochs, unlabeled, width=0.5)
        return [
            [FUSED], [DYNAMIC], [FUSED, DYNAMIC], [*EXPORT, OPENVINO],
            [narrower, FUSED, DYNAMIC],
        ]  # fmt: skip
    half, most = channels(0.5, epochs), channels(0.7, epochs)
    return [
        [STATIC], [STATIC, OPENVINO], [half], [half, OPENVINO],
        [half, STATIC], [half, STATIC, OPENVINO], [most, STATIC], [most, STATIC, OPENVINO],
    ]  # fmt: skip


def ours(
    model: Model, tried: list[list[Step]], tolerance: float, seconds: float
) -> list[Entry]:
    """What trimgate makes; the best recipe, as chosen on validation rows, is marked."""
    before = _bench.apply_steps(model, EXPORT)
    entries = []
    for steps in tried:
        title = " → ".join(parse_step(step).title() for step in steps)
        entry = Entry("trimgate", title)
        entries.append(entry)
        try:
            after = _bench.apply_steps(model, steps)
        except RefusedError as error:
            entry.quality = f"does not apply: {error}"
            continue
        record = _bench.judge(model, before, after, "validation")
        fast = _judged(entry, model, before, after, seconds)
        if record.differences[model.metric].value > -tolerance:
            entry.score = fast
    best = max((e for e in entries if e.score), key=lambda e: e.score or 0, default=None)
    if best is not None:
        best.who = "**trimgate, best**"
    return entries


def _judged(entry: Entry, model: Model, before: Path, after: Path, seconds: float) -> float:
    """Fills in quality, speeds and size; gives the speed at the first batch size."""
    log.info("%s: measuring %s %s", model.name, entry.who, entry.what)
    change = _bench.judge(model, before, after).differences[model.metric]
    entry.quality = f"{model.metric} {_bench.difference(change)} points"
    benchmark = _bench.measure_once(model, before, after, seconds)
    entry.speeds = [_speed(batch) for batch in benchmark.batches]
    entry.size = f"{benchmark.baseline.size / benchmark.candidate.size:.3g}× smaller"
    return benchmark.batches[0].wall.value


def theirs(name: str, model: Model, given: argparse.Namespace) -> list[Entry]:
    """A peer's model, on each engine that reads it; or why there is none."""
    peer = PEERS[name]
    before = _bench.apply_steps(model, EXPORT)
    out = model.folder / "peers" / name
    try:
        if not (out / "claims.json").is_file():
            python = _environment(name, peer, given.work)
            _run(peer, python, _job(model, before, out, given), out)
    except subprocess.CalledProcessError as error:
        return [Entry(name, "", f"failed: {_reason(error)}")]
    claims = _brief(json.loads((out / "claims.json").read_text()))
    if peer.engines == ("torch",):
        return [_torch_entry(name, model, before, out, claims)]
    entries = []
    for engine in peer.engines:
        entry = Entry(name, {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[engine])
        entry.claims = claims
        try:
            after = _wrapped(model, before, out, engine)
            _judged(entry, model, before, after, given.seconds)
        except TrimgateError as error:
            entry.quality = f"its model does not run: {error}"
        entries.append(entry)
    return entries


def _environment(name: str, peer: Peer, work: Path) -> Path:
    """Python of the peer's own environment, made if it is not there."""
    folder = work / "environments" / name
    python = folder / "bin" / "python"
    complete, wanted = folder / "complete", repr(peer.packages)
    if complete.is_file() and complete.read_text() == wanted:
        return python
    log.info("%s: installing %s", name, " ".join(p for packages in peer.packages for p in packages))
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    for packages in peer.packages:
        _call([str(python), "-m", "pip", "install", "--quiet", *packages], folder)
    complete.write_text(wanted)
    return python


def _job(model: Model, before: Path, out: Path, given: argparse.Namespace) -> dict[str, Any]:
    """What the peer is given: the model, the rows, and where to write."""
    info = read(before)
    trained = read(model.native)
    rows = out / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    train = Dataset.load(model.rows("train"))
    rng = np.random.default_rng(SEED)
    chosen = np.sort(rng.permutation(len(train))[:CALIBRATION_ROWS])
    held = halves(Dataset.load(model.rows("validation")))[0]
    parts = {
        "train": train.take(chosen),
        "validation": held.take(slice(0, HELD_ROWS)),
        "test": Dataset.load(model.rows("test")),
    }
    for split, data in parts.items():
        for name, tensor in build_inputs(info, data.features).items():
            np.save(rows / f"{split}-{name}.npy", tensor)
        positions = {label: position for position, label in enumerate(info.labels)}
        np.save(rows / f"{split}-labels.npy", [positions[v] for v in data.labels.tolist()])
    encoder = None
    if info.tokenizer is not None:
        config = trained.builder_arguments["config"]
        encoder = {
            "model_type": config["model_type"],
            "num_heads": config["num_attention_heads"],
            "hidden_size": config["hidden_size"],
        }
    return {
        "onnx": str(before / ONNX_FILE),
        "inputs": [spec.name for spec in info.inputs],
        "mask": "attention_mask" if encoder else None,
        "encoder": encoder,  # how Olive fuses it
        "rows": str(rows),
        "out": str(out),
        "classes": len(info.labels),
        "tolerance": given.tolerance,
        "trials": given.trials,
        "seconds": given.seconds,
        "batch_sizes": list(model.batch_sizes),
        "seed": SEED,
        "builder": trained.builder,
        "arguments": trained.builder_arguments,
        "weights": str(model.native / "weights.safetensors"),
        # where the builders of networks are, and trimgate.judge for the timing
        "path": [
            str(_models.EXAMPLES / "vision"),
            str(HERE),
            str(Path(trimgate.__file__).parents[1]),
        ],
    }


def _run(peer: Peer, python: Path, job: dict[str, Any], out: Path) -> None:
    file = out / "job.json"
    file.write_text(json.dumps(job, indent=1))
    began = time.monotonic()
    _call([str(python), str(HERE / "_peers" / peer.script), str(file)], out)
    log.info("%s took %.0f s", peer.script, time.monotonic() - began)


def _call(command: list[str], folder: Path) -> None:
    """Runs a command in a folder; its output is kept there, and for the reason of a failure.

    Raises:
        CalledProcessError: It failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    (folder / "log.txt").write_text(f"{shlex.join(command)}\n\n{done.stdout}\n{done.stderr}")
    done.check_returncode()


def _reason(error: subprocess.CalledProcessError) -> str:
    lines = [line for line in (error.stderr or "").strip().splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit status {error.returncode}")[:300]


def _wrapped(model: Model, before: Path, out: Path, engine: str) -> Path:
    """A peer's ONNX file as a model directory."""
    directory = out / engine
    if directory.is_dir():
        return directory
    info = read(before)
    runtime = RuntimeChoice.model_validate({"name": engine})
    changes = {"framework": "onnx", "builder": None, "builder_arguments": {}, "runtime": runtime}
    with writing(directory) as partial:
        shutil.copy(out / "model.onnx", partial / ONNX_FILE)
        seal(partial, info.model_copy(update={**changes, "parent": info.digest, "notes": {}}))
    return directory


def _torch_entry(name: str, model: Model, before: Path, out: Path, claims: str) -> Entry:
    """Of a peer whose model is a torch program, timed in its own process."""
    entry = Entry(name, "torch.compile (one process)", claims=claims)
    scores = np.load(out / "scores.npy")
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    record = _bench.judge_scores(model, read(before), _bench.scores_of(model, before), scores)
    entry.quality = f"{model.metric} {_bench.difference(record.differences[model.metric])} points"
    samples = json.loads((out / "samples.json").read_text())
    settings = BenchmarkSettings(processes=1)
    for size, sample in samples.items():
        batch = summarise([Samples.model_validate(sample)], int(size), settings)
        entry.speeds.append(_speed(batch))
    return entry


def _speed(batch: BatchBenchmark) -> str:
    return f"{_bench.ratio(batch.wall, batch.state)} at {batch.batch_size}"


def _brief(claims: dict[str, Any]) -> str:
    return json.dumps(claims).replace("|", "/")[:200] if claims else "nothing"


def main() -> int:
    """Measures everyone and prints one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("work", type=Path, help="a folder that keeps everything")
    parser.add_argument("--model", default="fashion-resnet18", help="%(default)s")
    parser.add_argument("--only", action="append", choices=["trimgate", *PEERS])
    parser.add_argument("--tolerance", type=float, default=0.01, help="loss; %(default)s")
    parser.add_argument("--trials", type=int, default=12, help="of a search; %(default)s")
    parser.add_argument("--epochs", type=int, default=4, help="of fine-tuning; %(default)s")
    parser.add_argument("--seconds", type=float, default=12, help="per timing; %(default)s")
    parser.add_argument("--tiny", action="store_true", help="small model, few rows: a rehearsal")
    given = parser.parse_args()
    given.work = given.work.resolve()
    _bench.logging_to_console()
    scale = _models.SCALES["tiny" if given.tiny else "full"]
    model = _models.make(given.model, given.work, scale)
    unlabeled = _models.unlabeled_sentences(given.work, scale)
    entries = []
    for name in given.only or ["trimgate", *PEERS]:
        if name == "trimgate":
            tried = recipes(model, given.epochs, unlabeled)
            entries += ours(model, tried, given.tolerance, given.seconds)
        else:
            entries += theirs(name, model, given)
    print(f"\n{model.name}, against FP32 on ONNX Runtime; {_bench.machine()}\n")
    header = ("Who", "What", "Quality on test rows", "Speed", "Size", "What it says itself")
    print(_bench.markdown(header, [entry.row() for entry in entries]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
