"""The cases of techniques.py: which steps are tried on which model. Edit at will."""

from dataclasses import dataclass
from typing import Any

from _bench import EXPORT

Step = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Attributes:
        model: One of `_models.MODELS`.
        steps: Of the recipe; the export to ONNX is added where it is needed.
        before: What it is compared with: by default the plain export of the same model.
        shows: Notes of the model that stand in the table, by path (`distill.added`).
    """

    model: str
    steps: tuple[Step, ...]
    before: tuple[Step, ...] = EXPORT
    shows: tuple[str, ...] = ()


def _case(
    model: str, *steps: Step, before: tuple[Step, ...] = EXPORT, shows: tuple[str, ...] = ()
) -> Case:
    return Case(model, steps, before, shows)


def _prune(method: str, **parameters: Any) -> Step:
    return {"technique": "prune", "method": method, **parameters}


def _quantize(scheme: str, **parameters: Any) -> Step:
    return {"technique": "quantize", "scheme": scheme, **parameters}


def _runtime(engine: str, **parameters: Any) -> Step:
    return {"technique": "runtime", "engine": engine, **parameters}


def _graph(**parameters: Any) -> Step:
    return {"technique": "optimize_graph", **parameters}


def _select(method: str, **parameters: Any) -> Step:
    return {"technique": "select_features", "method": method, **parameters}


_FEW_EPOCHS = {"epochs": 3}
_OPENVINO = _runtime("openvino")
_STATIC = _quantize("static-int8")

CASES: dict[str, tuple[Case, ...]] = {
    "tune": (
        _case("credit-boosting", {"technique": "tune", "trials": 25}),
        _case("credit-boosting", {"technique": "tune", "trials": 25, "sampler": "random"}),
        _case("credit-forest", {"technique": "tune", "trials": 15, "pruner": "asha"}),
        _case(
            "credit-boosting",
            {
                "technique": "tune",
                "trials": 25,
                "sampler": "nsga2",
                "objectives": ["metric", "latency"],
            },
        ),
        _case("fraud-mlp", {"technique": "tune", "trials": 10}),
    ),
    "prune": (
        _case("credit-forest", _prune("trees")),
        _case("credit-forest", _prune("depth")),
        _case("credit-forest", _prune("cost_complexity")),
        _case("credit-boosting", _prune("trees")),
        _case("fraud-lightgbm", _prune("trees")),
        _case("fraud-mlp", _prune("channels", amount=0.5, finetune=_FEW_EPOCHS)),
        _case("fashion-resnet18", _prune("channels", amount=0.5, finetune=_FEW_EPOCHS)),
        _case("fashion-resnet18", _prune("weights", amount=0.9, finetune=_FEW_EPOCHS)),
        _case("fashion-resnet18", _prune("layers", amount=0.25, finetune=_FEW_EPOCHS)),
        _case("fashion-resnet50", _prune("channels", amount=0.5, finetune=_FEW_EPOCHS)),
        _case("fashion-lite0", _prune("channels", amount=0.3, finetune=_FEW_EPOCHS)),
        _case("text-minilm", _prune("heads_and_ffn", amount=0.5, finetune=_FEW_EPOCHS)),
        _case("text-minilm", _prune("layers", amount=0.5, finetune=_FEW_EPOCHS)),
    ),
    "quantize": (
        _case("fashion-resnet50", _STATIC),
        _case("fashion-resnet50", _quantize("static-int8", method="entropy")),
        _case("fashion-resnet50", _quantize("static-int8", quantizer="nncf")),
        _case("fashion-resnet50", _STATIC, _OPENVINO),
        _case("fashion-resnet50", _quantize("fp16")),
        _case(
            "fashion-resnet50",
            _runtime("openvino", precision="bf16"),
            _quantize("bf16"),
            before=(_graph(), _OPENVINO),
        ),
        _case("fraud-mlp", _quantize("dynamic-int8")),
        _case("fraud-mlp", _STATIC),
        _case("fraud-mlp", _quantize("static-int8", exclude="auto")),
        _case("fraud-mlp", _quantize("qat-int8", finetune=_FEW_EPOCHS)),
        _case("text-minilm", _quantize("dynamic-int8")),
        _case("text-minilm", _STATIC),
        _case("text-minilm", _quantize("weight-only", bits=8)),
        _case("text-minilm", _quantize("weight-only", bits=4)),
    ),
    "distill": (
        _case(
            "credit-forest",
            {"technique": "distill", "student": {"estimator": "hist_gradient_boosting"}},
            shows=("distill.added", "distill.kept"),
        ),
        _case(
            "credit-forest",
            {
                "technique": "distill",
                "student": {"estimator": "hist_gradient_boosting"},
                "augment": 20_000,
            },
            shows=("distill.added", "distill.kept"),
        ),
        _case(
            "fashion-resnet18",
            {"technique": "distill", "student": {"arguments": {"width": 0.25}}, "epochs": 3},
            shows=("distill.added", "distill.kept"),
        ),
        _case(
            "text-minilm",
            {"technique": "distill", "student": {"layers": 3}, "epochs": 2},
            shows=("distill.added", "distill.kept"),
        ),
    ),
    "select_features": (
        _case("credit-boosting", _select("permutation")),
        _case("credit-boosting", _select("mutual_information")),
        _case("credit-boosting", _select("shap")),
        _case("fraud-mlp", _select("permutation", keep=10)),
    ),
    "reduce_dimensions": (
        _case("fraud-mlp", {"technique": "reduce_dimensions", "components": 15}),
        _case("credit-forest", {"technique": "reduce_dimensions"}),
    ),
    "optimize_graph": (
        _case("fashion-resnet50", _graph(), before=(_graph(level="none"),)),
        _case("fashion-resnet50", _graph(offline=True)),
        _case("fashion-resnet50", _graph(external_data=True)),
        _case("text-minilm", _graph(level="extended")),
        _case("text-minilm", _graph(level="transformer")),
        _case("text-minilm", _graph(level="transformer", offline=True, external_data=True)),
    ),
    "runtime": (
        _case("fraud-gradient", _runtime("daal4py")),
        _case("fraud-histogram", _runtime("daal4py")),
        _case("fraud-forest", _runtime("daal4py")),
        _case("fraud-lightgbm", _runtime("daal4py")),
        _case("fraud-xgboost", _runtime("daal4py")),
        _case("fraud-mlp", _OPENVINO),
        _case("fashion-resnet18", _OPENVINO),
        _case("fashion-resnet50", _runtime("openvino", precision="bf16")),
        _case("text-minilm", _OPENVINO),
        _case("text-minilm", _runtime("openvino", precision="bf16")),
    ),
}
