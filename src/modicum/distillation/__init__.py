"""Can a few synthetic samples replace the data?

A *distiller* makes a small training set: inputs that were never recorded but computed, such that a model trained on
them does nearly as well as one trained on all data.
"""

from modicum.data.siamese import Transforms, apply_dsa, draw_dsa, parse_strategy
from modicum.distillation.distilled import Distilled, Snapshot, evaluation_recipe
from modicum.distillation.dm import DM, class_means, dm_loss
from modicum.distillation.teacher import Teacher, TeacherLoss
from modicum.distillation.whitening import Whitening, whitened, zca

__all__ = [
    "DM",
    "Distilled",
    "Snapshot",
    "Teacher",
    "TeacherLoss",
    "Transforms",
    "Whitening",
    "apply_dsa",
    "class_means",
    "dm_loss",
    "draw_dsa",
    "evaluation_recipe",
    "parse_strategy",
    "whitened",
    "zca",
]
