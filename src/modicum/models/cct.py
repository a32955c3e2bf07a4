"""Compact transformers for small data: CCT with convolutional tokens, CVT and ViT-Lite with patches."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from modicum.errors import ModicumError
from modicum.models.base import positive
from modicum.models.compact import CompactTransformer

__all__ = ["cct", "cvt", "vit_lite"]

SIZES = {2: (2, 1, 128), 4: (2, 1, 128), 6: (4, 2, 256), 7: (4, 2, 256), 14: (6, 3, 384)}
"""Heads, ratio and width by the number of layers, as published."""


def cct(
    shape: tuple[int, ...],
    outputs: int,
    *,
    layers: int = 7,
    convolutions: int = 1,
    kernel: int = 3,
    heads: int | None = None,
    ratio: int | None = None,
    width: int | None = None,
    positions: str = "learnable",
    pool: str = "sequence",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
) -> CompactTransformer:
    """The compact convolutional transformer CCT-layers/kernel x convolutions.

    Tokens are the positions of a map after `convolutions` times a convolution without bias of stride
    max(1, kernel // 2 - 1), ReLU and maximum pooling by 2; all but the last have 64 channels. CCT-2/3x2 is
    `cct(layers=2, convolutions=2)`. Published training drops 0.1 of the attention weights and has a stochastic depth of
    0.1; here nothing is drawn unless it is asked for.

    Args:
        shape: (channels, height, width) of an image.
        outputs: Number of classes, 1 for regression.
        layers: Number of encoder blocks; 2, 4, 6, 7 and 14 are published sizes.
        convolutions: Of the tokenizer.
        kernel: Its side in pixels.
        heads: Attention heads; as published for the number of layers when None.
        ratio: Hidden units of a block's perceptron, in widths; as published when None.
        width: Of a token; as published when None.
        positions: `learnable`, `sine` or `none`.
        pool: `sequence`, a weighted mean of all tokens, or `class`, a token of its own.
        dropout: Share of activations dropped in training.
        attention_dropout: Share of attention weights dropped in training.
        stochastic_depth: Share of samples that skip the last block in training.

    Returns:
        The network.

    Raises:
        ModicumError: An option makes no sense, a size is not published and not given, or one token is left.

    Example:
        >>> sum(p.numel() for p in cct((3, 32, 32), 10, layers=2, convolutions=2).parameters())
        283723

    Reference:
        Hassani et al., Escaping the Big Data Paradigm with Compact Transformers, 2021, arXiv 2104.05704.
    """
    positive(convolutions=convolutions, kernel=kernel)
    heads, ratio, width = _size(layers, heads, ratio, width)
    stride, padding = max(1, kernel // 2 - 1), max(1, kernel // 2)
    channels = [shape[0], *[64] * (convolutions - 1), width]
    parts: list[nn.Module] = []
    sides = list(shape[1:])
    for inside, outside in pairwise(channels):
        parts += [nn.Conv2d(inside, outside, kernel, stride, padding, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        sides = [((side + 2 * padding - kernel) // stride) // 2 + 1 for side in sides]
    return CompactTransformer(
        nn.Sequential(*parts),
        sides[0] * sides[1],
        outputs,
        layers=layers,
        heads=heads,
        ratio=ratio,
        width=width,
        positions=positions,
        pool=pool,
        dropout=dropout,
        attention_dropout=attention_dropout,
        stochastic_depth=stochastic_depth,
    )


def cvt(
    shape: tuple[int, ...],
    outputs: int,
    *,
    layers: int = 7,
    patch: int = 4,
    heads: int | None = None,
    ratio: int | None = None,
    width: int | None = None,
    positions: str = "learnable",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
) -> CompactTransformer:
    """The compact vision transformer CVT-layers/patch: tokens are patches, pooled by their own weights.

    Args:
        shape: (channels, height, width) of an image.
        outputs: Number of classes, 1 for regression.
        layers: Number of encoder blocks; 2, 4, 6, 7 and 14 are published sizes.
        patch: Side of a patch in pixels; it divides the image.
        heads: Attention heads; as published for the number of layers when None.
        ratio: Hidden units of a block's perceptron, in widths; as published when None.
        width: Of a token; as published when None.
        positions: `learnable`, `sine` or `none`.
        dropout: Share of activations dropped in training.
        attention_dropout: Share of attention weights dropped in training.
        stochastic_depth: Share of samples that skip the last block in training.

    Returns:
        The network.

    Raises:
        ModicumError: An option makes no sense, a size is not published and not given, or the patch does not divide
            the image.

    Example:
        >>> sum(p.numel() for p in cvt((3, 32, 32), 10, layers=6).parameters())
        3190283

    Reference:
        Hassani et al., Escaping the Big Data Paradigm with Compact Transformers, 2021, arXiv 2104.05704.
    """
    heads, ratio, width = _size(layers, heads, ratio, width)
    tokenizer, tokens = _patches("cvt", shape, patch, width)
    return CompactTransformer(
        tokenizer,
        tokens,
        outputs,
        layers=layers,
        heads=heads,
        ratio=ratio,
        width=width,
        positions=positions,
        dropout=dropout,
        attention_dropout=attention_dropout,
        stochastic_depth=stochastic_depth,
    )


def vit_lite(
    shape: tuple[int, ...],
    outputs: int,
    *,
    layers: int = 7,
    patch: int = 4,
    heads: int | None = None,
    ratio: int | None = None,
    width: int | None = None,
    positions: str = "learnable",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
) -> CompactTransformer:
    """The small vision transformer ViT-Lite-layers/patch: tokens are patches, and a class token is read.

    Args:
        shape: (channels, height, width) of an image.
        outputs: Number of classes, 1 for regression.
        layers: Number of encoder blocks; 2, 4, 6, 7 and 14 are published sizes.
        patch: Side of a patch in pixels; it divides the image.
        heads: Attention heads; as published for the number of layers when None.
        ratio: Hidden units of a block's perceptron, in widths; as published when None.
        width: Of a token; as published when None.
        positions: `learnable`, `sine` or `none`.
        dropout: Share of activations dropped in training.
        attention_dropout: Share of attention weights dropped in training.
        stochastic_depth: Share of samples that skip the last block in training.

    Returns:
        The network.

    Raises:
        ModicumError: An option makes no sense, a size is not published and not given, or the patch does not divide
            the image.

    Example:
        >>> sum(p.numel() for p in vit_lite((3, 32, 32), 10, layers=6).parameters())
        3190538

    Reference:
        Hassani et al., Escaping the Big Data Paradigm with Compact Transformers, 2021, arXiv 2104.05704.
    """
    heads, ratio, width = _size(layers, heads, ratio, width)
    tokenizer, tokens = _patches("vit-lite", shape, patch, width)
    return CompactTransformer(
        tokenizer,
        tokens,
        outputs,
        layers=layers,
        heads=heads,
        ratio=ratio,
        width=width,
        positions=positions,
        pool="class",
        dropout=dropout,
        attention_dropout=attention_dropout,
        stochastic_depth=stochastic_depth,
    )


def _size(layers: int, heads: int | None, ratio: int | None, width: int | None) -> tuple[int, int, int]:
    positive(layers=layers)
    known = SIZES.get(layers, (heads, ratio, width))
    size = tuple(chosen if chosen is not None else usual for chosen, usual in zip((heads, ratio, width), known))
    if None in size:
        raise ModicumError(
            f"model option layers={layers} is no published size ({', '.join(map(str, SIZES))}); "
            "give heads, ratio and width too"
        )
    positive(**{name: value for name, value in zip(("heads", "ratio", "width"), size) if value is not None})
    return size  # type: ignore[return-value]  # none is None


def _patches(name: str, shape: tuple[int, ...], patch: int, width: int) -> tuple[nn.Module, int]:
    positive(patch=patch)
    channels, *sides = shape
    if any(side % patch for side in sides):
        raise ModicumError(
            f"{name}(patch={patch}) cuts the image into squares of {patch} px, which do not fit into "
            f"{sides[0]} x {sides[1]} px; choose another patch, or use cct"
        )
    return nn.Conv2d(channels, width, patch, patch), (sides[0] // patch) * (sides[1] // patch)
