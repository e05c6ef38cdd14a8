"""The technique."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from trimgate.data.dataset import Dataset
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
from trimgate.techniques.select_features._boosters import retrained
from trimgate.techniques.select_features._columns import narrowed
from trimgate.techniques.select_features._config import SelectFeaturesConfig
from trimgate.techniques.select_features._rank import (
    model_importance,
    mutual_information,
    permutation_importance,
)
from trimgate.training import Measure, estimator_scores, fit

_log = logging.getLogger("trimgate.techniques.select_features")


class SelectFeatures(Technique[SelectFeaturesConfig]):
    """Trains the model again on fewer features; it still takes the original row."""

    name: ClassVar[str] = "select_features"
    config: ClassVar[type[SelectFeaturesConfig]] = SelectFeaturesConfig
    needs: ClassVar[Form] = "trainable"
    gives: ClassVar[Form] = "trainable"
    stage: ClassVar[Stage] = "features"

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """As few features as are enough, for tables."""
        if info.framework not in ("sklearn", "xgboost", "lightgbm"):
            return ()
        return [Suggestion({"technique": "select_features"})]

    def order_problem(
        self, config: SelectFeaturesConfig, before: Sequence[StepConfig]
    ) -> str | None:
        """It trains anew, which would undo what made the model smaller."""
        return trains_anew(self.name, before)

    def refusal(self, info: ModelInfo, config: SelectFeaturesConfig, target: Target) -> str | None:
        """Why features cannot be selected for this model, or None."""
        if info.framework == "onnx":
            return "select_features trains the model again, and this one is only there as ONNX"
        if info.framework == "torch":
            return (
                "select_features works on scikit-learn, XGBoost and LightGBM models, not on torch"
            )
        if any(len(spec.shape) > 2 for spec in info.inputs) or _columns(info) == ():
            return "select_features works on tables, and this model takes arrays"
        known = config.parameters or info.notes.get("hyperparameters")
        if info.framework == "xgboost" and not known:
            return (
                "an XGBoost file does not say its hyper-parameters; give them as `parameters` of "
                "select_features, or bring the estimator itself (skops, joblib)"
            )
        if len(_candidates(info)) < 2:
            return "the model looks at a single feature"
        if isinstance(config.keep, int) and config.keep >= len(_candidates(info)):
            return f"the model looks at {len(_candidates(info))} features, not at more"
        return None

    def apply(
        self, source: Path, out: Path, config: SelectFeaturesConfig, context: Context
    ) -> ModelInfo:
        """Selects features and trains the model on them; see `SelectFeaturesConfig`."""
        info = directory.read(source)
        refused = self.refusal(info, config, context.target)
        if refused:
            raise NotApplicable(refused)
        with directory.writing(out) as partial:
            model = load_trainable(source, info)
            importances = _importances(model, info, config, context)
            ranked = sorted(importances, key=lambda name: -importances[name])
            model, kept, notes = _selected(model, info, ranked, config, context)
            dropped = [name for name in info.features if name in ranked and name not in kept]
            made = child(
                info,
                config,
                unused_features=tuple(
                    n for n in info.features if n in dropped or n in info.unused_features
                ),
                outputs=(),
                score_output=None,
                runtime=RuntimeChoice(),
                notes={
                    "select_features": {
                        "method": config.method,
                        "kept": [name for name in info.features if name in kept],
                        "dropped": dropped,
                        "importances": {name: importances[name] for name in ranked},
                        "metric": context.metric,
                        **notes,
                    }
                },
            )
            save_trainable(model, partial, made)
            return directory.seal(partial, made)


def _columns(info: ModelInfo) -> tuple[str, ...]:
    return tuple(feature for spec in info.inputs for feature in spec.features)


def _candidates(info: ModelInfo) -> tuple[str, ...]:
    return tuple(name for name in _columns(info) if name not in info.unused_features)


def _importances(
    model: Any, info: ModelInfo, config: SelectFeaturesConfig, context: Context
) -> dict[str, float]:
    names = _candidates(info)
    if config.method == "mutual_information":
        return mutual_information(info, context.train, names, context.seed)
    if config.importance == "model":
        return model_importance(model, info, names)
    return permutation_importance(model, info, context.validation, names, context.seed)


def _selected(
    model: Any,
    info: ModelInfo,
    ranked: list[str],
    config: SelectFeaturesConfig,
    context: Context,
) -> tuple[Any, list[str], dict[str, Any]]:
    """The newly trained model, what it looks at, and the notes."""
    measure = Measure.of(context.metric, info, context.validation)
    reference = measure(estimator_scores(model, info, context.validation))
    tried: dict[int, tuple[Any, float]] = {}

    def value(count: int) -> float:
        trained = _trained(model, info, tuple(ranked[:count]), config, context)
        tried[count] = (trained, measure(estimator_scores(trained, info, context.validation)))
        _log.info("with %d of %d features: %.4f", count, len(ranked), tried[count][1])
        return tried[count][1]

    if config.keep == "auto":
        # Bisection: each trial is a training, and more features seldom make a model worse.
        sizes = grid(len(ranked))
        low, high = 0, len(sizes)
        while low < high:
            middle = (low + high) // 2
            if measure.acceptable(value(sizes[middle]), reference, config.tolerance):
                high = middle
            else:
                low = middle + 1
        if low == len(sizes):
            raise NotApplicable(
                f"with fewer of its {len(ranked)} features the model gets worse by more than "
                f"{config.tolerance} {context.metric} on the validation rows",
                key="select_features.tolerance",
                mend="raise it, or say how many to keep",
            )
        count = sizes[low]
    else:
        share = isinstance(config.keep, float)
        count = max(1, round(config.keep * len(ranked))) if share else int(config.keep)
        if count >= len(ranked):
            raise NotApplicable(f"all of the {len(ranked)} features would be kept")
        value(count)
    chosen, after = tried[count]
    return (
        chosen,
        ranked[:count],
        {
            "metric_before": reference,
            "metric_after": after,
            "tried": [{"features": n, "metric": tried[n][1]} for n in sorted(tried)],
        },
    )


def _trained(
    model: Any,
    info: ModelInfo,
    kept: tuple[str, ...],
    config: SelectFeaturesConfig,
    context: Context,
) -> Any:
    rows: Dataset = context.train
    if info.framework != "sklearn":
        return retrained(model, info, rows, kept, config.parameters, context.seed)
    frame = len(info.inputs) > 1
    fresh = narrowed(model, _columns(info), kept, frame, context.seed)
    return fit(fresh, model, info, rows)


def grid(count: int) -> list[int]:
    """Ascending numbers from 1 to below `count`, each about 1.4 times the one before."""
    sizes, current = set[int](), float(count)
    while current > 1:
        current /= 1.4
        sizes.add(max(1, round(current)))
    return sorted(size for size in sizes if size < count)
