"""Select features: the model is trained again on those that matter."""

from trimgate.techniques.select_features._config import SelectFeaturesConfig
from trimgate.techniques.select_features._technique import SelectFeatures

TECHNIQUE = SelectFeatures()

__all__ = ["TECHNIQUE", "SelectFeatures", "SelectFeaturesConfig"]
