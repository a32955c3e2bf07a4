"""ELECTRA: tell the tokens of a text from those that a small masked language model put in their place."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.dataset import Dataset
from modicum.methods import Card
from modicum.models import Transformer
from modicum.models.text import Block, mean_of_tokens
from modicum.options import check_options
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.pretraining.tokens import (
    MaskedHead,
    check_texts,
    choose_positions,
    embed_masked,
    hide_tokens,
    mean_in_batch,
    sample_tokens,
    transformer_of,
)
from modicum.training.recipe import Recipe

__all__ = ["ELECTRA"]


class _Generator(nn.Module):
    """A narrow transformer on the embeddings of a wide one, that gives logits at some positions."""

    def __init__(self, network: Transformer, width: int) -> None:
        super().__init__()
        vocabulary, embedding = network.embedding.weight.shape
        heads = next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
        self.narrow = nn.Linear(embedding, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in network.blocks)
        self.norm = nn.LayerNorm(width)
        self.head = MaskedHead(width, embedding, vocabulary)

    def forward(self, h: Tensor, present: Tensor, positions: Tensor, embeddings: Tensor) -> Tensor:
        h = self.narrow(h)
        for block in self.blocks:
            h = block(h, present)
        at = self.norm(h.gather(1, positions[..., None].expand(-1, -1, h.shape[-1])))
        logits: Tensor = self.head(at, embeddings)
        return logits


class _Learner(Learner):
    def __init__(self, backbone: Backbone, options: ELECTRA, vocabulary: int) -> None:
        super().__init__(backbone, None)
        network = transformer_of(backbone, "electra")
        self.options, self.vocabulary = options, vocabulary
        self.generator = _Generator(network, max(1, round(options.generator * backbone.width)))
        self.own = None if options.tied else _embeddings_of(network)
        self.mask = nn.Parameter(torch.randn(backbone.width))
        self.discriminator = nn.Sequential(
            nn.Linear(backbone.width, backbone.width), nn.GELU(), nn.Linear(backbone.width, 1)
        )
        self.register_buffer("terms", torch.zeros(2))
        self.terms: Tensor

    def guess(self, x: Tensor, seen: Tensor, positions: Tensor) -> Tensor:
        """(b, K, V) logits of the generator, which sees other tokens than there are."""
        source = self.own or transformer_of(self.backbone, "electra")
        h = embed_masked(source, seen, self.mask)
        out: Tensor = self.generator(h, x != 0, positions, source.embedding.weight)
        return out

    def detect(self, x: Tensor, corrupt: Tensor) -> tuple[Tensor, Tensor]:
        """(b, L) logits that a token was replaced, and the states (b, L, width) they are read from."""
        network = transformer_of(self.backbone, "electra")
        # padding is where the text has none, for the generator may put the padding token in the place of a word
        states = network.encode(network.embed(corrupt), x != 0)
        return self.discriminator(states).squeeze(-1), states

    def corrupted(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Texts (b, L) with tokens of the generator, its loss (b, K), the positions and which of them are chosen."""
        options, draw = self.options, self.draw
        positions, chosen = choose_positions(x, options.share, draw)
        seen = hide_tokens(x, positions, chosen, self.vocabulary, draw, masked=options.masked)
        logits, originals = self.guess(x, seen, positions), x.gather(1, positions)
        losses = F.cross_entropy(logits.float().transpose(1, 2), originals, reduction="none")
        guesses = torch.where(chosen, sample_tokens(logits, draw, options.temperature), originals)
        return x.scatter(1, positions, guesses), losses, positions, chosen

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        present = counted = inputs != 0
        corrupt, guessing, positions, chosen = self.corrupted(inputs)
        logits, states = self.detect(inputs, corrupt)
        replaced = (corrupt != inputs).float()
        telling = F.binary_cross_entropy_with_logits(logits.float(), replaced, reduction="none")
        if self.options.positions == "masked":
            counted = torch.zeros_like(present).scatter(1, positions, chosen)
        masked_loss, replaced_loss = mean_in_batch(guessing, chosen), mean_in_batch(telling, counted)
        self.terms.copy_(torch.stack([masked_loss.detach().mean(), replaced_loss.detach().mean()]))
        return masked_loss + self.options.weight * replaced_loss, mean_of_tokens(states.detach(), present)


def _embeddings_of(network: Transformer) -> Transformer:
    """A copy that has tokens and positions, and nothing above them."""
    own = copy.deepcopy(network)
    own.blocks, own.norm = nn.ModuleList(), nn.Identity()  # type: ignore[assignment]  # nothing reads them
    return own


@dataclass(frozen=True)
class ELECTRA:
    """Replaced-token detection: every token of a text teaches, not only those that are hidden.

    A generator G guesses the chosen tokens of a text; guesses drawn from it are put in their place, without a gradient,
    and the discriminator D, which is kept, tells for each token whether it is the original. The loss is L_MLM(G) +
    weight L_D, with L_MLM the mean cross-entropy over the chosen positions and L_D the mean binary cross-entropy over
    all tokens that are there; a guess that happens to be right counts as original. G has the depth of D, and reads and
    writes the embeddings of D. The passes of both are counted. The largest array is of the logits of G, (b, K, V) with
    K = floor((share + 0.005) L). The two terms of the last step are in the learner's buffer `terms`. The published
    networks have dropout, which ours has not.

    Args:
        weight: Of the discriminator's loss.
        share: Of the tokens of a text that are chosen, at least one.
        masked: Share of these that the generator sees as the mask; it sees the others as they are.
        generator: Width of the generator as a share of that of the discriminator; above 1/2 it is too strong.
        temperature: Of the draw of the guesses.
        tied: Whether the generator shares the embeddings of tokens and positions.
        positions: Where the discriminator's loss is taken: `all` tokens, or only those that were chosen (`masked`).

    Raises:
        ModicumError: An option is out of range.

    Reference:
        Clark, Luong, Le and Manning, ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators,
        2020, arXiv 2003.10555.
    """

    weight: float = 50.0
    share: float = 0.15
    masked: float = 0.85
    generator: float = 0.25
    temperature: float = 1.0
    tied: bool = True
    positions: str = "all"

    card: ClassVar[Card] = Card(
        key="electra",
        title="Tell real tokens from those a small model guessed",
        paper="Clark, Luong, Le and Manning, ELECTRA: Pre-training Text Encoders as Discriminators Rather Than "
        "Generators, 2020, arXiv 2003.10555",
        saves=("labels", "compute"),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("text",),
    )
    published: ClassVar[Recipe] = Recipe(
        "transformer(width=256, heads=4, layers=12)", steps=1_000_000, batch_size=128, optimizer="adamw", lr=5e-4,
        weight_decay=0.01, warmup=0.01, schedule="one-cycle",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("share", "generator", "temperature"),
            not_negative=("weight",),
            shares=("masked", "generator"),  # a generator larger than the discriminator leaves it nothing to learn
            below_one=("share",),
            choices={"positions": ("all", "masked")},
        )

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained.

        Raises:
            ModicumError: The model is no transformer, or a text cannot be learned from.
        """
        return _Learner(backbone, self, check_texts(data, transformer_of(backbone, self.card.key)))
