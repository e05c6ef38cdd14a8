"""Prune: fewer and shallower trees, or fewer channels of a torch module."""

from trimgate.techniques.prune._config import PruneConfig
from trimgate.techniques.prune._ensembles import find as find_ensemble
from trimgate.techniques.prune._rebuild import rebuild
from trimgate.techniques.prune._technique import Prune

TECHNIQUE = Prune()

__all__ = ["TECHNIQUE", "Prune", "PruneConfig", "find_ensemble", "rebuild"]
