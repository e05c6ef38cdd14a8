"""The parameters of a distill step."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimgate.techniques._base import StepConfig

Share = Annotated[float, Field(gt=0, lt=1)]
Position = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Kind = Literal["encoder", "module", "estimator"]

# Which parameters belong to which kind of student.
_KINDS: dict[Kind, tuple[str, ...]] = {
    "encoder": ("layers", "width", "ffn"),
    "module": ("builder", "arguments"),
    "estimator": ("estimator", "parameters"),
}
# What decides how a torch module learns, and an estimator does not look at.
_FOR_MODULES = (
    "temperature",
    "epochs",
    "learning_rate",
    "batch_size",
    "weight_decay",
    "patience",
    "pairs",
)


class Student(BaseModel):
    """The smaller model; of one of three kinds.

    Attributes:
        layers: Of a transformer encoder: how many layers to keep, spread evenly, or which ones,
            counted from 0.
        width: Of a transformer encoder: the share of the hidden size, heads and FFN to keep.
        ffn: Of a transformer encoder: the share of the FFN alone to keep.
        builder: Of a torch module: `package.module:function` that makes the student; left out,
            the teacher's own builder.
        arguments: Of a torch module: keyword arguments for the builder; those that are left out
            are the teacher's where the builder is (`{width: 16}`).
        estimator: Of a table's model: the student's kind in scikit-learn; `same` takes the
            teacher's own. The teacher's preprocessing stays before it.
        parameters: Of a table's model: parameters of the estimator.
        start: Whether a torch student begins with the teacher's weights, as far as they fit, or
            with random ones; `auto` takes the teacher's for encoders and random ones for
            modules.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    layers: (
        Annotated[int, Field(ge=1)] | Annotated[tuple[Position, ...], Field(min_length=1)] | None
    ) = None
    width: Share | None = None
    ffn: Share | None = None
    builder: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    arguments: dict[str, Any] = Field(default_factory=dict)
    estimator: (
        Literal[
            "hist_gradient_boosting",
            "random_forest",
            "gradient_boosting",
            "decision_tree",
            "logistic_regression",
            "ridge",
            "mlp",
            "same",
        ]
        | None
    ) = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    start: Literal["auto", "teacher", "random"] = "auto"

    @property
    def kind(self) -> Kind | None:
        """What the student is; None where nothing says."""
        given = (kind for kind, names in _KINDS.items() if any(getattr(self, n) for n in names))
        return next(given, None)

    @model_validator(mode="after")
    def _fits_together(self) -> "Student":
        given = [k for k, names in _KINDS.items() if any(getattr(self, n) for n in names)]
        if len(given) > 1:
            names = " or ".join("/".join(_KINDS[kind]) for kind in given)
            raise ValueError(f"a student is of one kind: give {names}")
        if self.parameters and self.estimator is None:
            raise ValueError("parameters are those of an estimator: name it")
        if isinstance(self.layers, tuple) and list(self.layers) != sorted(set(self.layers)):
            raise ValueError("layers are positions in rising order")
        if self.width is not None and self.ffn is not None:
            raise ValueError("width narrows the FFN too: leave out ffn")
        if self.estimator is not None and self.start != "auto":
            raise ValueError("an estimator always starts from nothing: leave out start")
        return self

    def title(self) -> str:
        """The student in a few words."""
        if self.estimator:
            return self.estimator.replace("_", " ")
        words = []
        if self.layers is not None:
            count = self.layers if isinstance(self.layers, int) else len(self.layers)
            words.append(f"{count} layer{'s' * (count != 1)}")
        if self.width is not None:
            words.append(f"width {self.width:.0%}")
        if self.ffn is not None:
            words.append(f"FFN {self.ffn:.0%}")
        if self.builder:
            words.append(self.builder.rpartition(":")[2])
        words += [f"{name} {value}" for name, value in self.arguments.items()]
        return ", ".join(words)


class LossWeights(BaseModel):
    """How much the student learns from what; at least one is above 0.

    Attributes:
        logits: The teacher's output.
        hidden: The teacher's hidden states or feature maps.
        attention: Where the teacher looks: attention weights of an encoder, places of a feature
            map.
        labels: The labels. The control learns from them alone, whatever this says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    logits: Weight = 1.0
    hidden: Weight = 0.0
    attention: Weight = 0.0
    labels: Weight = 0.5

    @model_validator(mode="after")
    def _something(self) -> "LossWeights":
        if not (self.logits or self.hidden or self.attention or self.labels):
            raise ValueError("the student must learn from something")
        return self

    @property
    def inside(self) -> bool:
        """Whether what happens inside the teacher counts."""
        return bool(self.hidden or self.attention)


class DistillConfig(StepConfig):
    """How to distill.

    Attributes:
        student: The smaller model. Of a transformer encoder: `{layers: 3}` or
            `{layers: [0, 2, 4]}`, `{width: 0.5}` (hidden size, heads and FFN), `{ffn: 0.5}`. Of
            another torch module: `{builder: "package.module:function", arguments: {...}}`, or
            `arguments` alone for the teacher's builder. Of a model of a table: `{estimator: name,
            parameters: {...}}`, with `hist_gradient_boosting`, `random_forest`,
            `gradient_boosting`, `decision_tree`, `logistic_regression`, `ridge`, `mlp`, or
            `same`. Left out: half of an encoder's layers, `hist_gradient_boosting` of a table.
        loss: Weights of what the student learns from.
        temperature: Softens the outputs of both torch modules. Estimators learn the teacher's
            probabilities as they are.
        epochs: Of a torch student and its control: passes over the training rows.
        learning_rate: Of AdamW at the start; falls to 0 along a cosine. None takes 5e-5 for
            an encoder that begins with whole layers of the teacher, 5e-4 for another module with
            attention, and else 1e-3.
        batch_size: Rows per step.
        weight_decay: Of AdamW.
        patience: Stops after so many epochs without a better loss on held-out training rows.
        pairs: Of torch modules that are no encoders of `transformers`: names of layers, the
            student's and the teacher's, whose outputs are compared by `hidden` and `attention`.
            Left out: the last feature map of each resolution, or what enters the last layer.
        unlabeled: A file of rows (Parquet, CSV or `.npz`) with the model's features; the
            teacher's answers are their labels.
        augment: Rows to make of the training rows of a table, which the teacher labels too
            (MUNGE: Bucila et al., 2006, Model Compression).
        keep: `better` takes the control where the primary metric on the validation rows prefers
            it (it is the same model, trained on labels alone); `student` never does.
    """

    technique: Literal["distill"] = "distill"
    student: Student = Student()
    loss: LossWeights = LossWeights()
    temperature: float = Field(default=2.0, gt=0)
    epochs: int = Field(default=8, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=32, ge=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    patience: int = Field(default=8, ge=1)
    pairs: tuple[tuple[str, str], ...] = ()
    unlabeled: Path | None = None
    augment: int = Field(default=0, ge=0)
    keep: Literal["better", "student"] = "better"

    @model_validator(mode="after")
    def _fits_together(self) -> "DistillConfig":
        if (self.unlabeled or self.augment) and not (self.loss.logits or self.loss.inside):
            raise ValueError("rows without labels teach nothing unless the teacher is learnt from")
        if self.pairs and not self.loss.inside:
            raise ValueError("pairs are for loss.hidden and loss.attention: give one a weight")
        if self.student.kind == "estimator":
            if self.loss.inside:
                raise ValueError("an estimator has no inside: leave out hidden and attention")
            for name in _FOR_MODULES:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} has no effect on an estimator: leave it out")
        return self

    def title(self) -> str:
        """The step in a few words."""
        return f"distill {self.student.title()}".rstrip()
