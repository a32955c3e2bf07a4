"""MoE embeddings: experts for the domains of a corpus, copied from one encoder, that learn to tell texts apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.context import generator
from modicum.dataset import Dataset
from modicum.errors import ModicumError
from modicum.losses.multiple_negatives import MultipleNegatives
from modicum.methods import Card
from modicum.models.experts import BLOCKS, ROUTINGS, ExpertTransformer, Routed
from modicum.options import check_options
from modicum.pretraining.learner import Backbone, Learner, Plan
from modicum.pretraining.tokens import check_texts, transformer_of
from modicum.training.recipe import Recipe

__all__ = ["MoEEmbeddings", "draw_spans", "load_balance", "shared_information"]

AUXILIARY = ("none", "balance", "information", "domain")


def draw_spans(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A run of neighboring tokens of each text, at a random place.

    Args:
        x: (b, L) token numbers, with padding (0) at the end alone.
        share: Of the tokens of a text, rounded up, in (0, 1].
        generator: Of the draw.

    Returns:
        (b, ceil(share L)) token numbers.

    Example:
        >>> draw_spans(torch.tensor([[7, 7, 7, 7], [8, 8, 0, 0]]), 0.5, torch.Generator().manual_seed(0)).tolist()
        [[7, 7], [8, 0]]
    """
    # a share such as 0.1 of 30 must not become 4 for the last bit of a product
    places = torch.arange(math.ceil(share * x.shape[1] - 1e-9), device=x.device)
    tokens = (x != 0).sum(1)
    length = (share * tokens.double() - 1e-9).ceil().long()
    draw = torch.rand(len(x), generator=generator, dtype=torch.float64).to(x.device)
    start = (draw * (tokens - length + 1)).long()
    at = (start[:, None] + places).clamp(max=x.shape[1] - 1)
    return x.gather(1, at).masked_fill(places >= length[:, None], 0)


def load_balance(logits: Tensor, chosen: Tensor) -> Tensor:
    """N sum_e p_e f_e: 1 where the router spreads evenly, N where it knows one expert only.

    Args:
        logits: (m, N) of what is routed; p is the mean of their softmax.
        chosen: (m, k) experts; f is the share of each among them.

    Returns:
        () the loss, with a gradient through p.

    Example:
        >>> load_balance(torch.zeros(4, 2), torch.tensor([[0], [1], [0], [1]]))
        tensor(1.)
    """
    experts = logits.shape[1]
    shares = torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel()
    return experts * (logits.softmax(1).mean(0) * shares).sum()


def shared_information(logits: Tensor, domains: Tensor, count: int) -> Tensor:
    """I(T; E) of domain and expert in nats, with a gradient through the router.

    P(t, e) is the sum of the softmax of the texts of domain t over the number of texts.

    Args:
        logits: (b, N) of the texts.
        domains: (b,) of the texts.
        count: Number of domains.

    Returns:
        () between 0 and log of the smaller of both numbers.

    Example:
        >>> sure = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
        >>> round(float(shared_information(sure, torch.tensor([0, 1]), 2)), 6)  # log 2
        0.693147
    """
    member = F.one_hot(domains, count).to(logits.dtype)
    joint = member.T @ logits.softmax(1) / len(logits)
    independent = joint.sum(1, keepdim=True) * joint.sum(0)
    # a domain without a text has probability zero, where the gradient of x log x is not finite
    return (joint * (joint.clamp(min=1e-30).log() - independent.clamp(min=1e-30).log())).sum()


class _Learner(Learner):
    def __init__(self, backbone: Backbone, options: MoEEmbeddings, domains: Tensor) -> None:
        super().__init__(backbone, None)
        width = backbone.width
        self.options = options
        self.pooler = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
        self.loss = MultipleNegatives(
            options.scale, options.normalize, options.targets, learned=options.learned, reduction="none"
        )
        self.register_buffer("domains", domains)
        self.domains: Tensor

    def forward(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        network = self.backbone.network
        assert isinstance(network, ExpertTransformer)
        texts = torch.cat([draw_spans(inputs, self.options.span, self.draw) for _ in range(2)])
        domains = self.domains[indices].repeat(2)
        features, routed = network.route(texts, domains)
        a, b = self.pooler(features).chunk(2)
        losses: Tensor = self.loss(a, b)
        if self.options.auxiliary != "none":
            weight = self.options.auxiliary_weight / len(routed)
            losses = losses + weight * torch.stack([self._auxiliary(each, domains) for each in routed]).sum()
        return losses, a

    def _auxiliary(self, routed: Routed, domains: Tensor) -> Tensor:
        if self.options.auxiliary == "balance":
            return load_balance(routed.logits.float(), routed.chosen)
        if self.options.auxiliary == "information":
            count = len(self.backbone.network.domains)  # type: ignore[arg-type]  # of an ExpertTransformer
            return -shared_information(routed.means.float(), domains, count)
        return F.cross_entropy(routed.means.float(), domains)


@dataclass(frozen=True)
class MoEEmbeddings:
    """One encoder with an expert for each domain of a corpus, at the cost of an encoder with one.

    The feed-forward blocks of the encoder are copied into experts; the sources of the data are the domains (one domain
    where there are none). Two random spans of a text are a pair, and the loss is that of `MultipleNegatives` on the
    means of their tokens after LayerNorm, a linear layer, tanh and a linear layer. What was published pairs abstracts
    that a third paper cites, and extends a pre-trained encoder: give its run as `start`, or a model factory that makes
    a trained transformer; experts of an untrained encoder have nothing in common. `experts=1` is the control, one dense
    encoder that is told the domains, and `routing="random"` the other one, with the domains dealt out to the texts at
    random. The encoder reads `network.features(x, domains)`; without domains it takes the mean of the experts' weights.

    Args:
        experts: Number of experts; 0 for one for each domain.
        routing: `enforced` by domain, `sentence`, `sentence-top`, `token` (see `modicum.models.ExpertTransformer`), or
            `random`.
        top: Experts of a text or token, with the last two routings of a router.
        blocks: Which have experts: `all`, or `middle` for one.
        auxiliary: Loss on the router: `none`, `balance`, `information` (that of domain and expert, to be large) or
            `domain` (cross-entropy of the mean logits).
        auxiliary_weight: Of it; the mean over the blocks is taken. 0.05 was published for balance, 0.01 for information.
        span: Share of the tokens of a text in each span.
        scale: Of the similarities.
        normalize: Whether embeddings are divided by their lengths; False with scale=1.0 was published.
        targets: `diagonal` or `similarity`, see `MultipleNegatives`.
        learned: Whether the scale is learned.
        start: Folder of a run of `modicum pretrain` on texts with the same vocabulary; its cost is in its own ledger.

    Raises:
        ModicumError: An option is out of range.

    Reference:
        Hallee, Kapur, Patel, Gleghorn and Khomtchouk, Contrastive Learning and Mixture of Experts Enables Precise
        Vector Embeddings, 2024, arXiv 2401.15713.
    """

    experts: int = 0
    routing: str = "enforced"
    top: int = 1
    blocks: str = "all"
    auxiliary: str = "none"
    auxiliary_weight: float = 0.05
    span: float = 0.5
    scale: float = 20.0
    normalize: bool = True
    targets: str = "diagonal"
    learned: bool = False
    start: str = ""

    card: ClassVar[Card] = Card(
        key="moe-embeddings",
        title="Experts for the domains of a corpus, copied from one encoder",
        paper="Hallee, Kapur, Patel, Gleghorn and Khomtchouk, Contrastive Learning and Mixture of Experts Enables "
        "Precise Vector Embeddings, 2024, arXiv 2401.15713",
        saves=("labels", "compute"),
        tasks=("classification", "regression", "unlabeled"),
        modalities=("text",),
    )
    published: ClassVar[Recipe] = Recipe(
        "transformer(width=768, heads=12, layers=22)", epochs=1, batch_size=16, optimizer="adamw", lr=1e-4
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("top", "span", "scale"),
            not_negative=("experts", "auxiliary_weight"),
            shares=("span",),
            choices={
                "routing": (*ROUTINGS, "random"),
                "blocks": BLOCKS,
                "auxiliary": AUXILIARY,
                "targets": ("diagonal", "similarity"),
            },
        )
        if self.auxiliary != "none" and self.routing not in ("sentence", "sentence-top", "token"):
            raise ModicumError(
                f"method 'moe-embeddings' option auxiliary={self.auxiliary!r}; expected 'none', because "
                f"routing={self.routing!r} has no router"
            )

    def needs(self) -> tuple[()]:
        """Nothing."""
        return ()

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan) -> Learner:
        """What is trained.

        Raises:
            ModicumError: The model is no transformer, a text or a source cannot be learned from, the number of experts
                does not fit, or the start has another vocabulary.
        """
        key = self.card.key
        network = transformer_of(_started(self.start, data) if self.start else backbone, key)
        check_texts(data, network)
        domains, count = _domains(data)
        experts = self.experts or count
        if self.auxiliary == "domain" and experts != count:
            raise ModicumError(
                f"{key} experts={experts} with auxiliary='domain'; expected one for each of {count} domains"
            )
        if self.routing == "random":
            order = torch.randperm(len(domains), generator=generator(plan.seed, key, "domains"))
            domains = domains[order]  # as many of each domain, for texts that have nothing to do with it
        routing = "enforced" if self.routing == "random" else self.routing
        extended = ExpertTransformer(network, experts, count, routing=routing, top=self.top, blocks=self.blocks)
        return _Learner(Backbone(extended, network.positions.shape[1]), self, domains)


def _domains(data: Dataset) -> tuple[Tensor, int]:
    """(n,) the domain of each text, and the number of domains."""
    if data.sources is None:
        return torch.zeros(len(data), dtype=torch.int64), 1
    domains, count = data.sources.long(), len(data.info.sources)
    if len(domains) and not 0 <= int(domains.min()) <= int(domains.max()) < count:
        raise ModicumError(
            f"sources reach from {int(domains.min())} to {int(domains.max())}; expected 0..{count - 1}, the positions in "
            f"info.sources={data.info.sources!r}"
        )
    return domains.clone(), count


def _started(folder: str, data: Dataset) -> Backbone:
    from modicum.pretraining.saved import load_encoder

    encoder, info = load_encoder(folder)
    if info.vocabulary != data.info.vocabulary:
        raise ModicumError(
            f"start={folder!r} was trained with {len(info.vocabulary)} tokens that are not those of info.vocabulary, "
            f"which has {len(data.info.vocabulary)}; expected the same tokens in the same order"
        )
    return encoder.train()
