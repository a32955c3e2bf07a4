"""Augmented views of images, as self-supervised learners ask for them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import torch
from torch import Tensor

from modicum.data.augment import Augment, make_augment
from modicum.dataset import Dataset
from modicum.errors import ModicumError

__all__ = ["VIEWS", "Views", "make_views"]

WEAK = ("resized_crop(scale=(0.2, 1.0))", "jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)")
STRONG = "jitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)"
MILD = "jitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)"
VIEWS: dict[str, tuple[tuple[str, ...], ...]] = {
    "none": ((),),
    "crops": (("resized_crop(scale=(0.3, 1.0))", "crop(padding=1)"),),
    "symmetric": (("resized_crop", STRONG, "gray", "blur", "flip"),),
    "asymmetric": (
        ("resized_crop", MILD, "gray", "flip"),
        ("resized_crop", MILD, "gray", "solarize(p=0.2)", "flip"),
    ),
    "vicreg": (("resized_crop(scale=(0.2, 1.0))", MILD, "gray", "solarize(p=0.1)", "flip"),),
    "weak": ((*WEAK, "gray", "flip"),),
    "npid": (
        (
            "resized_crop(scale=(0.2, 1.0))",
            "jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4, p=1.0)",
            "gray",
        ),
    ),
    "sqrtkl": ((*WEAK, "gray", "flip"),),
    "light": (("resized_crop(scale=(0.5, 1.0))", STRONG, "gray", "flip"),),
}
"""Augmentations by name, a tuple for each view; the last one serves the views that follow.

`none`, and `crops` for digits and other images that must not be mirrored; of images of 32 px as published, without
blur but in `symmetric`: `symmetric` SimCLR, `asymmetric` BYOL, Barlow Twins and DINO, `vicreg`, `weak` MoCo-v2 and
SimSiam, `npid`, `sqrtkl`, and `light` of the first phase of RELA.
"""


@dataclass(frozen=True)
class Views:
    """Makes views of a batch.

    Args:
        augments: Of the first view, the second, ...; the last one serves the views that follow.

    Example:
        >>> import modicum
        >>> data = modicum.load("digits").train
        >>> views = make_views("crops", data)(data.prepare(data.inputs[:5]), 2, torch.Generator().manual_seed(0))
        >>> [tuple(view.shape) for view in views]
        [(5, 1, 8, 8), (5, 1, 8, 8)]
    """

    augments: tuple[Augment, ...]

    def __call__(self, inputs: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
        """So many views (b, *shape), drawn one after the other from the generator."""
        last = len(self.augments) - 1
        return [self.augments[min(i, last)](inputs, generator) for i in range(count)]


def make_views(augment: str | tuple[str, ...], data: Dataset) -> Views:
    """Views from the name of a set in `VIEWS`, or from augmentations by name.

    Args:
        augment: Such as `"symmetric"`, or `("crop(padding=2)", "flip")` for every view.
        data: Images; how they are standardized and stored says what their pixels are.

    Raises:
        ModicumError: The name is unknown, the data are no images, or inputs are to be mixed.

    Example:
        >>> import modicum
        >>> make_views(("crop(padding=2)",), modicum.load("digits").train).augments
        (Augment(operations=(Crop(padding=2),), shape=(1, 8, 8), mixing=None),)
    """
    if isinstance(augment, str) and augment not in VIEWS:
        near = difflib.get_close_matches(augment, VIEWS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ModicumError(
            f"augment={augment!r} is unknown; {hint}expected {', '.join(VIEWS)} or augmentations such as ('flip',)"
        )
    specs = VIEWS[augment] if isinstance(augment, str) else (tuple(augment),)
    shape = tuple(data.inputs.shape[1:])
    made = Views(tuple(make_augment(each, shape, data) for each in specs))
    for each in made.augments:
        if each.mixing is not None:
            raise ModicumError(
                f"augment={augment!r} mixes inputs by {each.mixing.name!r}; a view is of one input alone"
            )
    return made
