"""Steps of trimgate that more than one benchmark applies."""

from pathlib import Path
from typing import Any

Step = dict[str, Any]

STATIC: Step = {"technique": "quantize", "scheme": "static-int8"}
# Of encoders with the table of words too, as trimgate suggests.
STATIC_WORDS: Step = {**STATIC, "embeddings": True}
DYNAMIC: Step = {"technique": "quantize", "scheme": "dynamic-int8", "embeddings": True}
FUSED: Step = {"technique": "optimize_graph", "level": "transformer"}
OPENVINO: Step = {"technique": "runtime", "engine": "openvino"}


def channels(amount: float, epochs: int) -> Step:
    """A share of a network's channels cut, and the rest trained again."""
    return {
        "technique": "prune", "method": "channels", "amount": amount,
        "finetune": {"epochs": epochs},
    }  # fmt: skip


def student(epochs: int, unlabeled: Path, **shape: Any) -> Step:
    """A smaller encoder taught by the given one.

    Args:
        epochs: Of distillation.
        unlabeled: Sentences that it learns its teacher's answers on besides.
        **shape: Of the student, as in the step's `student`.
    """
    return {
        "technique": "distill", "student": shape, "epochs": epochs,
        "loss": {"hidden": 1.0}, "unlabeled": str(unlabeled),
    }  # fmt: skip
