"""The technique."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from trimgate.errors import NotApplicable
from trimgate.models import directory, load_trainable, save_trainable
from trimgate.models.directory import ModelInfo, RuntimeChoice, TensorSpec
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
from trimgate.techniques.select_features._config import SelectFeaturesConfig
from trimgate.techniques.select_features._embedded import (
    l1_importance,
    model_importance,
    permutation,
    shap_importance,
)
from trimgate.techniques.select_features._filters import (
    anova,
    associations,
    mutual_information,
    redundant,
    variance,
)
from trimgate.techniques.select_features._learners import Learner, candidates, learner
from trimgate.techniques.select_features._search import Search, Trial, cut
from trimgate.techniques.select_features._wrappers import WRAPPERS
from trimgate.training import encoded, picture, picture_rows

_MAX_CORRELATION = 0.95
_NOT_TORCH = {
    "model": "a network has no importances of its own",
    "shap": "exact SHAP values are there for trees and linear models",
    "forward": "it would fine-tune the network once for every feature at every step",
    "backward": "it would fine-tune the network once for every feature at every step",
}


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
        """As few features as are enough, for tables; a search also tries other rankings."""
        step = {"technique": "select_features"}
        if info.framework == "torch" and info.family in ("mlp", "linear"):
            return [
                Suggestion({**step, "method": method}, usual=False)
                for method in ("permutation", "rfe")
            ]
        if info.framework not in ("sklearn", "xgboost", "lightgbm"):
            return ()
        others = ["rfe", "mutual_information"]
        if info.framework != "sklearn" or info.family == "linear":
            others.append("shap")
        return [
            Suggestion(step),
            *(Suggestion({**step, "method": method}, usual=False) for method in others),
        ]

    def order_problem(
        self, config: SelectFeaturesConfig, before: Sequence[StepConfig]
    ) -> str | None:
        """It trains anew, which would undo what made the model smaller."""
        if any(step.technique == "reduce_dimensions" for step in before):
            return (
                "select_features leaves out features, and reduce_dimensions before it has mixed "
                "them; put select_features first"
            )
        return trains_anew(self.name, before)

    def refusal(self, info: ModelInfo, config: SelectFeaturesConfig, target: Target) -> str | None:
        """Why features cannot be selected for this model, or None."""
        if info.framework == "onnx":
            return "select_features trains the model again, and this one is only there as ONNX"
        if any(len(spec.shape) != 2 for spec in info.inputs) or not candidates(info):
            return "select_features works on tables, and this model takes arrays"
        if info.framework == "torch":
            if len(info.inputs) != 1 or not info.inputs[0].dtype.startswith("float"):
                return "select_features works on torch modules that take one matrix of numbers"
            if info.score_kind == "label":
                return "a module that puts out labels cannot be fine-tuned on fewer features"
            if config.method in _NOT_TORCH:
                why = _NOT_TORCH[config.method]
                return f"select_features by {config.method} is not for torch modules: {why}"
        known = config.parameters or info.notes.get("hyperparameters")
        if info.framework == "xgboost" and not known:
            return (
                "an XGBoost file does not say its hyper-parameters; give them as `parameters` of "
                "select_features, or bring the estimator itself (skops, joblib)"
            )
        return _bad_numbers(info, config)

    def apply(
        self, source: Path, out: Path, config: SelectFeaturesConfig, context: Context
    ) -> ModelInfo:
        """Selects features and trains the model on them; see `SelectFeaturesConfig`."""
        info = directory.read(source)
        refused = self.refusal(info, config, context.target)
        if refused:
            raise NotApplicable(refused)
        with directory.writing(out) as partial:
            learns = learner(load_trainable(source, info), info, config, context)
            search = Search(learns, candidates(info), config, context)
            chosen, importances = _chosen(search)
            dropped = {name for name in search.names if name not in chosen.kept}
            unused = dropped | set(info.unused_features)
            made = child(
                info,
                config,
                inputs=tuple(_freed(spec, unused) for spec in info.inputs),
                unused_features=tuple(n for n in info.features if n in unused),
                outputs=(),
                score_output=None,
                runtime=RuntimeChoice(),
                notes={"select_features": _notes(search, chosen, importances)},
                **learns.changes(chosen.kept),
            )
            save_trainable(search.model(chosen.kept), partial, made)
            return directory.seal(partial, made)


def _bad_numbers(info: ModelInfo, config: SelectFeaturesConfig) -> str | None:
    """Why costs, budget or number do not fit the model's features."""
    names = candidates(info)
    for name in config.costs:
        if name not in info.features:
            near = difflib.get_close_matches(name, info.features, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return f"`costs` of select_features names {name!r}, which is no feature{hint}"
    if len(names) < 2:
        return "the model looks at a single feature"
    if isinstance(config.keep, int) and config.keep >= len(names):
        return f"the model looks at {len(names)} features, not at more"
    total = sum(config.cost(name) for name in names)
    if config.budget is not None and total <= config.budget:
        return f"all of the {len(names)} features together cost {total:g}, which the budget allows"
    if total == 0:
        return "no feature costs anything, so there is nothing to save"
    return None


def _freed(spec: TensorSpec, unused: set[str]) -> TensorSpec:
    """An input that may hold NaN in the features that the model no longer looks at."""
    return spec.model_copy(
        update={
            "no_nan": tuple(name for name in spec.no_nan if name not in unused),
            "no_inf": tuple(name for name in spec.no_inf if name not in unused),
        }
    )


def _chosen(search: Search) -> tuple[Trial, dict[str, float]]:
    """The trial that the method leads to, and what it says of the features."""
    config, context, learns = search.config, search.context, search.learner
    names = search.names
    limit = config.max_correlation
    if config.method == "correlation":
        limit = limit or _MAX_CORRELATION
    gone: list[str] = []
    if limit is not None:
        known = mutual_information(learns.info, context.train, names, context.seed)
        found = associations(context.train, names)
        positions = redundant(found, lambda i: search.worth(names[i], known[names[i]]), limit)
        gone = [names[i] for i in positions]
    start = [name for name in names if name not in gone]
    if config.method == "correlation":
        if not gone:
            raise NotApplicable(
                f"no two features are associated by more than {limit}",
                key="select_features.max_correlation",
                mend="lower it, or use another method",
            )
        ranked = [*search.ranked({name: known[name] for name in start}), *reversed(gone)]
        return cut(search, ranked, least=len(start)), {name: known[name] for name in ranked}
    if config.method in WRAPPERS:
        return WRAPPERS[config.method](search, start), {}
    benefits = _rankings(learns, start, config, context)[config.method]()
    ranked = search.ranked(benefits)
    # what others say already comes last, and is the first to go
    chosen = cut(search, [*ranked, *reversed(gone)], most=len(start), benefits=benefits)
    return chosen, {name: benefits[name] for name in ranked}


def _rankings(
    learns: Learner, names: list[str], config: SelectFeaturesConfig, context: Context
) -> Mapping[str, Callable[[], dict[str, float]]]:
    info, rows, seed = learns.info, context.train, context.seed
    return {
        "permutation": lambda: permutation(learns, rows, names, seed),
        "model": lambda: model_importance(learns, rows, names),
        "shap": lambda: shap_importance(learns, rows, names),
        "l1": lambda: l1_importance(info, rows, names, seed),
        "mutual_information": lambda: mutual_information(info, rows, names, seed),
        "anova": lambda: anova(info, rows, names),
        "variance": lambda: variance(rows, names),
    }


def _notes(search: Search, chosen: Trial, importances: dict[str, float]) -> dict[str, Any]:
    info, config, context = search.learner.info, search.config, search.context
    dropped = [n for n in info.features if n in search.names and n not in chosen.kept]
    notes: dict[str, Any] = {
        "method": config.method,
        "kept": [name for name in info.features if name in chosen.kept],
        "dropped": dropped,
        "features_before": len(search.names),
        "features_after": len(chosen.kept),
        "importances": importances,
        "metric": context.metric,
        "metric_before": search.reference,
        "metric_after": chosen.value,
        "metric_at_worst": chosen.worst,
        "confidence": config.confidence,
        "tried": [
            {"features": len(t.kept), "cost": t.cost, "metric": t.value, "at_worst": t.worst}
            for t in sorted(search.trials.values(), key=lambda t: (len(t.kept), t.kept))
        ],
    }
    if config.costs or config.default_cost != 1:
        notes["costs"] = {name: config.cost(name) for name in search.names}
        notes["cost_before"] = search.cost(search.names)
        notes["cost_after"] = chosen.cost
    if config.picture:
        rows = context.validation.take(picture_rows(len(context.validation), context.seed))
        learns = search.learner
        notes["picture"] = picture(
            encoded(rows, chosen.kept)[0],
            info,
            rows.labels,
            learns.scores(learns.model, rows),
            learns.scores(search.model(chosen.kept), rows),
            context.seed,
        )
    return notes
