"""Training a torch module with other hyper-parameters."""

import copy
import math
from collections.abc import Mapping
from typing import Any

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import InvalidInput
from trimgate.models import build_inputs
from trimgate.techniques.tune import _defaults
from trimgate.techniques.tune._config import Goal, Parameter
from trimgate.techniques.tune._space import check_names
from trimgate.techniques.tune._trainers import LOOKS, WHOLE, Trainer, Watch
from trimgate.training import (
    FinetuneConfig,
    Measure,
    finetune,
    folds,
    mask_position,
    module_scores,
    training_labels,
)

_BUILDER = "builder_arguments."
_HELD = 8  # one row in so many tells the best epoch


class ModuleTrainer(Trainer):
    """Torch modules, from the given weights on or from new ones (`start`).

    The best epoch is the one on an eighth of the training rows, never on the validation rows.
    """

    def default_space(self, goals: tuple[Goal, ...]) -> dict[str, Parameter]:
        return _defaults.of_module()

    def present(self) -> Mapping[str, Any]:
        said = {n: v for n, v in self.config.finetune.model_dump().items() if v is not None}
        arguments = {f"{_BUILDER}{n}": v for n, v in self.info.builder_arguments.items()}
        return {**said, **arguments}

    def check(self, names: list[str]) -> None:
        fields = set(FinetuneConfig.model_fields) - {"distill", "temperature"}
        arguments = {f"{_BUILDER}{name}" for name in self.info.builder_arguments}
        check_names(names, fields | arguments, "the training of torch modules", (
            lambda name: name in fields or name.startswith(_BUILDER)
        ))  # fmt: skip
        built = [name for name in names if name.startswith(_BUILDER)]
        if built and self.config.start == "given":
            raise InvalidInput(
                "is an argument of the builder, whose module the given weights would not fit",
                key=f"tune.space.{built[0]}",
                mend="set start to new",
            )

    def train(
        self, parameters: Mapping[str, Any], rows: Dataset, watch: Watch | None = None
    ) -> Any:
        module = self._begun(parameters)
        trained = {n: v for n, v in parameters.items() if not n.startswith(_BUILDER)}
        config = FinetuneConfig.model_validate({**self.config.finetune.model_dump(), **trained})
        learnt, held = folds(rows, _HELD, self.seed)[0]
        # Log loss tells epochs apart on few rows, where many of them have the same accuracy.
        measure = Measure.of("log_loss" if self.info.labels else "rmse", self.info, held)
        inputs = build_inputs(self.info, learnt.features)
        watched = build_inputs(self.info, held.features)
        looks = {math.ceil(config.epochs * ninths / WHOLE): ninths for ninths in LOOKS}
        epochs = -1

        def validate(candidate: Any) -> float:
            nonlocal epochs
            epochs += 1
            if watch is not None and epochs in looks and epochs < config.epochs:
                watch(looks[epochs], candidate)
            scores = module_scores(candidate, watched, self.info, threads=self.threads)
            return measure(scores)

        finetune(
            module,
            [inputs[spec.name] for spec in self.info.inputs],
            training_labels(self.info, learnt.labels),
            config,
            kind="value" if self.info.task == "regression" else self.info.score_kind,
            validate=validate,
            higher_is_better=measure.higher_is_better,
            seed=self.seed,
            threads=self.threads,
            mask=mask_position(self.info),
        )
        return module

    def scores(self, model: Any, rows: Dataset) -> Array:
        inputs = build_inputs(self.info, rows.features)
        return module_scores(model, inputs, self.info, threads=self.threads)

    def changes(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"builder_arguments": self._arguments(parameters)}

    def _arguments(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        said = {
            n.removeprefix(_BUILDER): v for n, v in parameters.items() if n.startswith(_BUILDER)
        }
        return {**self.info.builder_arguments, **said}

    def _begun(self, parameters: Mapping[str, Any]) -> Any:
        if self.config.start == "given":
            return copy.deepcopy(self.model)
        import torch

        from trimgate.models._trainable import build_module

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return build_module(str(self.info.builder), self._arguments(parameters))
