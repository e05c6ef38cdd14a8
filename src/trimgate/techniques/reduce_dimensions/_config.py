"""The parameters of a reduce_dimensions step."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from trimgate.techniques._base import StepConfig
from trimgate.training import FinetuneConfig

_PICTURES = ("tsne", "t-sne", "t_sne")


class ReduceDimensionsConfig(StepConfig):
    """How many components stand in for the columns that the last estimator looks at.

    Attributes:
        method: `pca` (principal components), or `truncated_svd`, which does not center and so
            takes the sparse columns of one-hot encoders and texts as they are; `auto` is
            `truncated_svd` where the columns are sparse. t-SNE is no stage of a model, as it has
            no formula for a new row: it is a picture (`picture`).
        components: How many components: a number, the share of the variance (of the training
            rows) that they explain together, or `auto`, the fewest on a geometric grid with
            which the newly trained model's primary metric on the validation rows is within
            `tolerance` of the model's.
        whiten: Whether each component gets variance 1, for estimators that a common scale
            helps; `pca` only.
        tolerance: By how much that metric may get worse: absolute, but a share of the metric
            for the errors of a regression.
        confidence: With which one-sided confidence `tolerance` must hold, by a paired bootstrap
            of the validation rows; None looks at the plain difference, which is chance where
            few rows decide.
        finetune: How a torch module, which is not trained from nothing, gets used to the
            components.
        picture: Whether the card shows the validation rows by t-SNE of the components, with the
            rows that the two models answer differently.
    """

    technique: Literal["reduce_dimensions"] = "reduce_dimensions"
    method: Literal["auto", "pca", "truncated_svd"] = "auto"
    components: (
        Annotated[int, Field(ge=1, strict=True)]
        | Annotated[float, Field(gt=0, lt=1, strict=True)]
        | Literal["auto"]
    ) = "auto"
    whiten: bool = False
    tolerance: float = Field(default=0.005, ge=0)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] | None = 0.9
    finetune: FinetuneConfig = FinetuneConfig()
    picture: bool = False

    @field_validator("method", mode="before")
    @classmethod
    def _no_picture(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lower() in _PICTURES:
            raise PydanticCustomError(
                "picture_as_stage",
                "t-SNE places the rows at hand and has no formula for a new one, so it cannot be a "
                "stage of a served model; take pca, and picture: true for the card",
            )
        return value

    def title(self) -> str:
        """The step in a few words."""
        name = "SVD" if self.method == "truncated_svd" else "PCA"
        if self.components == "auto":
            return name
        if isinstance(self.components, int):
            return f"{name} {self.components}"
        return f"{name} {self.components:.0%}"
