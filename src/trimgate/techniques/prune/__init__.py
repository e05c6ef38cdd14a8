"""Prune.

A tree model gets fewer trees, shallower ones, or ones with fewer branches. A torch module loses
channels, attention heads, feed-forward neurons or whole layers, which makes it faster, or single
weights, which makes only its compressed file smaller; then it is trained to recover.
"""

from trimgate.techniques.prune._config import PruneConfig
from trimgate.techniques.prune._ensembles import find as find_ensemble
from trimgate.techniques.prune._rebuild import rebuild
from trimgate.techniques.prune._technique import Prune

TECHNIQUE = Prune()

__all__ = ["TECHNIQUE", "Prune", "PruneConfig", "find_ensemble", "rebuild"]
