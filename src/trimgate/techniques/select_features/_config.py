"""The parameters of a select_features step."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trimgate.techniques._base import StepConfig
from trimgate.training import FinetuneConfig

Method = Literal[
    "permutation",
    "model",
    "shap",
    "l1",
    "mutual_information",
    "anova",
    "variance",
    "correlation",
    "rfe",
    "forward",
    "backward",
]


class SelectFeaturesConfig(StepConfig):
    """Which features the model may keep looking at.

    Every method learns from the training rows alone; which of its sets is kept is decided on the
    validation rows. With n features, `auto` trains the model about log n times besides what the
    method itself takes.

    Attributes:
        method: How features are ranked or searched. Filters look at the rows and at no model, in
            seconds: `mutual_information` and `anova` (F test: what means or a straight line
            show) rank by what a feature says about the label, `variance` by how much it varies
            on a scale of its own, `correlation` drops one of each pair that say the same.
            Embedded methods ask one model: `permutation`, by how much the loss rises when a
            feature's values are shuffled (three trainings, n passes over the rows; works for
            every model); `model`, its own importances or coefficients (free); `shap`, mean
            absolute SHAP values of tree ensembles and linear models (seconds); `l1`, how early a
            feature enters a linear model under a falling L1 penalty (seconds; says nothing of
            the model itself). Wrappers train the model again and again: `rfe` drops the least
            important features, asks again, and stops early once it gets worse (about 12 log n
            trainings), `forward` adds and `backward` drops the one feature that pays most (up to
            30 trainings a step: hundreds).
        keep: How many features to keep: a number, a share between 0 and 1, or `auto`, the
            cheapest set that is found with which the newly trained model's primary metric on the
            validation rows is within `tolerance` of the model's.
        budget: In place of `keep`: what the kept features may cost together.
        costs: What a feature costs, in any unit; those that pay more for their cost are kept.
        default_cost: What a feature costs that `costs` does not name.
        tolerance: By how much that metric may get worse: absolute, but a share of the metric
            for the errors of a regression.
        confidence: With which one-sided confidence `tolerance` must hold, by a paired bootstrap
            of the validation rows; None looks at the plain difference, which is chance where
            few rows decide.
        max_correlation: Of two features that are associated more than this, the one that pays
            less is dropped before anything else (rank correlation, Cramér's V, correlation
            ratio); None keeps both. `correlation` takes 0.95 for None.
        parameters: Hyper-parameters to train a booster again with, for one whose file does not
            say them (XGBoost), under the names that `xgboost.train` or `lightgbm.train` takes.
        finetune: How a torch module, which is not trained from nothing, gets used to missing
            features.
        picture: Whether the card shows the validation rows by t-SNE of the kept features, with
            the rows that the two models answer differently.
    """

    technique: Literal["select_features"] = "select_features"
    method: Method = "permutation"
    keep: (
        Annotated[int, Field(ge=1, strict=True)]
        | Annotated[float, Field(gt=0, lt=1, strict=True)]
        | Literal["auto"]
    ) = "auto"
    budget: float | None = Field(default=None, gt=0)
    costs: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    default_cost: float = Field(default=1.0, ge=0)
    tolerance: float = Field(default=0.005, ge=0)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] | None = 0.9
    max_correlation: Annotated[float, Field(gt=0, lt=1)] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    finetune: FinetuneConfig = FinetuneConfig()
    picture: bool = False

    @model_validator(mode="after")
    def _one_limit(self) -> "SelectFeaturesConfig":
        if self.budget is not None and self.keep != "auto":
            raise ValueError("give either `keep` or `budget`, not both")
        return self

    def cost(self, name: str) -> float:
        """What a feature costs."""
        return self.costs.get(name, self.default_cost)

    @property
    def needs_torch_image(self) -> bool:
        """SHAP is in that image."""
        return self.method == "shap"

    def title(self) -> str:
        """The step in a few words."""
        if self.budget is not None:
            return f"features for {self.budget:g}"
        if self.keep == "auto":
            usual = self.method == "permutation"
            return "select features" + ("" if usual else f", {self.method.replace('_', ' ')}")
        if isinstance(self.keep, int):
            return f"{self.keep} features"
        return f"{self.keep:.0%} of the features"
