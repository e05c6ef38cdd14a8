"""Quantization-aware training: a torch module is fine-tuned with INT8's rounding in its way.

The trained weights are exported as they are before rounding; the ONNX quantizer then rounds them
by the same rule (symmetric, the largest of a channel). Inputs of the trained layers get the
ranges that were learnt, because the weights adapted to just those; all other tensors (results
that are added, say) are measured on training rows after the training.
"""

import copy
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimgate.data.dataset import Array
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs, export_onnx, load_trainable, sample_rows
from trimgate.models.directory import ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.quantize._config import QuantizeConfig
from trimgate.techniques.quantize._graph import STATIC
from trimgate.techniques.quantize._int8 import choose_types, reduces_range
from trimgate.training import (
    Measure,
    finetune,
    folds,
    mask_position,
    module_scores,
    training_labels,
)

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("trimgate.techniques.quantize")

_OBSERVED = 256
_EXAMPLES = 4
_PARTS = 8  # one part of so many tells the best epoch


@dataclass(frozen=True)
class Trained:
    """A module that was trained and exported.

    Attributes:
        changes: The fields of the record that the export changes.
        note: What was done, for the card.
        weights: Trained weights of all linear layers and convolutions, by layer.
        learnt: Lowest and highest input of those that were trained to be rounded.
    """

    changes: dict[str, Any]
    note: dict[str, Any]
    weights: dict[str, Array]
    learnt: dict[str, tuple[float, float]]

    def match(self, path: Path) -> tuple[dict[str, tuple[float, float]], list[str]]:
        """Finds the layers in an ONNX file by their weights or the transpose of these.

        Returns:
            The learnt ranges by the tensor that goes into the operator (where several layers
            read it, the widest), and the operators of layers that were left in float32.
        """
        import onnx

        graph = onnx.load(path).graph
        layers: dict[str, str] = {}
        for name, weight in self.weights.items():
            layers[_digest(weight)] = layers[_digest(weight.T)] = name
        known = {
            tensor.name: layers.get(_digest(onnx.numpy_helper.to_array(tensor)))
            for tensor in graph.initializer
            if tensor.data_type == onnx.TensorProto.FLOAT
        }
        ranges: dict[str, tuple[float, float]] = {}
        keep = []
        for node in graph.node:
            layer = next((known[name] for name in node.input if known.get(name)), None)
            if layer is None or node.op_type not in STATIC:
                continue
            if layer not in self.learnt:
                keep.append(node.name)
                continue
            low, high = self.learnt[layer]
            before = ranges.get(node.input[0], (low, high))
            ranges[node.input[0]] = (min(low, before[0]), max(high, before[1]))
        return ranges, keep


def train(
    source: Path, target: Path, info: ModelInfo, config: QuantizeConfig, context: Context
) -> Trained:
    """Fine-tunes the module with rounding, and writes it as an ONNX file in float32.

    Args:
        source: The model directory.
        target: The ONNX file to write.
        info: The model's record.
        config: The step's parameters.
        context: Training rows, seed, threads.

    Raises:
        NotApplicable: The module has no layer to quantize, or cannot be exported.
    """
    import torch

    from trimgate.techniques.quantize import _fake

    module: torch.nn.Module = load_trainable(source, info)
    teacher = copy.deepcopy(module)
    sample = sample_rows(context.train, _OBSERVED)
    inputs = build_inputs(info, sample.features)
    columns = [inputs[spec.name] for spec in info.inputs]
    example = [torch.from_numpy(np.array(column[:_EXAMPLES])) for column in columns]
    folded, frozen = _fake.settle_norms(module, example)
    attached = _fake.attach(
        module,
        exclude=config.named,
        signed=choose_types(config, info).activations == "int8",
        largest=64 if reduces_range(config) else 127,
    )
    if not attached:
        raise NotApplicable(
            "the module has nothing to quantize: no linear layer or convolution that is not "
            "excluded",
            file=source,
        )
    _fake.observe(module, attached.values(), columns)
    measure = Measure.of(context.metric, info, context.validation)
    shown = build_inputs(info, context.validation.features)

    def score(candidate: torch.nn.Module) -> float:
        return measure(module_scores(candidate, shown, info, threads=context.target.threads))

    before, untrained = score(teacher), score(module.eval())
    report = _finetune(module, teacher, info, config, context)
    after = score(module)
    learnt = {
        name: (float(rounding.low), float(rounding.high))
        for name, rounding in attached.items()
        if rounding.seen
    }
    _fake.detach(module)
    module.eval()
    changes = export_onnx(module, info, sample, target)
    note = {
        "trained_layers": len(learnt),
        "batch_norms_folded": folded,
        "batch_norms_frozen": frozen,
        "metric": context.metric,
        "metric_float": before,
        "metric_rounded_untrained": untrained,
        "metric_rounded_trained": after,
        **report,
    }
    weights = {
        name: layer.weight.detach().numpy()
        for name, layer in module.named_modules()
        if isinstance(layer, _fake.LAYERS)
    }
    return Trained(changes, note, weights, learnt)


def _finetune(
    module: "torch.nn.Module",
    teacher: "torch.nn.Module",
    info: ModelInfo,
    config: QuantizeConfig,
    context: Context,
) -> dict[str, Any]:
    rows, held = folds(context.train, _PARTS, context.seed)[0]
    # Log loss tells epochs apart on few rows, where many of them have the same accuracy.
    measure = Measure.of("log_loss" if info.labels else context.metric, info, held)
    inputs, watched = build_inputs(info, rows.features), build_inputs(info, held.features)
    threads = context.target.threads
    # smaller steps than in training: the weights are good already
    usual = 5e-5 if info.family == "transformer" else 2e-4
    settings = config.finetune.model_copy(
        update={
            "epochs": context.share_of(config.finetune.epochs),
            "learning_rate": config.finetune.learning_rate or usual,
        }
    )
    report = finetune(
        module,
        [inputs[spec.name] for spec in info.inputs],
        training_labels(info, rows.labels),
        settings,
        kind="value" if info.task == "regression" else info.score_kind,
        validate=lambda m: measure(module_scores(m, watched, info, threads=threads)),
        higher_is_better=measure.higher_is_better,
        teacher=teacher,
        seed=context.seed,
        threads=threads,
        checkpoint=context.work / "qat.ckpt" if context.work else None,
        mask=mask_position(info),
    )
    return {
        "epochs": len(report.losses),
        "best_epoch": report.best_epoch,
        "held_out_metric": measure.metric,
        "held_out_untrained": report.scores[0],
        "held_out_trained": report.scores[report.best_epoch],
    }


def _digest(weight: Array) -> str:
    content = np.ascontiguousarray(weight)
    return hashlib.sha256(f"{content.shape}".encode() + content.tobytes()).hexdigest()
