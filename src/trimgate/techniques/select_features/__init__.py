"""Select features: the model is trained again on those that pay for what they cost."""

from trimgate.techniques.select_features._config import SelectFeaturesConfig
from trimgate.techniques.select_features._masked import build_masked
from trimgate.techniques.select_features._technique import SelectFeatures

TECHNIQUE = SelectFeatures()

__all__ = ["TECHNIQUE", "SelectFeatures", "SelectFeaturesConfig", "build_masked"]
