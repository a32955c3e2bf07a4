"""Where data comes from and goes to: readers, writers, built-in sets, augmentation, label noise."""

from modicum.data.augment import (
    Augment,
    Color,
    Crop,
    Cutout,
    Draw,
    Flip,
    Mixup,
    make_augment,
    mixed_loss,
    mixed_targets,
)
from modicum.data.huggingface import to_huggingface
from modicum.data.images import QuarantineWarning
from modicum.data.load import load, standardized, verify
from modicum.data.mixture import concatenate
from modicum.data.noise import corrupt_labels
from modicum.data.overlap import Overlap, Shared, overlap
from modicum.data.parting import split
from modicum.data.save import save, to_torch
from modicum.data.text import decode

__all__ = [
    "Augment",
    "Color",
    "Crop",
    "Cutout",
    "Draw",
    "Flip",
    "Mixup",
    "Overlap",
    "QuarantineWarning",
    "Shared",
    "concatenate",
    "corrupt_labels",
    "decode",
    "load",
    "make_augment",
    "mixed_loss",
    "mixed_targets",
    "overlap",
    "save",
    "split",
    "standardized",
    "to_huggingface",
    "to_torch",
    "verify",
]
