"""A masked language model: guess the tokens that are hidden from the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.dataset import Dataset
from modicum.methods import Card
from modicum.models.text import mean_of_tokens
from modicum.options import check_options
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.pretraining.tokens import (
    MaskedHead,
    check_texts,
    choose_positions,
    embed_masked,
    hide_tokens,
    mean_in_batch,
    transformer_of,
)
from modicum.training.recipe import Recipe

__all__ = ["MaskedLM"]


class _Learner(Learner):
    def __init__(self, backbone: Backbone, vocabulary: int, share: float, masked: float, random: float) -> None:
        super().__init__(backbone, None)
        self.vocabulary, self.share, self.masked, self.random = vocabulary, share, masked, random
        self.mask = nn.Parameter(torch.randn(backbone.width))
        self.head = MaskedHead(backbone.width, backbone.width, vocabulary)

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        network, draw, present = transformer_of(self.backbone, "masked-lm"), self.draw, inputs != 0
        positions, chosen = choose_positions(inputs, self.share, draw)
        seen = hide_tokens(inputs, positions, chosen, self.vocabulary, draw, masked=self.masked, random=self.random)
        states = network.encode(embed_masked(network, seen, self.mask), present)
        guessed = states.gather(1, positions[..., None].expand(-1, -1, states.shape[-1]))
        logits = self.head(guessed, network.embedding.weight)
        losses = F.cross_entropy(logits.float().transpose(1, 2), inputs.gather(1, positions), reduction="none")
        return mean_in_batch(losses, chosen), mean_of_tokens(states.detach(), present)


@dataclass(frozen=True)
class MaskedLM:
    """Masked language modeling: the loss is the mean cross-entropy of the original tokens at the chosen positions.

    The output layer is the transposed embedding table. Of the chosen tokens a share is masked, a share exchanged for
    random tokens, and the rest is shown; all are guessed. The largest array is of the logits, (b, K, V) with K =
    floor((share + 0.005) L) positions a text. The published network has dropout, which ours has not.

    Args:
        share: Of the tokens of a text that are guessed, at least one.
        masked: Share of these that the mask replaces.
        random: Share of these that a random token replaces.

    Raises:
        ModicumError: An option is out of range.

    Reference:
        Devlin, Chang, Lee and Toutanova, BERT: Pre-training of Deep Bidirectional Transformers for Language
        Understanding, 2018, arXiv 1810.04805.
    """

    share: float = 0.15
    masked: float = 0.8
    random: float = 0.1

    card: ClassVar[Card] = Card(
        key="masked-lm",
        title="Guess hidden tokens from the others",
        paper="Devlin, Chang, Lee and Toutanova, BERT: Pre-training of Deep Bidirectional Transformers for Language "
        "Understanding, 2018, arXiv 1810.04805",
        saves=("labels",),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("text",),
    )
    published: ClassVar[Recipe] = Recipe(
        "transformer(width=768, heads=12, layers=12)", steps=1_000_000, batch_size=256, optimizer="adamw", lr=1e-4,
        weight_decay=0.01, warmup=0.01, schedule="one-cycle",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_options(self, positive=("share",), shares=("masked", "random"), below_one=("share",))

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained.

        Raises:
            ModicumError: The model is no transformer, or a text cannot be learned from.
        """
        vocabulary = check_texts(data, transformer_of(backbone, self.card.key))
        return _Learner(backbone, vocabulary, self.share, self.masked, self.random)
