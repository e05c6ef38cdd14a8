"""What a user says about the model that they bring."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trimgate.models.directory import ScoreKind, Task


class ModelSource(BaseModel):
    """A user's model file.

    The suffix says what it is: `.skops`, `.joblib`, `.pkl`, `.pickle` (scikit-learn, also with an
    XGBoost or LightGBM estimator), `.json`, `.ubj` (XGBoost), `.txt` (LightGBM), `.safetensors`,
    `.pt`, `.pth` (torch weights; they need `builder`), `.onnx`. A folder is what `transformers`
    writes of a text classifier and its tokenizer, or a model directory of trimgate.

    Attributes:
        path: The file or folder.
        name: The model's name; the file's stem if it is empty.
        task: Needed where the file does not tell (torch, ONNX); else it must agree with it.
        builder: For torch weights: `package.module:function` that makes the module.
        builder_arguments: Keyword arguments for the builder (JSON values).
        allow_pickle: Pickles run code when they are loaded, so they are loaded only when you say
            that you trust the file.
        scores: For torch and ONNX: what the model puts out, where it does not tell.
        score_output: For ONNX: the output that holds the scores, where it does not tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    path: Path
    name: str = ""
    task: Task | None = None
    builder: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    builder_arguments: dict[str, Any] = Field(default_factory=dict)
    allow_pickle: bool = False
    scores: ScoreKind | None = None
    score_output: str | None = None
