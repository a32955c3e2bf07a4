"""DCC: gradient matching on the gradient summed over classes, which holds what distinguishes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from modicum.distillation.dc import DC, GradientMatching
from modicum.methods import Card
from modicum.options import check_options

__all__ = ["DCC"]


class Contrast(GradientMatching):
    """Matching the gradients of all classes together, after a warm-up of one by one."""

    def loops(self) -> tuple[int, int]:
        """Updates and epochs."""
        return self.asked((10, 5)) if int(self.counts.max()) == 1 else super().loops()

    def update(self, network: nn.Module, random: torch.Generator, iteration: int, update: int) -> float:
        """One step of all inputs."""
        if iteration < self.method.warmup_networks and update < self.method.warmup_updates:
            return super().update(network, random, iteration, update)
        self.freeze(network, random)
        draw = self.draw(random)
        positions, weights = self.blocks(random, self.method.batch_real)
        real = self.real_gradients(network, (positions.reshape(1, -1), weights.reshape(1, -1) / self.classes), draw)
        m = len(self.labels)
        own = (torch.arange(m)[None], torch.full((1, m), 1 / m))
        loss, slope = self.match(network, self.inputs, self.labels, own, real, draw)
        self.descend(inputs=slope)
        return loss


@dataclass(frozen=True)
class DCC(DC):
    """Dataset condensation with contrastive signals.

    `min_S D(grad l(theta; S), (1/c) sum_c grad l(theta; T_c))`: what the gradients of all classes share cancels in the
    sum, and one distance is left instead of one a class. At first, and in the first updates of each network, classes are
    matched one by one, as `dc` does: while the network is one of the first `warmup_networks` and the update one of its
    first `warmup_updates`. With `augment='auto'` it is what the paper calls DSAC.

    Args:
        iterations: Networks.
        lr_img: Learning rate of the inputs; `auto` makes the first step change them by 1 %.
        momentum: Of SGD on the inputs.
        lr_net: Learning rate of the networks on the synthetic set.
        batch_real: Real samples of each class an update; all of a smaller class.
        outer: Updates a network; `auto` is 10 with one sample a class, and otherwise as in `dc`.
        inner: Epochs of training between updates; `auto` is 5 with one sample a class, and otherwise as in `dc`.
        warmup_networks: Networks that begin class by class.
        warmup_updates: Updates of each of them that are class by class.
        distance: `layers`, or the worse `cos`, `mse`, `l1` of the whole gradient.
        init: `real` samples, or `noise`.
        augment: Siamese augmentation: `none`, `auto` or families.
        model: The network; `auto` is the recipe's where it is a convnet or resnet, `convnet(width=32)` for other
            images, and the recipe's for tables.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> DCC().warmup_networks
        250

    Reference:
        Lee, Chun, Jung, Yun and Yoon, Dataset Condensation with Contrastive Signals, 2022, arXiv 2202.02916.
    """

    warmup_networks: int = 250
    warmup_updates: int = 10
    init: Literal["real", "noise"] = "real"

    card: ClassVar[Card] = Card(
        key="dcc",
        title="Synthetic samples that match the gradient summed over classes, which tells them apart",
        paper="Lee, Chun, Jung, Yun and Yoon, Dataset Condensation with Contrastive Signals, 2022, arXiv 2202.02916",
        saves=("samples", "compute"),
    )
    runs: ClassVar[type[GradientMatching]] = Contrast

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self, not_negative=("warmup_networks", "warmup_updates"))
