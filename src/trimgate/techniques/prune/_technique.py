"""The technique."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from trimgate.errors import NotApplicable
from trimgate.models import directory, load_trainable, save_trainable
from trimgate.models.directory import ModelInfo, RuntimeChoice
from trimgate.targets import Target
from trimgate.techniques._base import (
    Context,
    Form,
    Stage,
    StepConfig,
    Suggestion,
    Technique,
    child,
)
from trimgate.techniques.prune._config import IMPORTANCES, TREE_METHODS, PruneConfig
from trimgate.techniques.prune._modules import prune_module
from trimgate.techniques.prune._rebuild import BUILDER, builder_arguments
from trimgate.techniques.prune._trees import prune_trees

_ENCODER_METHODS = ("heads", "ffn", "heads_and_ffn")


class Prune(Technique[PruneConfig]):
    """Fewer and smaller trees, or fewer channels, weights, heads, neurons or layers."""

    name: ClassVar[str] = "prune"
    config: ClassVar[type[PruneConfig]] = PruneConfig
    needs: ClassVar[Form] = "trainable"
    gives: ClassVar[Form] = "trainable"
    stage: ClassVar[Stage] = "structure"

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """What makes a model of its family faster; single weights never do."""
        step: dict[str, Any] = {"technique": "prune"}
        if info.family == "trees":
            others = [{"method": "depth"}]
            if info.framework == "sklearn":
                others.append({"method": "cost_complexity"})
            return [Suggestion(step), *(Suggestion({**step, **o}, usual=False) for o in others)]
        if info.framework != "torch":
            return ()
        if info.family == "cnn":
            return [
                *(Suggestion({**step, "amount": amount}) for amount in (0.3, 0.5)),
                Suggestion({**step, "amount": 0.7}, usual=False),
                Suggestion({**step, "method": "layers", "amount": 0.3}, usual=False),
            ]
        if info.family == "transformer":
            return [
                Suggestion({**step, "method": method, "amount": amount}, usual=False)
                for method, amount in (("layers", 0.5), ("heads_and_ffn", 0.5), ("ffn", 0.5))
            ]
        if info.family == "mlp":
            return [Suggestion({**step, "amount": 0.5}, usual=False)]
        return ()

    def order_problem(self, config: PruneConfig, before: Sequence[StepConfig]) -> str | None:
        """Training would fill the weights that an earlier step set to zero."""
        zeros = any(isinstance(step, PruneConfig) and step.method == "weights" for step in before)
        if zeros and config.method != "weights":
            return (
                "the training after this prune would fill the weights that prune weights set to "
                "zero before it; put prune weights last"
            )
        return None

    def refusal(self, info: ModelInfo, config: PruneConfig, target: Target) -> str | None:
        """Why this model cannot be pruned, or None."""
        if info.framework == "onnx":
            return "prune works on the trained model, and this one is only there as ONNX"
        method = _method(info, config)
        if (method in TREE_METHODS) != (info.framework != "torch"):
            return f"prune with method={config.method} does not fit a {info.framework} model"
        if method in TREE_METHODS:
            if info.family not in ("trees", "other"):
                return f"prune works on tree ensembles and torch modules, not a {info.family} model"
            return None
        if config.importance not in ("auto", *IMPORTANCES[method]):
            return (
                f"importance {config.importance} cannot rank {method}; "
                f"use {', '.join(IMPORTANCES[method])}"
            )
        if info.score_kind == "label":
            return "a module that puts out labels cannot be fine-tuned after pruning"
        if method == "channels" and info.family == "transformer":
            return (
                "prune removes channels of convolutional and dense networks only; "
                "use heads_and_ffn or layers for a transformer"
            )
        if method in _ENCODER_METHODS and info.family != "transformer":
            return f"prune with method={method} is for transformers, not for a {info.family} model"
        if method == "channels" and importlib.util.find_spec("torch_pruning") is None:
            return "the Python package torch_pruning is not installed (extra: torch)"
        return None

    def apply(self, source: Path, out: Path, config: PruneConfig, context: Context) -> ModelInfo:
        """Prunes the model; see `PruneConfig`."""
        info = directory.read(source)
        refused = self.refusal(info, config, context.target)
        if refused:
            raise NotApplicable(refused)
        with directory.writing(out) as partial:
            model = load_trainable(source, info)
            builder, arguments = info.builder, info.builder_arguments
            if info.framework == "torch":
                resolved = config.model_copy(update={"method": _method(info, config)})
                model, stages, notes = prune_module(model, info, resolved, context)
                if stages:
                    builder, arguments = BUILDER, builder_arguments(info, stages)
            else:
                model, notes = prune_trees(model, info, config, context)
            made = child(
                info,
                config,
                builder=builder,
                builder_arguments=arguments,
                outputs=(),
                score_output=None,
                runtime=RuntimeChoice(),
                notes={"prune": notes},
            )
            save_trainable(model, partial, made)
            return directory.seal(partial, made)


def _method(info: ModelInfo, config: PruneConfig) -> str:
    """The method, with `auto` resolved; for trees that is known only from the model."""
    if config.method != "auto":
        return config.method
    if info.framework != "torch":
        return "trees"
    return "heads_and_ffn" if info.family == "transformer" else "channels"
