"""Training that techniques need: fine-tuning of torch modules, refitting of estimators.

Everything here is seeded and runs on one machine. It knows nothing of recipes.
"""

from trimgate.training._boosters import (
    ROUNDS,
    booster_parameter,
    booster_parameters,
    train_booster,
)
from trimgate.training._columns import ABOUT_COLUMNS, encoded, numbers, refuse_column_parameters
from trimgate.training._estimators import (
    check_classes,
    estimator_scores,
    estimator_table,
    fit,
    seeded_clone,
    training_labels,
)
from trimgate.training._finetune import (
    FinetuneConfig,
    FinetuneReport,
    finetune,
    mask_position,
    module_output,
    module_scores,
)
from trimgate.training._losses import (
    attention_loss,
    attention_transfer_loss,
    distillation_loss,
    hidden_loss,
    label_loss,
)
from trimgate.training._measure import Measure
from trimgate.training._parts import folds
from trimgate.training._picture import PICTURE_ROWS, picture, picture_rows
from trimgate.training._proof import Judged, Proof, grid

__all__ = [
    "ABOUT_COLUMNS",
    "PICTURE_ROWS",
    "ROUNDS",
    "FinetuneConfig",
    "FinetuneReport",
    "Judged",
    "Measure",
    "Proof",
    "attention_loss",
    "attention_transfer_loss",
    "booster_parameter",
    "booster_parameters",
    "check_classes",
    "distillation_loss",
    "encoded",
    "estimator_scores",
    "estimator_table",
    "finetune",
    "fit",
    "folds",
    "grid",
    "hidden_loss",
    "label_loss",
    "mask_position",
    "module_output",
    "module_scores",
    "numbers",
    "picture",
    "picture_rows",
    "refuse_column_parameters",
    "seeded_clone",
    "train_booster",
    "training_labels",
]
