"""Can a few synthetic samples replace the data?

A *distiller* makes a small training set: inputs that were never recorded but computed, such that a model trained on
them does nearly as well as one trained on all data.
"""

from modicum.data.siamese import Transforms, apply_dsa, draw_dsa, parse_strategy
from modicum.distillation.distilled import Distilled, Snapshot, evaluation_recipe
from modicum.distillation.dm import DM, class_means, dm_loss
from modicum.distillation.evaluate import (
    ARCHITECTURES,
    Trials,
    augmentation_robust_score,
    best_snapshot,
    controls,
    cross_architecture,
    label_robust_score,
    random_real,
    robust_scores,
    train_and_test,
)
from modicum.distillation.teacher import Teacher, TeacherLoss
from modicum.distillation.unroll import Unrolled, flat_network, unrolled_gradient
from modicum.distillation.whitening import Whitening, whitened, zca

__all__ = [
    "unrolled_gradient",
    "flat_network",
    "Unrolled",
    "ARCHITECTURES",
    "Trials",
    "augmentation_robust_score",
    "best_snapshot",
    "controls",
    "cross_architecture",
    "label_robust_score",
    "random_real",
    "robust_scores",
    "train_and_test",
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
