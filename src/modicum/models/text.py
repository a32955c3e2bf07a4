"""Small text classifiers on token numbers: a bag of embeddings and a transformer; token 0 is padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modicum.errors import ModicumError
from modicum.models.base import Network, positive

__all__ = ["Bag", "Block", "Transformer", "mean_of_tokens"]


class Bag(Network):
    """The mean of the embeddings of the tokens that are there, one hidden layer, and the linear head.

    Args:
        vocabulary: Number of tokens, padding included.
        length: Tokens of a row; not needed, any length works.
        outputs: Number of classes, 1 for regression.
        width: Of the embeddings and of the hidden layer.

    Raises:
        ModicumError: An option is not an integer >= 1.

    Example:
        >>> Bag(100, 7, 2)(torch.tensor([[5, 6, 0], [5, 6, 6]])).shape
        torch.Size([2, 2])

    Reference:
        Iyyer et al., Deep Unordered Composition Rivals Syntactic Methods for Text Classification, ACL 2015.
    """

    def __init__(self, vocabulary: int, length: int, outputs: int, *, width: int = 128) -> None:
        super().__init__()
        positive(width=width)
        self.embedding = nn.Embedding(vocabulary, width)
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, width) the hidden layer."""
        out: Tensor = self.body(mean_of_tokens(self.embedding(x), x != 0))
        return out


class Transformer(Network):
    """A transformer encoder with learned positions; its representation is the mean over the tokens that are there.

    Blocks normalize first: x + attention(norm(x)), then x + mlp(norm(x)) with 4 width hidden units and GELU.

    Args:
        vocabulary: Number of tokens, padding included.
        length: Most tokens of a row.
        outputs: Number of classes, 1 for regression.
        width: Of the embeddings.
        heads: Attention heads; they divide the width.
        layers: Number of blocks.

    Raises:
        ModicumError: An option is not an integer >= 1, or heads does not divide width.

    Example:
        >>> Transformer(100, 7, 2)(torch.tensor([[5, 6, 0], [5, 6, 6]])).shape
        torch.Size([2, 2])

    Reference:
        Vaswani et al., Attention Is All You Need, 2017, arXiv 1706.03762.
    """

    def __init__(
        self, vocabulary: int, length: int, outputs: int, *, width: int = 64, heads: int = 4, layers: int = 2
    ) -> None:
        super().__init__()
        positive(width=width, heads=heads, layers=layers)
        if width % heads:
            raise ModicumError(f"model option heads={heads} must divide width={width}")
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def embed(self, x: Tensor) -> Tensor:
        """(n, length, width) embeddings of token numbers, positions added."""
        h: Tensor = self.embedding(x) + self.positions[: x.shape[1]]
        return h

    def encode(self, h: Tensor, present: Tensor) -> Tensor:
        """(n, length, width) the normalized last block.

        Args:
            h: (n, length, width) embedded tokens.
            present: (n, length) which tokens are there; the others are not attended to.
        """
        for block in self.blocks:
            h = block(h, present)
        out: Tensor = self.norm(h)
        return out

    def tokens(self, x: Tensor) -> Tensor:
        """(n, length, width) the state of each token after the last block."""
        return self.encode(self.embed(x), x != 0)

    def features(self, x: Tensor) -> Tensor:
        """(n, width) the mean of the last block over the tokens that are there."""
        return mean_of_tokens(self.tokens(x), x != 0)


class Block(nn.Module):
    """Self-attention, then two linear layers, each on what is normalized and added to what came in.

    Args:
        width: Of the embeddings; the hidden layer has four times as many units.
        heads: Attention heads; they divide the width.

    Example:
        >>> Block(8, 2)(torch.rand(3, 5, 8), torch.ones(3, 5, dtype=torch.bool)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """(n, length, width) from (n, length, width) and (n, length), the tokens that are there."""
        h = self.attend(h, present)
        out: Tensor = h + self.mlp(self.between(h))
        return out

    def attend(self, h: Tensor, present: Tensor) -> Tensor:
        """The first half."""
        n, length, width = h.shape
        # matrix products rather than the fused kernel: they batch over many models and their operations are counted
        q, k, v = self.qkv(self.before(h)).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        # the lowest number rather than minus infinity: a row of nothing but padding must not become NaN
        attention = attention.masked_fill(~present[:, None, None], torch.finfo(attention.dtype).min).softmax(-1)
        out: Tensor = h + self.out((attention @ v).transpose(1, 2).reshape(n, length, width))
        return out


def mean_of_tokens(h: Tensor, present: Tensor) -> Tensor:
    """(n, d) the mean of (n, length, d) over the tokens that are there, zero where there is none.

    Example:
        >>> mean_of_tokens(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])).tolist()
        [[2.0]]
    """
    mask = present.unsqueeze(-1).to(h.dtype)
    return (h * mask).sum(1) / mask.sum(1).clamp(min=1)
