"""ScatSimCLR: SimCLR on a scattering network, kept from bad solutions by a second task that needs no labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.data.views import Views, make_views
from modicum.dataset import Dataset
from modicum.errors import ModicumError
from modicum.losses import NTXent
from modicum.methods import Card
from modicum.options import check_options
from modicum.pretraining.heads import projector
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.training.recipe import Recipe

__all__ = ["ScatSimCLR", "jigsaw", "jigsaw_permutations"]

PRETEXTS = ("rotation", "jigsaw")
DROPPED = 0.5  # of the hidden units of the pretext head
MOST = 72  # permutations of 9 tiles that agree in at most one place


def jigsaw_permutations(count: int = 35) -> Tensor:
    """Orders of the nine tiles, any two of which differ in at least eight places: the most that is possible.

    They are the maps x -> a x + b with a != 0 of the field of nine elements p + q i, i^2 = -1, in which two different
    maps agree at one point at most.

    Args:
        count: At most 72.

    Returns:
        (count, 9) positions; the first is the identity.

    Raises:
        ModicumError: There are not so many.

    Example:
        >>> jigsaw_permutations(2)
        tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8],
                [3, 4, 5, 6, 7, 8, 0, 1, 2]])

    Reference:
        Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, 2016,
        arXiv 1603.09246.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= MOST:
        raise ModicumError(f"permutations={count!r}; expected an integer from 2 to {MOST}")
    p, q = torch.arange(9) // 3, torch.arange(9) % 3
    a, b = [3, 4, 5, 6, 7, 8, 1, 2], [0, 3, 6, 1, 4, 7, 2, 5, 8]  # 1 first of the factors, 0 first of the summands
    real = p[a][:, None] * p - q[a][:, None] * q
    imaginary = p[a][:, None] * q + q[a][:, None] * p
    maps = 3 * ((real[:, None] + p[b][:, None]) % 3) + (imaginary[:, None] + q[b][:, None]) % 3
    return maps.reshape(-1, 9)[:count]


def jigsaw(x: Tensor, orders: Tensor) -> Tensor:
    """The nine tiles of square images in other orders, each as large as the image.

    Args:
        x: (n, channels, side, side) images; what three tiles leave over at the border is cut off.
        orders: (n, 9) the tile that comes to each place.

    Returns:
        (n, 9, channels, side, side) tiles, enlarged by bilinear interpolation.

    Raises:
        ModicumError: The images are not square, or smaller than 6 px.

    Example:
        >>> tiles = jigsaw(torch.rand(2, 3, 9, 9), jigsaw_permutations(2))
        >>> tiles.shape
        torch.Size([2, 9, 3, 9, 9])
    """
    _square(x.shape[2:], "jigsaw", 6)
    side = x.shape[-1]
    tile, start = side // 3, side % 3 // 2
    x = x[:, :, start : start + 3 * tile, start : start + 3 * tile]
    tiles = (
        x.reshape(*x.shape[:2], 3, tile, 3, tile).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    )  # (n, 9, channels, tile, tile)
    tiles = tiles[torch.arange(len(x), device=x.device)[:, None], orders]
    large: Tensor = F.interpolate(tiles.flatten(0, 1), size=(side, side), mode="bilinear")
    return large.reshape(*tiles.shape[:3], side, side)


class _Rotation(nn.Module):
    """Which of four quarter turns an image has made."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            *(nn.Linear(width, 512), nn.ReLU(), nn.Dropout(DROPPED)),
            *(nn.Linear(512, 128), nn.ReLU(), nn.Dropout(DROPPED), nn.Linear(128, 4)),
        )

    def forward(self, learner: Learner, inputs: Tensor) -> Tensor:
        turned = torch.cat([torch.rot90(inputs, k, (2, 3)) for k in range(4)])
        logits: Tensor = self.head(learner.backbone(learner.views(turned, 1)[0]))
        answers = torch.arange(4, device=inputs.device).repeat_interleave(len(inputs))
        return F.cross_entropy(logits, answers, reduction="none").reshape(4, -1).mean(0)


class _Jigsaw(nn.Module):
    """In which of some orders the tiles of an image are."""

    orders: Tensor

    def __init__(self, width: int, permutations: int) -> None:
        super().__init__()
        self.tile = nn.Sequential(nn.Linear(width, 512), nn.ReLU(), nn.Dropout(DROPPED))
        self.head = nn.Sequential(
            nn.Linear(9 * 512, 4096), nn.ReLU(), nn.Dropout(DROPPED), nn.Linear(4096, permutations)
        )
        self.register_buffer("orders", jigsaw_permutations(permutations), persistent=False)

    def forward(self, learner: Learner, inputs: Tensor) -> Tensor:
        answers = torch.randint(len(self.orders), (len(inputs),), generator=learner.draw).to(inputs.device)
        tiles = jigsaw(inputs, self.orders[answers]).flatten(0, 1)
        read = self.tile(learner.backbone(tiles)).reshape(len(inputs), -1)
        return F.cross_entropy(self.head(read), answers, reduction="none")


class _Learner(Learner):
    def __init__(
        self, backbone: Backbone, views: Views, head: nn.Module, temperature: float, weight: float,
        pretext: Callable[[], nn.Module],
    ) -> None:  # fmt: skip
        super().__init__(backbone, views)
        self.head = head
        self.loss = NTXent(temperature, reduction="none")
        self.weight = weight
        self.pretext = pretext() if weight else None

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.head(self.backbone(torch.cat(self.views(inputs, 2)))).chunk(2)
        losses: Tensor = self.loss(a, b)
        if self.pretext is not None:
            losses = losses + self.weight * self.pretext(self, inputs)
        return losses, a


@dataclass(frozen=True)
class ScatSimCLR:
    """Contrast of two views, and a second task: which way up an image is, or how its tiles were shuffled.

    The loss is NT-Xent + weight x cross-entropy of the second task. `rotation` shows all four quarter turns of every
    image, augmented; `jigsaw` the nine tiles of every image in one of the orders of `jigsaw_permutations`. So a step
    costs three times that of SimCLR with rotation, and five and a half times with jigsaw. Without a recipe of one's own
    the encoder is a `scatnet`; any other encoder works.

    Args:
        pretext: The second task, `rotation` or `jigsaw`.
        weight: Of its loss; at 0 it is left out.
        permutations: Orders of the tiles, at most 72.
        temperature: Of NT-Xent.
        hidden: Width of the projector.
        dimension: Of the embeddings.
        norm: Whether the projector is batch-normalized, as that of SimCLR is.
        augment: Set of augmentations, see `modicum.data.VIEWS`, or their names.
    """

    pretext: str = "rotation"
    weight: float = 0.3
    permutations: int = 35
    temperature: float = 0.5
    hidden: int = 2048
    dimension: int = 128
    norm: bool = False
    augment: str | tuple[str, ...] = "symmetric"

    card: ClassVar[Card] = Card(
        key="scatsimclr",
        title="SimCLR with a rotation or jigsaw task, on a network of wavelets (scatnet) unless another is asked for",
        paper="Kinakh, Taran and Voloshynovskiy, ScatSimCLR: self-supervised contrastive learning with pretext task "
        "regularization for small-scale datasets, 2021, arXiv 2108.13939",
        saves=("labels", "samples"),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("image",),
    )
    published: ClassVar[Recipe] = Recipe(
        "scatnet(angles=16, blocks=30)", 1000, batch_size=64, optimizer="adamw", lr=3e-4, weight_decay=1e-5,
        schedule="constant",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_options(self, positive=("permutations", "temperature", "hidden", "dimension"), not_negative=("weight",))
        jigsaw_permutations(self.permutations)
        if self.pretext not in PRETEXTS:
            raise ModicumError(
                f"method 'scatsimclr' option pretext={self.pretext!r}; expected {' or '.join(map(repr, PRETEXTS))}, "
                "and weight=0 for neither"
            )

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def suits(self, data: Dataset) -> Recipe:
        """A scattering network of 8 angles and 8 blocks, because two processors need seconds for a step of 16 and 30."""
        scales = 2 if all(side % 4 == 0 for side in data.inputs.shape[2:]) else 1
        model = "scatnet" if scales == 2 else "scatnet(scales=1)"
        return Recipe(model, epochs=20, batch_size=64, optimizer="adamw", lr=3e-4, weight_decay=1e-5)

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained."""
        if self.weight:
            _square(data.inputs.shape[2:], self.pretext, 6 if self.pretext == "jigsaw" else 1)
        head = projector((backbone.width, self.hidden, self.dimension), norm=self.norm)

        def pretext() -> nn.Module:
            return (
                _Rotation(backbone.width) if self.pretext == "rotation" else _Jigsaw(backbone.width, self.permutations)
            )

        return _Learner(backbone, make_views(self.augment, data), head, self.temperature, self.weight, pretext)


def _square(sides: torch.Size, pretext: str, least: int) -> None:
    if sides[0] != sides[1] or sides[0] < least:
        raise ModicumError(
            f"pretext {pretext!r} needs square images of at least {least} px, got {sides[0]} x {sides[1]}; resize them"
        )
