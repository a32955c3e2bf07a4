"""DSA: gradient matching where real and synthetic samples of a class go through the same random transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from modicum.distillation.dc import DC
from modicum.methods import Card

__all__ = ["DSA"]


@dataclass(frozen=True)
class DSA(DC):
    """Gradient matching with differentiable siamese augmentation.

    `min_S sum_c D(grad l(theta; A_w(S_c)), grad l(theta; A_w(T_c)))`: a new transform w of each class in each update; the
    networks are trained on transformed synthetic samples, and so is whoever trains on the set. With `augment='none'` it is
    `dc` to the bit.

    Args:
        iterations: Networks.
        lr_img: Learning rate of the inputs; `auto` makes the first step change them by 1 %.
        momentum: Of SGD on the inputs.
        lr_net: Learning rate of the networks on the synthetic set.
        batch_real: Real samples of each class an update; all of a smaller class.
        outer: Updates a network; `auto` is `loops_for` of the samples a class.
        inner: Epochs of training between updates; `auto` likewise.
        distance: `layers`, or the worse `cos`, `mse`, `l1` of the whole gradient.
        init: `real` samples, or `noise`.
        augment: Families; `auto` is the published strategy, without flip on digits, nothing on data without pixels.
        model: The network; `auto` is the recipe's where it is a convnet or resnet, `convnet(width=32)` for other
            images, and the recipe's for tables.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> DSA(augment="crop_flip").init
        'real'

    Reference:
        Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, 2021, arXiv 2102.08259.
    """

    init: Literal["real", "noise"] = "real"
    augment: str = "auto"

    card: ClassVar[Card] = Card(
        key="dsa",
        title="Gradient matching where real and synthetic samples go through the same random transform",
        paper="Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, 2021, arXiv 2102.08259",
        saves=("samples", "compute"),
    )
