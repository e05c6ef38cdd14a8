"""Olive: its search over the settings of ONNX quantization, by accuracy and latency.

Runs in Olive's own environment: `python olive_search.py JOB.json` (see `peers.py`).
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"  # read when it is imported

import numpy as np
from _rows import Rows
from olive import run
from olive.data.registry import Registry
from onnx import TensorProto
from torch.utils.data import Dataset

SEARCHED = (
    "quant_mode", "precision", "per_channel", "reduce_range", "quant_preprocess",
    "calibrate_method", "quant_format", "activation_type",
)  # fmt: skip


class Kept(Dataset):
    """Rows as Olive takes them: named inputs and a label.

    Args:
        rows: The rows.
        filled: Whether texts stay filled up to one length, without which it cannot calibrate.
    """

    def __init__(self, rows: Rows, filled: bool) -> None:
        self.rows, self.filled = rows, filled

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], int]:
        if self.filled:
            row = {name: np.array(tensor[index]) for name, tensor in self.rows.tensors.items()}
        else:
            row = {name: tensor[0] for name, tensor in self.rows.row(index).items()}
        return row, int(self.rows.labels[index])


@Registry.register_dataset()
def kept_rows(job: dict[str, Any], split: str, filled: bool, **_: object) -> Kept:
    """The rows of a split."""
    return Kept(Rows(job, split), filled)


@Registry.register_post_process()
def likeliest(output: object, **_: object) -> object:
    """The class with the largest score."""
    scores = output if hasattr(output, "argmax") else next(iter(output.values()))
    return scores.argmax(-1)


def main() -> None:
    """Searches, copies the best model to `out`, and writes what Olive says of it."""
    job = json.loads(Path(sys.argv[1]).read_text())
    out = Path(job["out"])

    def rows(name: str, split: str, filled: bool = False) -> dict:
        return {
            "name": name,
            "type": "DataContainer",
            "load_dataset_config": {
                "type": "kept_rows", "split": split, "filled": filled,
                "job": {name: job[name] for name in ("rows", "inputs", "mask")},
            },
            "pre_process_data_config": {"type": "skip_pre_process"},
            "post_process_data_config": {"type": "likeliest"},
            "dataloader_config": {"batch_size": 1, "type": "default_dataloader"},
        }  # fmt: skip

    accuracy = {
        "name": "accuracy", "type": "accuracy", "data_config": "validation",
        "sub_types": [{
            "name": "accuracy_score", "priority": 1, "higher_is_better": True,
            "metric_config": {"task": "multiclass", "num_classes": job["classes"]},
            "goal": {"type": "max-degradation", "value": job["tolerance"]},
        }],
    }  # fmt: skip
    latency = {
        "name": "latency", "type": "latency", "data_config": "one",
        "sub_types": [{
            "name": "avg", "priority": 2,
            "goal": {"type": "percent-min-improvement", "value": 5},
        }],
    }  # fmt: skip
    system = {
        "type": "LocalSystem",
        "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
    }
    # of what a fused operator gives, ONNX cannot infer the type
    types = {"extra_options": {"DefaultTensorType": TensorProto.FLOAT}} if job["encoder"] else {}
    config = {
        "input_model": {"type": "ONNXModel", "model_path": _fused(job) or job["onnx"]},
        "systems": {"here": system},
        "data_configs": [
            rows("train", "train", filled=True), rows("validation", "validation"),
            rows("one", "train"),
        ],
        "evaluators": {"both": {"metrics": [accuracy, latency]}},
        "passes": {"quantize": {
            "type": "OnnxQuantization", "data_config": "train", **types,
            **dict.fromkeys(SEARCHED, "SEARCHABLE_VALUES"),
        }},
        "search_strategy": {
            "execution_order": "joint", "sampler": "tpe", "max_iter": job["trials"],
            "seed": job["seed"],
        },
        "host": "here", "target": "here", "evaluator": "both",
        "evaluate_input_model": True,
        "output_dir": str(out / "olive"), "cache_dir": str(out / "cache"),
    }  # fmt: skip
    result = run(config)
    best = result.get_best_candidate()
    if best is None:
        sys.exit(f"no model of its {job['trials']} trials meets the goals")
    shutil.copy(best.model_path, out / "model.onnx")
    claims = {"is": _values(best.metrics_value), "was": _values(result.get_input_model_metrics())}
    (out / "claims.json").write_text(json.dumps(claims))


def _fused(job: dict[str, Any]) -> str | None:
    """An encoder with attention fused, by Olive; None for other models.

    In a run of its own: with two steps to search, all trials but the first end in an error of
    Olive's ("FootprintNode" object has no field "model_config").
    """
    if not job["encoder"]:
        return None
    fuse = {"type": "OrtTransformersOptimization", **job["encoder"]}
    folder = Path(job["out"]) / "fused"
    result = run({
        "input_model": {"type": "ONNXModel", "model_path": job["onnx"]},
        "passes": {"fuse": fuse},
        "output_dir": str(folder), "cache_dir": str(folder / "cache"),
    })  # fmt: skip
    return str(result.get_best_candidate().model_path)


def _values(metrics: dict) -> dict[str, float]:
    return {name: metric["value"] for name, metric in metrics.items()}


if __name__ == "__main__":
    main()
