"""Components before the first dense layer of a torch module."""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trimgate.data.dataset import Array, Dataset
from trimgate.errors import NotApplicable
from trimgate.models import build_inputs
from trimgate.models._trainable import build_module
from trimgate.models.directory import ModelInfo
from trimgate.techniques._base import Context
from trimgate.techniques.reduce_dimensions._config import ReduceDimensionsConfig
from trimgate.training import Measure, finetune, folds, module_scores, training_labels

if TYPE_CHECKING:
    import torch

BUILDER = "trimgate.techniques.reduce_dimensions:build_projected"


def build_projected(
    builder: str, arguments: Mapping[str, Any], layer: str, components: int
) -> "torch.nn.Module":
    """Calls the user's builder, and puts components before one of its dense layers.

    Args:
        builder: The user's builder, `package.module:function`.
        arguments: Its keyword arguments.
        layer: Name of the layer.
        components: How many.

    Returns:
        The module in evaluation mode; its new weights are 0 until weights are loaded.
    """
    module: torch.nn.Module = build_module(builder, dict(arguments))
    old: Any = module.get_submodule(layer)
    matrix = np.zeros((old.in_features, components), dtype=np.float32)
    return _replaced(module, layer, matrix, np.zeros(components, dtype=np.float32)).eval()


class ModuleReducer:
    """A torch module on one matrix, to be fine-tuned on the components of its rows.

    The first dense layer that is reached gets the principal components of what it got before
    (standardized); they are fixed, and the layer begins with the weights that make it answer as
    before on whatever the components keep.

    Args:
        model: In evaluation mode.
        info: Its record.
        config: The step's parameters.
        context: The step's data.

    Attributes:
        columns: How many columns the layer looks at now.
        largest: The most components with which the layer gets smaller.
        notes: Which layer it is.

    Raises:
        NotApplicable: There is no such layer, or it is too small.
    """

    def __init__(
        self, model: Any, info: ModelInfo, config: ReduceDimensionsConfig, context: Context
    ) -> None:
        self.model, self.info = model, info
        self.config, self.context = config, context
        self.layer, seen = _first_dense(model, info, context.train)
        old = model.get_submodule(self.layer)
        self.columns = int(old.in_features)
        # two small matrices in place of one are fewer multiplications up to here
        fewer = old.in_features * old.out_features / (old.in_features + old.out_features)
        self.largest = min(self.columns - 1, len(seen) - 1, int(np.ceil(fewer)) - 1)
        if self.largest < 1:
            raise NotApplicable(
                f"the layer {self.layer} is too small for components to save anything"
            )
        self.mean = seen.mean(axis=0)
        spread = seen.std(axis=0)
        self.spread = np.where(spread > 0, spread, 1.0)
        _, self.sizes, self.axes = np.linalg.svd(
            (seen - self.mean) / self.spread, full_matrices=False
        )
        self.sizes = self.sizes / np.sqrt(max(1, len(seen) - 1))
        self.notes = {"method": "pca", "layer": self.layer}

    def explaining(self, share: float) -> int:
        """How many components explain so much of the variance of the training rows."""
        explained = np.cumsum(self.sizes**2) / (self.sizes**2).sum()
        return min(int(np.searchsorted(explained, share)) + 1, self.largest)

    def fit(self, count: int) -> Any:
        """The module, fine-tuned with so many components."""
        import torch

        axes = self.axes[:count].T
        scale = self.sizes[:count] if self.config.whiten else np.ones(count)
        scale = np.where(scale > 0, scale, 1.0)
        matrix = axes / self.spread[:, None] / scale
        offset = -(self.mean / self.spread) @ axes / scale
        module = copy.deepcopy(self.model)
        old = module.get_submodule(self.layer)
        weight = old.weight.detach().double().numpy()
        _replaced(module, self.layer, matrix, offset)
        new = module.get_submodule(self.layer)
        with torch.no_grad():
            new.linear.weight.copy_(torch.from_numpy((weight * self.spread) @ axes * scale))
            bias = weight @ self.mean
            if old.bias is not None:
                bias = bias + old.bias.detach().double().numpy()
            new.linear.bias.copy_(torch.from_numpy(bias))
        self._tune(module)
        return module

    def _tune(self, module: "torch.nn.Module") -> None:
        config = self.config.finetune
        config = config.model_copy(update={"epochs": self.context.share_of(config.epochs)})
        # Not on the validation rows: the best of many epochs there looks better than it is.
        learnt, watched = folds(self.context.train, 8, self.context.seed)[0]
        metric = "log_loss" if self.info.labels else self.context.metric
        measure = Measure.of(metric, self.info, watched)
        finetune(
            module,
            [build_inputs(self.info, learnt.features)[self.info.inputs[0].name]],
            training_labels(self.info, learnt.labels),
            config,
            kind="value" if self.info.task == "regression" else self.info.score_kind,
            validate=lambda m: measure(self.scores(m, watched)),
            higher_is_better=measure.higher_is_better,
            teacher=self.model,
            seed=self.context.seed,
            threads=self.context.target.threads,
        )

    def scores(self, model: Any, rows: Dataset) -> Array:
        """Scores as a session gives them."""
        inputs = build_inputs(self.info, rows.features)
        return module_scores(model, inputs, self.info, threads=self.context.target.threads)

    def components(self, model: Any, rows: Dataset) -> Array:
        """What the layer sees of rows: `(rows, components)`."""
        layer = model.get_submodule(self.layer)
        _, seen = _first_dense(model, self.info, rows)
        # the dense layer within the one that was put in its place sees the components
        if seen.shape[1] != layer.linear.in_features:
            raise TypeError("another layer is reached first")
        return seen

    def explained(self, model: Any) -> float:
        """Share of the training rows' variance that the components explain."""
        count = model.get_submodule(self.layer).linear.in_features
        return float((self.sizes[:count] ** 2).sum() / (self.sizes**2).sum())

    def changes(self, model: Any, count: int) -> dict[str, Any]:
        """Builder and arguments that make the module again."""
        arguments = {
            "builder": self.info.builder,
            "arguments": copy.deepcopy(self.info.builder_arguments),
            "layer": self.layer,
            "components": count,
        }
        return {"builder": BUILDER, "builder_arguments": arguments}


def _first_dense(model: Any, info: ModelInfo, rows: Dataset) -> tuple[str, Array]:
    """The dense layer that is reached first, and the matrix that it gets.

    Raises:
        NotApplicable: There is none, or it gets no matrix.
    """
    import torch

    reached: list[tuple[str, torch.Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, given, name=name: reached.append((name, given[0].detach().double()))
        )
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear)
    ]
    try:
        inputs = build_inputs(info, rows.features)
        with torch.inference_mode():
            model(*(torch.from_numpy(np.array(inputs[spec.name])) for spec in info.inputs))
    finally:
        for hook in hooks:
            hook.remove()
    if not reached or reached[0][1].ndim != 2:
        raise NotApplicable("the module has no dense layer that takes a row of numbers")
    return reached[0][0], reached[0][1].numpy()


def _replaced(
    module: "torch.nn.Module", name: str, matrix: Array, offset: Array
) -> "torch.nn.Module":
    """Puts the projection and a smaller dense layer in the place of a dense layer."""
    import torch

    old: Any = module.get_submodule(name)

    class Projected(torch.nn.Module):
        """Fixed components of a row, then a dense layer."""

        matrix: torch.Tensor
        offset: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("matrix", torch.from_numpy(np.asarray(matrix, np.float32)))
            self.register_buffer("offset", torch.from_numpy(np.asarray(offset, np.float32)))
            self.linear = torch.nn.Linear(matrix.shape[1], old.out_features)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.linear(rows @ self.matrix + self.offset)
            return result

    module.set_submodule(name, Projected())
    return module
