"""From a model to its quantized graph, scheme by scheme."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimgate.errors import NotApplicable
from trimgate.models.directory import ONNX_FILE, ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.quantize import _half
from trimgate.techniques.quantize._calibrate import Calibration, replace_ranges
from trimgate.techniques.quantize._config import QuantizeConfig
from trimgate.techniques.quantize._exclude import choose_excluded
from trimgate.techniques.quantize._graph import count_quantized, is_fused
from trimgate.techniques.quantize._int8 import (
    DynamicQuantizer,
    Quantizer,
    StaticQuantizer,
    Types,
    choose_types,
    quiet,
    reduces_range,
)
from trimgate.techniques.quantize._kernels import count_kernels
from trimgate.techniques.quantize._smooth import strength_of
from trimgate.techniques.quantize._weights import WeightQuantizer, quantize_embeddings


@dataclass
class Made:
    """What became of a model.

    Attributes:
        note: What was done, for the card.
        changes: Fields of the record that differ.
        notes: Notes of steps that were done on the way.
    """

    note: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def convert(
    source: Path,
    target: Path,
    scratch: Path,
    info: ModelInfo,
    config: QuantizeConfig,
    context: Context,
) -> Made:
    """Writes the quantized graph.

    Args:
        source: The model directory.
        target: The ONNX file to write.
        scratch: A private directory.
        info: The model's record, with the runtime that the result gets.
        config: The step's parameters.
        context: Data and target.

    Raises:
        NotApplicable: There is nothing to quantize, or the engine would compute nothing so.
    """
    graph = source / ONNX_FILE
    if config.scheme in ("fp16", "bf16"):
        if context.target.device == "gpu":
            return Made(_half.compute_in_half(graph, target, config.named))
        return Made(_half.store_in_half(graph, target, config.scheme, config.named))
    if config.scheme == "qat-int8":
        made = _trained(source, target, scratch, info, config, context)
    else:
        with quiet():
            made = Made(_quantized(graph, target, scratch, info, config, context))
    with quiet():
        if config.embeddings:
            made.note["embeddings"] = quantize_embeddings(
                target,
                config.bits if config.scheme == "weight-only" else 8,
                config.block_size,
                config.named,
            )
        made.note |= _counted(target, scratch, info, config)
    return made


def _quantized(
    graph: Path,
    target: Path,
    scratch: Path,
    info: ModelInfo,
    config: QuantizeConfig,
    context: Context,
) -> dict[str, Any]:
    """Quantizes a graph after training; gives the notes."""
    note: dict[str, Any] = {"scheme": config.scheme}
    if config.scheme == "weight-only":
        note |= {"bits": config.bits, "block_size": config.block_size}
        note |= {"symmetric": config.symmetric, "purpose": _PURPOSE}
        quantizer: Quantizer = WeightQuantizer.make(graph, scratch, config)
    elif config.scheme == "dynamic-int8":
        note |= _common(config)
        quantizer = DynamicQuantizer.make(graph, scratch, config)
    else:
        if is_fused(graph):
            raise NotApplicable(
                "static INT8 works on the plain graph, and this one has fused operators",
                file=graph,
                mend="put optimize_graph with level basic before, or use dynamic-int8",
            )
        calibration = _calibration(info, config, context)
        types = choose_types(config, info)
        note |= {**_common(config), **_typed(types), "calibration_rows": len(calibration.rows)}
        if config.quantizer == "nncf":
            from trimgate.techniques.quantize import _nncf

            note["quantizer"] = "nncf"
            return note | _nncf.quantize(graph, target, scratch, config, calibration, types)
        smoothing = strength_of(config.smooth_quant, info.family)
        note |= {"method": config.method, "smooth_quant": smoothing}
        quantizer = StaticQuantizer.make(graph, scratch, config, calibration, smoothing)
    keep: tuple[str, ...] = ()
    if config.exclude == "auto":
        chosen = choose_excluded(
            quantizer, graph, scratch, info, context, config.tolerance, config.max_excluded
        )
        keep, note["exclusion"] = chosen.keep, chosen.note
    quantizer.write(keep, target)
    return note


def _trained(
    source: Path,
    target: Path,
    scratch: Path,
    info: ModelInfo,
    config: QuantizeConfig,
    context: Context,
) -> Made:
    """Trains with rounding, exports, and quantizes with the learnt ranges."""
    from trimgate.techniques.quantize import _qat

    graph = scratch / "trained.onnx"
    trained = _qat.train(source, graph, info, config, context)
    changes = dict(trained.changes)
    notes = changes.pop("notes", {})
    exported = info.model_copy(update=changes)
    calibration = _calibration(exported, config, context)
    with quiet():
        quantizer = StaticQuantizer.make(graph, scratch, config, calibration)
        ranges, keep = trained.match(quantizer.prepared.path)
        replace_ranges(quantizer.ranges, ranges)
        quantizer.write(keep, target)
    note = {
        "scheme": config.scheme,
        **_common(config),
        **_typed(quantizer.types),
        **trained.note,
        "learnt_ranges": len(ranges),
        "calibration_rows": len(calibration.rows),
        "method": config.method,
    }
    return Made(note, changes, notes)


_PURPOSE = "smaller file and memory; on a CPU much less of a speed-up than INT8 arithmetic, if any"


def _calibration(info: ModelInfo, config: QuantizeConfig, context: Context) -> Calibration:
    return Calibration.sample(
        info, context.train, config.rows, context.seed, config.method, config.percentile
    )


def _common(config: QuantizeConfig) -> dict[str, Any]:
    return {"per_channel": config.per_channel, "reduce_range": reduces_range(config)}


def _typed(types: Types) -> dict[str, Any]:
    return {
        "activation_type": types.activations,
        "weight_type": types.weights,
        "types_chosen": types.reason,
    }


def _counted(
    target: Path, scratch: Path, info: ModelInfo, config: QuantizeConfig
) -> dict[str, Any]:
    """Quantized operators of the file, and what ONNX Runtime computes with integers here."""
    nodes = count_quantized(target)
    kernels = count_kernels(target, scratch)
    done = kernels.packed if config.scheme == "weight-only" else kernels.integer
    if info.runtime.name == "onnxruntime" and not done:
        raise NotApplicable(
            "ONNX Runtime would compute every product of the quantized graph in float32 on "
            "this CPU, so it would only get slower"
        )
    return {
        "nodes": nodes,
        "integer_operators": kernels.integer,
        "packed_operators": kernels.packed,
        "float_operators": kernels.float,
    }
