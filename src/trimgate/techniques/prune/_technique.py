"""The technique."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from trimgate.errors import NotApplicable
from trimgate.models import directory, load_trainable, save_trainable
from trimgate.models.directory import ModelInfo, RuntimeChoice
from trimgate.targets import Target
from trimgate.techniques._base import Context, Form, Stage, Suggestion, Technique, child
from trimgate.techniques.prune._config import PruneConfig
from trimgate.techniques.prune._modules import prune_module
from trimgate.techniques.prune._rebuild import BUILDER
from trimgate.techniques.prune._trees import prune_trees


class Prune(Technique[PruneConfig]):
    """Fewer trees of an ensemble, or fewer channels of a torch module."""

    name: ClassVar[str] = "prune"
    config: ClassVar[type[PruneConfig]] = PruneConfig
    needs: ClassVar[Form] = "trainable"
    gives: ClassVar[Form] = "trainable"
    stage: ClassVar[Stage] = "structure"

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """Fewer trees of an ensemble; 30 and 50 % fewer channels of a convolutional network."""
        step: dict[str, Any] = {"technique": "prune"}
        if info.family == "trees":
            return [Suggestion(step)]
        if info.family == "cnn" and info.framework == "torch":
            return [Suggestion({**step, "amount": amount}) for amount in (0.3, 0.5)]
        return ()

    def refusal(self, info: ModelInfo, config: PruneConfig, target: Target) -> str | None:
        """Why this model cannot be pruned, or None."""
        if info.framework == "onnx":
            return "prune works on the trained model, and this one is only there as ONNX"
        method = "channels" if info.framework == "torch" else "trees"
        if config.method not in ("auto", method):
            return f"prune with method={config.method} does not fit a {info.framework} model"
        if method == "trees" and info.family not in ("trees", "other"):
            return f"prune works on tree ensembles and torch modules, not on a {info.family} model"
        if method == "trees":
            return None
        if info.family == "transformer":
            return "prune removes channels of convolutional and dense networks only"
        if info.score_kind == "label":
            return "a module that puts out labels cannot be fine-tuned after pruning"
        if importlib.util.find_spec("torch_pruning") is None:
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
                model, arguments, notes = prune_module(model, info, config, context)
                builder = BUILDER
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
