"""The parameters of a select_features step."""

from typing import Annotated, Any, Literal

from pydantic import Field

from trimgate.techniques._base import StepConfig


class SelectFeaturesConfig(StepConfig):
    """Which features the model may keep looking at.

    Attributes:
        method: `importance` ranks the features by what the model makes of them,
            `mutual_information` by what they say about the label alone (on the training rows).
        importance: How `importance` is measured: `permutation`, by how much the loss on the
            validation rows rises when a feature's values are shuffled (works for every model),
            or `model`, the model's own importances or coefficients.
        keep: How many features to keep: a number, a share between 0 and 1, or `auto`, the
            smallest set on a geometric grid with which the newly trained model's primary metric
            on the validation rows is within `tolerance` of the model's.
        tolerance: By how much that metric may get worse: absolute, but a share of the metric
            for the errors of a regression.
        parameters: Hyper-parameters to train a booster again with, for one whose file does not
            say them (XGBoost), under the names that `xgboost.train` or `lightgbm.train` takes.
    """

    technique: Literal["select_features"] = "select_features"
    method: Literal["importance", "mutual_information"] = "importance"
    importance: Literal["permutation", "model"] = "permutation"
    keep: (
        Annotated[int, Field(ge=1, strict=True)]
        | Annotated[float, Field(gt=0, lt=1, strict=True)]
        | Literal["auto"]
    ) = "auto"
    tolerance: float = Field(default=0.005, ge=0)
    parameters: dict[str, Any] = Field(default_factory=dict)

    def title(self) -> str:
        """The step in a few words."""
        if self.keep == "auto":
            return "select features"
        if isinstance(self.keep, int):
            return f"{self.keep} features"
        return f"{self.keep:.0%} of the features"
