"""The technique."""

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
from trimgate.techniques.distill import _encoders
from trimgate.techniques.distill._config import DistillConfig, Student

_ENCODER = "trimgate.models.transformers:build"
_LARGE = 2_000_000  # bytes of a file of trees that is worth replacing


class Distill(Technique[DistillConfig]):
    """Trains a smaller model on what the model says, and the same one without it, to compare.

    The control is the same student with the same beginning, seed and number of steps, trained on
    labels alone. Both are valued on the validation rows with the primary metric; the card says
    what distillation itself added, with a paired interval. Where the control is better, it is
    the one that is kept, unless `keep` says otherwise.

    Notes:
        Outputs: Hinton et al., 2015, arXiv:1503.02531. Features: FitNets (Romero et al., 2015,
        arXiv:1412.6550) and TinyBERT (Jiao et al., 2020, arXiv:1909.10351). Attention: TinyBERT,
        and attention transfer (Zagoruyko and Komodakis, 2017, arXiv:1612.03928) for feature
        maps. Layers of encoders are kept in even steps, as in DistilBERT (Sanh et al., 2019,
        arXiv:1910.01108).
    """

    name: ClassVar[str] = "distill"
    config: ClassVar[type[DistillConfig]] = DistillConfig
    needs: ClassVar[Form] = "trainable"
    gives: ClassVar[Form] = "trainable"
    stage: ClassVar[Stage] = "training"

    def suggest(
        self, info: ModelInfo, target: Target, flags: frozenset[str]
    ) -> Sequence[Suggestion]:
        """Half of an encoder's layers; histogram boosting in place of large forests."""
        if info.builder == _ENCODER:
            layers = _encoders.layer_count(info.builder_arguments["config"]) or 0
            if layers < 2:
                return ()
            half: dict[str, Any] = {"layers": layers // 2}
            steps = [half, {**half, "width": 0.5}]
            return [Suggestion(_step(s), usual=layers >= 4 and s == half) for s in steps]
        width = info.builder_arguments.get("width")
        if info.framework == "torch" and isinstance(width, int) and width >= 16:
            return [Suggestion(_step({"arguments": {"width": width // 2}}), usual=False)]
        if info.framework == "torch" or info.family not in ("trees", "other"):
            return ()
        large = info.framework == "sklearn" and sum(f.size for f in info.files.values()) > _LARGE
        return [Suggestion(_step({"estimator": "hist_gradient_boosting"}), usual=large)]

    def order_problem(self, config: DistillConfig, before: Sequence[StepConfig]) -> str | None:
        """A student would not have what was removed; layers of a student can be dropped again."""
        encoder = config.student.kind in ("encoder", None)
        return trains_anew(
            self.name, [s for s in before if not (encoder and s.technique == self.name)]
        )

    def refusal(self, info: ModelInfo, config: DistillConfig, target: Target) -> str | None:
        """Why no such student can learn from this model, or None."""
        if info.framework == "onnx":
            return "distill works on the trained model, and this one is only there as ONNX"
        if info.score_kind == "label":
            return "the model puts out labels only, which teach no more than those of the data"
        chosen = usual_student(info, config)
        if chosen is None:
            return "distill needs to be told which student to train for this model"
        table = all(len(spec.shape) == 2 for spec in info.inputs) and info.tokenizer is None
        if config.augment and not table:
            return "augment makes rows of tables, and this model takes none"
        if chosen.kind == "estimator":
            return _estimator_problem(info, config, chosen, table=table)
        if info.framework != "torch":
            return f"a {info.framework} model has no layers: name the student's estimator"
        if chosen.kind == "module":
            inner = config.pairs or not config.loss.attention or info.family == "cnn"
            return None if inner else "attention of feature maps is for convolutional networks"
        if info.builder != _ENCODER:
            return "layers, width and ffn are for encoders of transformers as they were brought"
        if config.pairs:
            return "the layers of encoders are paired by their positions: leave out pairs"
        return _encoders.problem(info.builder_arguments["config"], chosen)

    def apply(self, source: Path, out: Path, config: DistillConfig, context: Context) -> ModelInfo:
        """Trains student and control; see `DistillConfig`."""
        info = directory.read(source)
        refused = self.refusal(info, config, context.target)
        if refused:
            raise NotApplicable(refused)
        student = usual_student(info, config)
        full = config.model_copy(update={"student": student})
        with directory.writing(out) as partial:
            teacher = load_trainable(source, info)
            if student is not None and student.kind == "estimator":
                from trimgate.techniques.distill._estimators import distill_estimator

                model, changed, notes = distill_estimator(teacher, info, full, context)
            else:
                from trimgate.techniques.distill._modules import distill_module

                model, changed, notes = distill_module(teacher, info, full, context)
            fields = ("inputs", "framework", "family", "score_kind", "builder", "builder_arguments")
            made = child(
                info,
                config,
                outputs=(),
                score_output=None,
                runtime=RuntimeChoice(),
                notes={"distill": notes},
                **{name: getattr(changed, name) for name in fields},
            )
            save_trainable(model, partial, made)
            return directory.seal(partial, made)


def usual_student(info: ModelInfo, config: DistillConfig) -> Student | None:
    """The student that is asked for, or the usual one for the model, if there is one."""
    if config.student.kind is not None:
        return config.student
    if info.builder == _ENCODER:
        layers = _encoders.layer_count(info.builder_arguments["config"]) or 0
        return Student(layers=layers // 2, start=config.student.start) if layers > 1 else None
    if info.framework == "torch":
        return None
    return Student(estimator="hist_gradient_boosting")


def _step(student: dict[str, Any]) -> dict[str, Any]:
    return {"technique": "distill", "student": student}


def _estimator_problem(
    info: ModelInfo, config: DistillConfig, student: Student, *, table: bool
) -> str | None:
    if not table:
        return f"{student.estimator} is for models of tables, and this one takes none"
    if config.loss.inside:
        return "an estimator has no inside to compare: leave out loss.hidden and loss.attention"
    if student.estimator == "same" and info.framework != "sklearn":
        return f"student.estimator=same is for scikit-learn models, not for {info.framework}"
    if student.estimator == "logistic_regression" and info.task == "regression":
        return "logistic_regression is for classifiers, and the model is a regressor"
    if student.estimator == "ridge" and info.task != "regression":
        return "ridge is for regressors, and the model is a classifier"
    return None
