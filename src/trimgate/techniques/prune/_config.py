"""The parameters of a prune step."""

from typing import Annotated, Literal

from pydantic import Field

from trimgate.techniques._base import StepConfig
from trimgate.training import FinetuneConfig


class PruneConfig(StepConfig):
    """How to prune.

    Attributes:
        method: `trees` keeps fewer (and shallower) trees of an ensemble, `channels` removes
            structured channels of a torch module; `auto` takes what fits the model.
        amount: Share of the trees or channels to remove; `auto` removes as much as leaves the
            primary metric on the validation split within `tolerance`.
        tolerance: By how much that metric may get worse: absolute, but a share of the metric
            for the errors of a regression.
        max_loss_rise: For boosted classifiers with `amount: auto`: by which share the log loss
            on the validation rows may rise. Boosting that is cut short keeps its ranking long
            after its probabilities shrank towards the base rate, so that ROC AUC or average
            precision alone would let decisions at a threshold go wrong.
        order: For forests: `greedy` keeps the trees that complement each other best on the
            validation rows, `first` the first ones. Boosted trees are always cut at the end.
        refit: For trees: also train shallower ensembles (with else the same
            hyper-parameters) on the training rows, and take the cheapest that is good enough.
        depths: The depths that `refit` tries.
        amounts: For channels: the shares that `auto` tries, from the largest on.
        scope: For channels: `layer` removes the same share of each layer, `global` ranks the
            channels of all layers together.
        importance: For channels: `magnitude` of the weights, or `taylor`, the first-order
            effect on the loss of training rows.
        round_to: For channels: a layer keeps a multiple of so many, as engines compute in
            blocks; relaxed to 8, 4 and 1 for a layer that has too few.
        finetune: For channels: the training that recovers the accuracy, with the unpruned
            module as the teacher.
    """

    technique: Literal["prune"] = "prune"
    method: Literal["auto", "trees", "channels"] = "auto"
    amount: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = "auto"
    tolerance: float = Field(default=0.005, ge=0)
    max_loss_rise: float = Field(default=0.02, ge=0)
    order: Literal["greedy", "first"] = "greedy"
    refit: bool = False
    depths: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(3, 4, 6), min_length=1)
    amounts: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.7, 0.5, 0.3), min_length=1
    )
    scope: Literal["layer", "global"] = "layer"
    importance: Literal["magnitude", "taylor"] = "magnitude"
    round_to: Literal[1, 4, 8, 16] = 16
    finetune: FinetuneConfig = FinetuneConfig()

    def title(self) -> str:
        """The step in a few words."""
        words = "prune" if self.method == "auto" else f"prune {self.method}"
        share = "" if self.amount == "auto" else f" {self.amount:.0%}"
        return f"{words}{share}" + (" (refit)" if self.refit else "")
