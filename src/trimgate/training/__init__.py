"""Training that techniques need: fine-tuning of torch modules, refitting of estimators.

Everything here is seeded and runs on one machine. It knows nothing of recipes.
"""

from trimgate.training._estimators import (
    estimator_scores,
    estimator_table,
    fit,
    seeded_clone,
    training_labels,
)
from trimgate.training._finetune import FinetuneConfig, FinetuneReport, finetune, module_scores
from trimgate.training._losses import distillation_loss, label_loss
from trimgate.training._measure import Measure

__all__ = [
    "FinetuneConfig",
    "FinetuneReport",
    "Measure",
    "distillation_loss",
    "estimator_scores",
    "estimator_table",
    "finetune",
    "fit",
    "label_loss",
    "module_scores",
    "seeded_clone",
    "training_labels",
]
