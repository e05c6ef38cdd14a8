"""The parameters of a prune step."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimgate.techniques._base import StepConfig
from trimgate.training import FinetuneConfig

TREE_METHODS = ("trees", "depth", "cost_complexity")
Share = Annotated[float, Field(gt=0, lt=1)]

# What ranks the parts that a method removes; the first is the usual one.
IMPORTANCES: dict[str, tuple[str, ...]] = {
    "channels": ("magnitude", "l1", "taylor", "fpgm", "batch_norm", "random"),
    "weights": ("magnitude", "taylor", "random"),
    "heads": ("taylor", "magnitude", "l1", "random"),
    "ffn": ("taylor", "magnitude", "l1", "random"),
    "heads_and_ffn": ("taylor", "magnitude", "l1", "random"),
    "layers": ("loss", "random"),
}
# Parameters that only some methods look at.
_ONLY: dict[str, tuple[str, ...]] = {
    "max_loss_rise": TREE_METHODS,
    "order": ("trees",),
    "refit": ("trees",),
    "depths": ("trees", "depth"),
    "depth": ("depth",),
    "alpha": ("cost_complexity",),
    "pattern": ("weights",),
    "scope": ("channels", "weights", "heads", "ffn", "heads_and_ffn"),
    "ratios": ("channels", "weights", "heads", "ffn", "heads_and_ffn"),
    "importance": tuple(IMPORTANCES),
    "round_to": ("channels", "ffn", "heads_and_ffn"),
    "schedule": tuple(IMPORTANCES),
    "amount": ("trees", *IMPORTANCES),
    "amounts": tuple(IMPORTANCES),
    "finetune": tuple(IMPORTANCES),
}


class Schedule(BaseModel):
    """Removing bit by bit, with training in between, instead of all at once.

    After step t of n the share amount * (1 - (1 - t / n)^3) is removed, which takes most of it
    while much is left (Zhu and Gupta, 2017, arXiv:1710.01878).

    Attributes:
        steps: In how many steps.
        epochs: Passes over the training rows after each but the last, which is followed by the
            whole of `finetune`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    steps: int = Field(ge=2, le=100)
    epochs: int = Field(default=1, ge=1)

    def shares(self, amount: float) -> list[float]:
        """The share that is gone after each step."""
        return [amount * (1 - (1 - t / self.steps) ** 3) for t in range(1, self.steps + 1)]


class PruneConfig(StepConfig):
    """How to prune.

    Attributes:
        method: For tree models: `trees` keeps fewer trees of an ensemble, `depth` makes
            leaves of what lies deeper, `cost_complexity` cuts the branches that gain the
            least. For torch modules: `channels` removes structured channels of convolutional
            and dense networks; `weights` sets single weights to zero, which shrinks the
            compressed file and not the latency; `heads`, `ffn` (or both, `heads_and_ffn`)
            and whole `layers` are those of transformer encoders, and `layers` also the
            residual blocks of a network that keep its shape. `auto` takes what fits the model.
        amount: Share of the trees, channels, weights, heads, neurons or layers to remove;
            `auto` removes as much as leaves the primary metric on the validation split within
            `tolerance`.
        tolerance: By how much that metric may get worse: absolute, but a share of the metric
            for the errors of a regression.
        confidence: With which one-sided confidence `tolerance` must hold, by a paired bootstrap
            of the validation rows; None looks at the plain difference, which is chance where
            few rows decide.
        max_loss_rise: For boosted classifiers with `amount: auto`: by which share the log loss
            on the validation rows may rise. Boosting that is cut short keeps its ranking long
            after its probabilities shrank towards the base rate, so that ROC AUC or average
            precision alone would let decisions at a threshold go wrong.
        order: For forests: `greedy` keeps the trees that complement each other best on half of
            the validation rows (how many are enough is decided on the other half), `first` the
            first ones. Boosted trees are always cut at the end.
        refit: For trees: also train shallower ensembles (with else the same
            hyper-parameters) on the training rows, and take the cheapest that is good enough.
        depths: The depths that `refit` tries, and `depth: auto` where trees are trained again.
        depth: For `depth`: levels to keep; `auto` the fewest that are good enough. Trees of
            scikit-learn are cut where they stand, those of HistGradientBoosting, XGBoost and
            LightGBM are trained again.
        alpha: For `cost_complexity`: the rise of impurity per leaf below which a branch goes
            (`ccp_alpha` of scikit-learn, on the fitted trees); `auto` the largest that is good
            enough.
        amounts: For torch modules: the shares that `auto` tries, from the largest on.
        pattern: For `weights`: `2:4` leaves 2 of each 4 weights along a layer's inputs, in
            place of an amount.
        scope: `layer` removes the same share of each layer, `global` ranks the parts of all
            layers together.
        ratios: Shares for single layers, by name, in place of `amount`; with `amount: auto`
            nothing is removed from the others.
        importance: `magnitude` (L2 norm) or `l1` of the weights; `taylor`, the first-order
            effect on the loss of training rows; `fpgm`, the distance from the other channels;
            `batch_norm`, the scale of that layer (network slimming); `loss`, that of training
            rows without the layer; `random`, as a control. `auto` takes magnitude for channels
            and weights, taylor for heads and neurons, loss for layers.
        round_to: A layer keeps a multiple of so many channels or neurons, as engines compute in
            blocks; relaxed to 8, 4 and 1 for a layer that has too few.
        schedule: For torch modules: remove in steps, with training in between.
        finetune: For torch modules: the training that recovers the accuracy, with the unpruned
            module as the teacher.
    """

    technique: Literal["prune"] = "prune"
    method: Literal[
        "auto", "trees", "depth", "cost_complexity", "channels", "weights", "heads", "ffn",
        "heads_and_ffn", "layers",
    ] = "auto"  # fmt: skip
    amount: Share | Literal["auto"] = "auto"
    tolerance: float = Field(default=0.005, ge=0)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] | None = 0.9
    max_loss_rise: float = Field(default=0.02, ge=0)
    order: Literal["greedy", "first"] = "greedy"
    refit: bool = False
    depths: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(3, 4, 6), min_length=1)
    depth: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    alpha: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    amounts: tuple[Share, ...] = Field(default=(0.7, 0.5, 0.3), min_length=1)
    pattern: Annotated[str, Field(pattern=r"^[1-9][0-9]?:[1-9][0-9]?$")] | None = None
    scope: Literal["layer", "global"] = "layer"
    ratios: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)
    importance: Literal[
        "auto", "magnitude", "l1", "taylor", "fpgm", "batch_norm", "loss", "random"
    ] = "auto"
    round_to: Literal[1, 4, 8, 16] = 16
    schedule: Schedule | None = None
    finetune: FinetuneConfig = FinetuneConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> "PruneConfig":
        if self.pattern is not None:
            kept, group = self.kept_of
            if kept >= group:
                raise ValueError(f"pattern {self.pattern} removes nothing; write fewer:more")
            if self.amount != "auto" or self.ratios or self.scope == "global":
                raise ValueError(
                    "pattern says how much goes where: leave out amount, ratios, scope"
                )
        if self.ratios and self.scope == "global":
            raise ValueError("ratios say how much goes where: leave out scope")
        if self.method == "auto":
            return self
        for name, methods in _ONLY.items():
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if self.method not in methods and getattr(self, name) != default:
                raise ValueError(
                    f"{name} is not for method {self.method}, but for {', '.join(methods)}"
                )
        allowed = IMPORTANCES.get(self.method, ())
        if self.importance != "auto" and self.importance not in allowed:
            raise ValueError(
                f"importance {self.importance} cannot rank {self.method}; use {', '.join(allowed)}"
            )
        return self

    @property
    def kept_of(self) -> tuple[int, int]:
        """The two numbers of `pattern`."""
        kept, _, group = (self.pattern or "0:1").partition(":")
        return int(kept), int(group)

    def title(self) -> str:
        """The step in a few words."""
        words = "prune" if self.method == "auto" else f"prune {self.method.replace('_', ' ')}"
        if self.pattern:
            words += f" {self.pattern}"
        elif self.depth != "auto":
            words += f" {self.depth}"
        elif self.amount != "auto":
            words += f" {self.amount:.0%}"
        return words + (" (refit)" if self.refit else "") + (" gradually" if self.schedule else "")
