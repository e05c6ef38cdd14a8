"""Olive: its search over the settings of ONNX quantization, by accuracy and latency.

Runs in Olive's own environment: `python olive_search.py JOB.json` (see `peers.py`).
"""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"  # read when it is imported

import numpy as np
from olive import run
from olive.data.registry import Registry
from torch.utils.data import Dataset

SEARCHED = (
    "quant_mode", "precision", "per_channel", "reduce_range", "quant_preprocess",
    "calibrate_method", "quant_format", "activation_type",
)  # fmt: skip


class Rows(Dataset):
    """Rows as Olive takes them: named inputs and a label."""

    def __init__(self, folder: Path, split: str, name: str) -> None:
        self.rows = np.load(folder / f"{split}.npy", mmap_mode="r")
        self.labels = np.load(folder / f"{split}-labels.npy")
        self.name = name

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], int]:
        return {self.name: np.array(self.rows[index])}, int(self.labels[index])


@Registry.register_dataset()
def kept_rows(folder: str, split: str, name: str, **_: object) -> Rows:
    """The rows of a split."""
    return Rows(Path(folder), split, name)


@Registry.register_post_process()
def likeliest(output: object, **_: object) -> object:
    """The class with the largest score."""
    scores = output if hasattr(output, "argmax") else next(iter(output.values()))
    return scores.argmax(-1)


def main() -> None:
    """Searches, copies the best model to `out`, and writes what Olive says of it."""
    job = json.loads(Path(sys.argv[1]).read_text())
    out = Path(job["out"])

    def rows(split: str, batch: int) -> dict:
        return {
            "name": split,
            "type": "DataContainer",
            "load_dataset_config": {
                "type": "kept_rows", "folder": job["rows"], "split": split, "name": job["input"],
            },
            "pre_process_data_config": {"type": "skip_pre_process"},
            "post_process_data_config": {"type": "likeliest"},
            "dataloader_config": {"batch_size": batch, "type": "default_dataloader"},
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
    one = {**rows("train", 1), "name": "one"}
    system = {
        "type": "LocalSystem",
        "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
    }
    config = {
        "input_model": {"type": "ONNXModel", "model_path": job["onnx"]},
        "systems": {"here": system},
        "data_configs": [rows("train", 1), rows("validation", 1), one],
        "evaluators": {"both": {"metrics": [accuracy, latency]}},
        "passes": {"quantize": {
            "type": "OnnxQuantization", "data_config": "train",
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


def _values(metrics: dict) -> dict[str, float]:
    return {name: metric["value"] for name, metric in metrics.items()}


if __name__ == "__main__":
    main()
