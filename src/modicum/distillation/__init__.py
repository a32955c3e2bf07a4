"""Can a few synthetic samples replace the data?

A *distiller* makes a small training set: inputs that were never recorded but computed, such that a model trained on
them does nearly as well as one trained on all data.
"""

from modicum.distillation.dm import DM, class_means, dm_loss
from modicum.distillation.dsa import Transforms, apply_dsa, draw_dsa, parse_strategy

__all__ = ["DM", "Transforms", "apply_dsa", "class_means", "dm_loss", "draw_dsa", "parse_strategy"]
