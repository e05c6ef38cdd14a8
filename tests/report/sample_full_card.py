"""A card on which every section has something to show."""

from typing import Any

from report.sample_cards import passing
from report.sample_records import evaluation

from trimgate.report import CardInput, Example, Examples
from trimgate.targets import PROFILES

EXAMPLES = Examples(
    columns=("Amount", "V14", "<b>note</b>"),
    left_out=27,
    rows=tuple(
        Example(
            row=100 * place,
            effect=effect,
            label="1",
            baseline="1",
            winner="0",
            baseline_score=0.61,
            winner_score=0.44,
            values=("12.5", "-1.33", "<script>alert(4)</script>"),
        )
        for place, effect in enumerate(("lost", "lost", "won", "changed"), 1)
    ),
)


def full(**changes: Any) -> CardInput:
    """The passing card with a price, accuracy, and example rows."""
    values = {
        "average_precision": (0.785, 0.001),
        "accuracy": (0.999, 0.00004),
        "f1": (0.781, 0.0),
    }
    fields: dict[str, Any] = {
        "target": PROFILES["cloud-cpu"].model_copy(update={"price_per_hour": 0.08}),
        "winner_test": evaluation("prune trees → ONNX", "test", values),
        "examples": EXAMPLES,
    }
    return passing(**{**fields, **changes})
