"""Transformers without pre-training on large data: tokens from an image, encoder blocks, and a pooling of the tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modicum.errors import ModicumError, TrainingError
from modicum.models.base import Network, positive

__all__ = ["CompactTransformer", "SequencePool"]

POSITIONS = ("learnable", "sine", "none")
POOLS = ("sequence", "class")


class SequencePool(nn.Module):
    """A weighted mean of tokens whose weights are read from the tokens: y = softmax(X g + b)' X.

    Args:
        width: Of a token.

    Example:
        >>> SequencePool(4)(torch.ones(2, 9, 4)).shape
        torch.Size([2, 4])

    Reference:
        Hassani et al., Escaping the Big Data Paradigm with Compact Transformers, 2021, arXiv 2104.05704.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(width, 1)

    def forward(self, h: Tensor) -> Tensor:
        """(n, width) of tokens (n, length, width)."""
        out: Tensor = (self.weigh(h).softmax(1).transpose(1, 2) @ h).squeeze(1)
        return out


class CompactTransformer(Network):
    """A tokenizer, positions, encoder blocks, a pooling, and the linear head.

    A block normalizes the stream itself between its two parts: x + attention(norm(x)), y = norm of that, then
    y + mlp(y).

    Args:
        tokenizer: Gives maps (n, width, rows, columns); every position of a map is a token.
        tokens: Number of positions.
        outputs: Number of classes, 1 for regression.
        layers: Number of blocks.
        heads: Attention heads; they divide the width.
        ratio: Hidden units of a block's perceptron, in widths.
        width: Of a token.
        positions: `learnable`, `sine` or `none`.
        pool: `sequence`, a weighted mean of all tokens, or `class`, a token of its own.
        dropout: Share of activations dropped in training.
        attention_dropout: Share of attention weights dropped in training.
        stochastic_depth: Share of samples that skip the last block in training; it grows linearly over the blocks.

    Raises:
        ModicumError: An option makes no sense, or there are fewer than 2 tokens.
    """

    positions: Tensor | None

    def __init__(
        self,
        tokenizer: nn.Module,
        tokens: int,
        outputs: int,
        *,
        layers: int,
        heads: int,
        ratio: int,
        width: int,
        positions: str = "learnable",
        pool: str = "sequence",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        positive(layers=layers, heads=heads, ratio=ratio, width=width)
        if width % heads:
            raise ModicumError(f"model option heads={heads} must divide width={width}")
        _among("positions", positions, POSITIONS)
        _among("pool", pool, POOLS)
        rates = {"dropout": dropout, "attention_dropout": attention_dropout, "stochastic_depth": stochastic_depth}
        for name, rate in rates.items():
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
                raise ModicumError(f"model option {name}={rate!r}; expected a share in [0, 1)")
        if tokens < 2:
            raise ModicumError(
                f"the tokenizer leaves {tokens} token of an image; expected at least 2, because tokens attend to each "
                "other: use fewer convolutions, a smaller patch, or larger images"
            )
        length = tokens + (pool == "class")
        self.tokenizer, self.tokens = tokenizer, tokens
        self.token = nn.Parameter(torch.zeros(1, 1, width)) if pool == "class" else None
        if positions == "learnable":
            self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(length, width), std=0.2))
        else:
            fixed = sines(length, width) if positions == "sine" else None
            self.register_buffer("positions", fixed, persistent=False)
        self.drop = _dropout(dropout)
        depths = [stochastic_depth * i / max(1, layers - 1) for i in range(layers)]
        self.blocks = nn.Sequential(
            *(Block(width, heads, ratio * width, dropout, attention_dropout, depth) for depth in depths)
        )
        self.norm = nn.LayerNorm(width)
        self.pool = SequencePool(width) if pool == "sequence" else None
        self.head = nn.Linear(width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def features(self, x: Tensor) -> Tensor:
        """(n, width) the pooled tokens of the last block."""
        h = self.tokenizer(x).flatten(2).transpose(1, 2)
        if h.shape[1] != self.tokens:
            raise TrainingError(
                f"inputs of shape {tuple(x.shape)} give {h.shape[1]} tokens, but the network was built for "
                f"{self.tokens}; resize the images to the size it was built for"
            )
        if self.token is not None:
            h = torch.cat([self.token.expand(len(h), -1, -1), h], 1)
        if self.positions is not None:
            h = h + self.positions
        h = self.norm(self.blocks(self.drop(h)))
        out: Tensor = h[:, 0] if self.pool is None else self.pool(h)
        return out


class Block(nn.Module):
    """One encoder block on tokens (n, length, width)."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, attention_dropout: float, depth: float
    ) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), _dropout(dropout), nn.Linear(hidden, width), _dropout(dropout)
        )
        self.drop, self.drop_attention = _dropout(dropout), _dropout(attention_dropout)
        self.skip = PathDropout(depth) if depth else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        """The tokens after the block."""
        n, length, width = h.shape
        # matrix products rather than the fused kernel: they batch over many models and their operations are counted
        q, k, v = self.qkv(self.before(h)).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attention = self.drop_attention(((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1))
        mixed = self.drop(self.out((attention @ v).transpose(1, 2).reshape(n, length, width)))
        h = self.between(h + self.skip(mixed))
        out: Tensor = h + self.skip(self.mlp(h))
        return out


class PathDropout(nn.Dropout1d):
    """In training, whole samples of a branch are zeroed, and the others are scaled up."""

    def forward(self, input: Tensor) -> Tensor:
        """The branch (n, ...), samples as the channels that a `Dropout1d` drops."""
        return super().forward(input.flatten(1)[None])[0].view_as(input)


def sines(length: int, width: int) -> Tensor:
    """(length, width) sin(p / 10000^(2i/width)) in even columns 2i, the cosine of it in odd ones.

    Example:
        >>> sines(1, 4)
        tensor([[0., 1., 0., 1.]])
    """
    columns = torch.arange(width, dtype=torch.float64)
    angles = torch.arange(length)[:, None] / 10_000 ** (columns.div(2, rounding_mode="floor") * 2 / width)
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos()).float()


def _dropout(p: float) -> nn.Module:
    return nn.Dropout(p) if p else nn.Identity()


def _among(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ModicumError(f"model option {name}={value!r}; expected {', '.join(map(repr, known))}")
