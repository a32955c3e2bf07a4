"""Where data comes from and goes to: readers, writers, built-in sets, augmentation, label noise."""

from modicum.data.augment import Augment, make_augment
from modicum.data.duplicates import Deduplicated, Duplicate, Duplicates, deduplicate, duplicates
from modicum.data.geometry import Blur, Crop, Cutout, Flip, ResizedCrop
from modicum.data.huggingface import to_huggingface
from modicum.data.images import QuarantineWarning
from modicum.data.load import load, standardized, verify
from modicum.data.mixing import CutMix, Draw, Mixup, cutmix, mixed_loss, mixed_targets
from modicum.data.mixture import concatenate
from modicum.data.noise import corrupt_labels
from modicum.data.overlap import Overlap, Shared, overlap
from modicum.data.parting import split
from modicum.data.perceptual import perceptual_hash
from modicum.data.pixels import Color, Gray, Jitter, Pixels, Solarize
from modicum.data.rows import form_of, save_rows
from modicum.data.save import save, to_torch
from modicum.data.siamese import DSA, Transforms, apply_dsa, draw_dsa, parse_strategy
from modicum.data.text import decode
from modicum.data.views import VIEWS, Views, make_views

__all__ = [
    "DSA",
    "VIEWS",
    "Augment",
    "Blur",
    "Color",
    "Crop",
    "CutMix",
    "Cutout",
    "Deduplicated",
    "Draw",
    "Duplicate",
    "Duplicates",
    "Flip",
    "Gray",
    "Jitter",
    "Mixup",
    "Overlap",
    "Pixels",
    "QuarantineWarning",
    "ResizedCrop",
    "Shared",
    "Solarize",
    "Transforms",
    "Views",
    "apply_dsa",
    "concatenate",
    "corrupt_labels",
    "cutmix",
    "decode",
    "deduplicate",
    "draw_dsa",
    "duplicates",
    "form_of",
    "load",
    "make_augment",
    "make_views",
    "mixed_loss",
    "mixed_targets",
    "overlap",
    "parse_strategy",
    "perceptual_hash",
    "save",
    "save_rows",
    "split",
    "standardized",
    "to_huggingface",
    "to_torch",
    "verify",
]
