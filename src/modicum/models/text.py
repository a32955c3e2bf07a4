"""Small text classifiers on token numbers: a bag of embeddings and a transformer; token 0 is padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modicum.errors import ModicumError
from modicum.models.base import Network, positive

__all__ = ["Bag", "Transformer"]


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
        out: Tensor = self.body(_mean(self.embedding(x), x != 0))
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
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def features(self, x: Tensor) -> Tensor:
        """(n, width) the mean of the last block over the tokens that are there."""
        present = x != 0
        h = self.embedding(x) + self.positions[: x.shape[1]]
        for block in self.blocks:
            h = block(h, present)
        return _mean(self.norm(h), present)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        n, length, width = h.shape
        # matrix products rather than the fused kernel: they batch over many models and their operations are counted
        q, k, v = self.qkv(self.before(h)).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        # the lowest number rather than minus infinity: a row of nothing but padding must not become NaN
        attention = attention.masked_fill(~present[:, None, None], torch.finfo(h.dtype).min).softmax(-1)
        h = h + self.out((attention @ v).transpose(1, 2).reshape(n, length, width))
        out: Tensor = h + self.mlp(self.between(h))
        return out


def _mean(h: Tensor, present: Tensor) -> Tensor:
    mask = present.unsqueeze(-1).to(h.dtype)
    return (h * mask).sum(1) / mask.sum(1).clamp(min=1)
