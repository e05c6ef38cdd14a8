"""The technique."""

import logging
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
    trains_anew,
)
from trimgate.techniques.reduce_dimensions._config import ReduceDimensionsConfig
from trimgate.techniques.reduce_dimensions._modules import ModuleReducer
from trimgate.techniques.reduce_dimensions._pipelines import PipelineReducer
from trimgate.training import Judged, Proof, grid, picture, picture_rows

_log = logging.getLogger("trimgate.techniques.reduce_dimensions")

Reducer = PipelineReducer | ModuleReducer


class ReduceDimensions(Technique[ReduceDimensionsConfig]):
    """Trains the last estimator again on a few components; the model takes the original row."""

    name: ClassVar[str] = "reduce_dimensions"
    config: ClassVar[type[ReduceDimensionsConfig]] = ReduceDimensionsConfig
    needs: ClassVar[Form] = "trainable"
    gives: ClassVar[Form] = "trainable"
    stage: ClassVar[Stage] = "features"

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """For a search: components for tables, but not for trees, which they rarely suit."""
        table = all(len(spec.shape) == 2 for spec in info.inputs) and info.tokenizer is None
        if not table or info.framework not in ("sklearn", "torch") or info.family == "trees":
            return ()
        return [Suggestion({"technique": "reduce_dimensions"}, usual=False)]

    def order_problem(
        self, config: ReduceDimensionsConfig, before: Sequence[StepConfig]
    ) -> str | None:
        """Components of components say nothing new; and it trains anew."""
        if any(step.technique == self.name for step in before):
            return "reduce_dimensions was done already; give one step with fewer components"
        return trains_anew(self.name, before)

    def refusal(
        self, info: ModelInfo, config: ReduceDimensionsConfig, target: Target
    ) -> str | None:
        """Why the dimensions of this model cannot be reduced, or None."""
        if info.framework == "onnx":
            return "reduce_dimensions trains the model again, and this one is only there as ONNX"
        if info.framework in ("xgboost", "lightgbm"):
            return (
                "a booster of its own has no place for components before it; bring it as the last "
                "step of a scikit-learn pipeline"
            )
        if info.tokenizer is not None or any(len(spec.shape) != 2 for spec in info.inputs):
            return "reduce_dimensions works on tables, and this model takes arrays or text"
        if config.whiten and config.method == "truncated_svd":
            return "truncated_svd does not center, so its components cannot be whitened"
        if info.framework == "torch":
            if len(info.inputs) != 1 or not info.inputs[0].dtype.startswith("float"):
                return "reduce_dimensions works on torch modules that take one matrix of numbers"
            if info.score_kind == "label":
                return "a module that puts out labels cannot be fine-tuned on components"
            if config.method == "truncated_svd":
                return "truncated_svd is for sparse columns, and a torch module takes dense ones"
        if len(info.inputs) == 1 and len(info.inputs[0].features) < 2:
            return "the model looks at a single feature"
        return None

    def apply(
        self, source: Path, out: Path, config: ReduceDimensionsConfig, context: Context
    ) -> ModelInfo:
        """Trains on components; see `ReduceDimensionsConfig`."""
        info = directory.read(source)
        refused = self.refusal(info, config, context.target)
        if refused:
            raise NotApplicable(refused)
        with directory.writing(out) as partial:
            kind = ModuleReducer if info.framework == "torch" else PipelineReducer
            reducer: Reducer = kind(load_trainable(source, info), info, config, context)
            model, count, notes = _chosen(reducer, config, context)
            made = child(
                info,
                config,
                outputs=(),
                score_output=None,
                runtime=RuntimeChoice(),
                notes={"reduce_dimensions": notes},
                **reducer.changes(model, count),
            )
            save_trainable(model, partial, made)
            return directory.seal(partial, made)


def _chosen(
    reducer: Reducer, config: ReduceDimensionsConfig, context: Context
) -> tuple[Any, int, dict[str, Any]]:
    """The newly trained model, how many components it looks at, and the notes."""
    rows = context.validation
    reference = reducer.scores(reducer.model, rows)
    proof = Proof(
        reducer.info, rows, reference, context.metric, config.tolerance, config.confidence,
        context.seed,
    )  # fmt: skip
    tried: dict[int, tuple[Any, Judged]] = {}

    def good(count: int) -> bool:
        model = reducer.fit(count)
        tried[count] = (model, proof(reducer.scores(model, rows)))
        _log.info("with %d of %d components: %.4f", count, reducer.columns, tried[count][1].value)
        return tried[count][1].good

    if config.components == "auto":
        # Bisection: each trial is a training, and more components seldom make a model worse.
        sizes = sorted(
            {reducer.largest, *(size for size in grid(reducer.columns) if size <= reducer.largest)}
        )
        low, high = 0, len(sizes)
        while low < high:
            middle = (low + high) // 2
            if good(sizes[middle]):
                high = middle
            else:
                low = middle + 1
        if low == len(sizes):
            raise NotApplicable(
                proof.failure(f"with fewer components than its {reducer.columns} columns"),
                key="reduce_dimensions.tolerance",
                mend="raise it, give more validation rows, or say how many components",
            )
        count = sizes[low]
    else:
        count = _asked(reducer, config.components)
        good(count)
    model, judged = tried[count]
    notes = {
        **reducer.notes,
        "columns_before": reducer.columns,
        "columns_after": count,
        "explained_variance": reducer.explained(model),
        "metric": context.metric,
        "metric_before": proof.reference_value,
        "metric_after": judged.value,
        "metric_at_worst": judged.worst,
        "confidence": config.confidence,
        "tried": [
            {"components": n, "metric": tried[n][1].value, "at_worst": tried[n][1].worst}
            for n in sorted(tried)
        ],
    }
    if config.picture:
        some = rows.take(picture_rows(len(rows), context.seed))
        notes["picture"] = picture(
            reducer.components(model, some),
            reducer.info,
            some.labels,
            reducer.scores(reducer.model, some),
            reducer.scores(model, some),
            context.seed,
        )
    return model, count, notes


def _asked(reducer: Reducer, components: int | float) -> int:
    if isinstance(components, float):
        return reducer.explaining(components)
    if components > reducer.largest:
        raise NotApplicable(
            f"at most {reducer.largest} components make the {reducer.columns} columns fewer",
            key="reduce_dimensions.components",
            value=components,
            mend="ask for fewer",
        )
    return components
