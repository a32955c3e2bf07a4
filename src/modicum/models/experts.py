"""A transformer in which every feed-forward block was copied into experts."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from modicum.errors import ModicumError
from modicum.models.base import Network, positive
from modicum.models.text import Block, Transformer, mean_of_tokens

__all__ = ["BLOCKS", "ROUTINGS", "ExpertTransformer", "Routed"]

ROUTINGS = ("enforced", "sentence", "sentence-top", "token")
BLOCKS = ("all", "middle")


class Routed(NamedTuple):
    """What the router of a block did.

    Args:
        logits: (m, N) of what is routed: texts, or the tokens that are there.
        chosen: (m, k) experts.
        means: (b, N) logits of the texts.
    """

    logits: Tensor
    chosen: Tensor
    means: Tensor


class ExpertTransformer(Network):
    """A transformer whose feed-forward blocks are N experts each, all of them copies of what it had.

    Routing `enforced`: a text goes to the expert of its domain, or to the only one. A router, one linear layer a
    block, gives logits of the tokens otherwise. `sentence`: the whole text goes to the largest mean logit, its output
    as it is. `sentence-top`: to the k largest, weighted with their softmax over all experts, not normalized again.
    `token`: each token to its k largest, weights normalized. With k = 1 a text costs the FLOPs of the network that was
    copied (and the router); memory is N times that of the feed-forward blocks.

    A domain has a vector, at first zero, that is added to the first token: for texts that begin with a token of their
    own, such as [CLS], that is the same as another first token for every domain, and for others no word is lost. So the
    new network computes at first what the old one did, with `enforced` and `sentence` routing to the bit.

    A text of unknown domain gets the mean of the domains' vectors and, with enforced routing, an expert with the mean
    weights of all; they have a common origin, so that their mean makes sense.

    Args:
        network: What is copied; it is not changed.
        experts: N.
        domains: Number of domains; with enforced routing 1 or N, unless N = 1.
        routing: `enforced`, `sentence`, `sentence-top` or `token`.
        top: k, experts of a text or token.
        blocks: `all`, or `middle` for block floor(layers / 2) alone.

    Raises:
        ModicumError: An option is out of range.

    Example:
        >>> network, x = Transformer(100, 7, 2), torch.tensor([[5, 6, 0], [5, 6, 6]])
        >>> extended = ExpertTransformer(network, experts=2, domains=2)
        >>> bool((extended.features(x, torch.tensor([1, 1])) == network.features(x)).all())
        True

    Reference:
        Hallee, Kapur, Patel, Gleghorn and Khomtchouk, Contrastive Learning and Mixture of Experts Enables Precise
        Vector Embeddings, 2024, arXiv 2401.15713.
    """

    def __init__(
        self,
        network: Transformer,
        experts: int,
        domains: int = 1,
        *,
        routing: str = "enforced",
        top: int = 1,
        blocks: str = "all",
    ) -> None:
        super().__init__()
        positive(experts=experts, domains=domains, top=top)
        enforced = routing == "enforced"
        for name, value, right, expected in (
            ("routing", routing, routing in ROUTINGS, f"one of {', '.join(ROUTINGS)}"),
            ("blocks", blocks, blocks in BLOCKS, f"one of {', '.join(BLOCKS)}"),
            ("top", top, top <= experts, f"at most experts={experts}"),
            ("top", top, top == 1 or routing in ("sentence-top", "token"), f"1 with routing={routing!r}"),
            ("experts", experts, not enforced or experts in (1, domains), f"1 or the number of domains, {domains}"),
        ):
            if not right:
                raise ModicumError(f"model option {name}={value!r}; expected {expected}")
        self.network = copy.deepcopy(network)
        self.head = network.head
        self.network.head = nn.Identity()  # type: ignore[assignment]  # nothing reads it
        width, layers = network.positions.shape[1], len(network.blocks)
        self.routing, self.top, self.count = routing, top, experts
        self.places = tuple(range(layers)) if blocks == "all" else (layers // 2,)
        self.experts, self.routers = nn.ModuleList(), nn.ModuleList()
        for at in self.places:
            block = self.network.blocks[at]
            assert isinstance(block, Block)
            self.experts.append(nn.ModuleList(copy.deepcopy(block.mlp) for _ in range(experts)))
            if not enforced:
                self.routers.append(nn.Linear(width, experts, bias=False))
            block.mlp = nn.Identity()  # type: ignore[assignment]  # its copies take its place
        # one parameter each: what no text of a batch needs has no gradient, and no optimizer touches it
        self.domains = nn.ParameterList(torch.zeros(width) for _ in range(domains))

    def features(self, x: Tensor, domains: Tensor | None = None) -> Tensor:
        """(n, width) the mean of the last block over the tokens that are there.

        Args:
            x: (n, length) token numbers.
            domains: (n,) of the texts; None where they are unknown.

        Raises:
            ModicumError: A domain does not exist, or there is not one for each text.
        """
        return self.route(x, domains)[0]

    def route(self, x: Tensor, domains: Tensor | None = None) -> tuple[Tensor, list[Routed]]:
        """The features, and of each block with a router what it did."""
        if domains is not None:
            self._check(x, domains)
        present, routed = x != 0, list[Routed]()
        h = self._marked(self.network.embed(x), domains)
        for at, block in enumerate(self.network.blocks):
            assert isinstance(block, Block)
            h = block.attend(h, present)
            if at in self.places:
                out, done = self._experts(self.places.index(at), block.between(h), present, domains)
                h = h + out
                routed += [] if done is None else [done]
            else:
                h = h + block.mlp(block.between(h))
        return mean_of_tokens(self.network.norm(h), present), routed

    def _check(self, x: Tensor, domains: Tensor) -> None:
        if domains.shape != x.shape[:1] or domains.is_floating_point():
            raise ModicumError(
                f"domains have shape {tuple(domains.shape)} and type {domains.dtype}; expected ({len(x)},) integers, one "
                "a text"
            )
        if len(domains) and not 0 <= int(domains.min()) <= int(domains.max()) < len(self.domains):
            raise ModicumError(
                f"domains reach from {int(domains.min())} to {int(domains.max())}; expected 0..{len(self.domains) - 1}, "
                "or None where they are unknown"
            )

    def _marked(self, h: Tensor, domains: Tensor | None) -> Tensor:
        if domains is None:
            first = torch.stack(list(self.domains)).mean(0)[None]
        else:
            present, place = torch.unique(domains, return_inverse=True)
            first = torch.stack([self.domains[i] for i in present.tolist()])[place]
        return torch.cat([h[:, :1] + first[:, None], h[:, 1:]], 1)

    def _experts(self, layer: int, h: Tensor, present: Tensor, domains: Tensor | None) -> tuple[Tensor, Routed | None]:
        experts = self.experts[layer]
        assert isinstance(experts, nn.ModuleList)
        if self.routing == "enforced":
            if self.count == 1:
                return experts[0](h), None
            return (_mean_expert(experts, h) if domains is None else _dispatch(experts, h, domains)), None
        logits = self.routers[layer](h)
        means = mean_of_tokens(logits, present)
        if self.routing == "token":
            weights, chosen = logits.flatten(0, 1).softmax(-1).topk(self.top)
            weights = weights / weights.sum(1, keepdim=True)
            flat = h.flatten(0, 1)
            parts = [_dispatch(experts, flat, chosen[:, j]) * weights[:, j, None] for j in range(self.top)]
            there = present.flatten()
            return sum(parts[1:], parts[0]).view(h.shape), Routed(logits[present], chosen[there], means)
        weights, chosen = means.softmax(-1).topk(self.top)
        if self.routing == "sentence":
            return _dispatch(experts, h, chosen[:, 0]), Routed(means, chosen, means)
        parts = [_dispatch(experts, h, chosen[:, j]) * weights[:, j, None, None] for j in range(self.top)]
        return sum(parts[1:], parts[0]), Routed(means, chosen, means)


def _dispatch(experts: nn.ModuleList, h: Tensor, assignment: Tensor) -> Tensor:
    """(m, ..., width) what the expert of each row gives; experts without a row do not run."""
    present = torch.unique(assignment).tolist()
    if len(present) == 1:
        out: Tensor = experts[present[0]](h)
        return out
    rows = [(assignment == e).nonzero().flatten() for e in present]
    parts = torch.cat([experts[e](h[at]) for e, at in zip(present, rows)])
    return parts[torch.cat(rows).argsort()]


def _mean_expert(experts: nn.ModuleList, h: Tensor) -> Tensor:
    each = [dict(expert.named_parameters()) for expert in experts]
    mean = {name: torch.stack([weights[name] for weights in each]).mean(0) for name in each[0]}
    out: Tensor = functional_call(experts[0], mean, (h,))
    return out
