"""Models: the user's files, the model directory, and the export to ONNX."""

from trimgate.models._import import import_model
from trimgate.models._inputs import build_inputs, sample_rows
from trimgate.models._load import load_user_model
from trimgate.models._match import feature_names
from trimgate.models._native import predict_native
from trimgate.models._published import is_published
from trimgate.models._skops import own_process
from trimgate.models._text import folder_files, text_feature
from trimgate.models._tokenizer import copy_tokenizer, trim
from trimgate.models._trainable import load_trainable, save_trainable
from trimgate.models.export import export_onnx
from trimgate.models.scores import to_scores
from trimgate.models.source import ModelSource

__all__ = [
    "ModelSource",
    "build_inputs",
    "copy_tokenizer",
    "export_onnx",
    "feature_names",
    "folder_files",
    "import_model",
    "is_published",
    "load_trainable",
    "load_user_model",
    "own_process",
    "predict_native",
    "sample_rows",
    "save_trainable",
    "text_feature",
    "to_scores",
    "trim",
]
