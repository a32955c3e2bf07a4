"""Products of gradients through the inverse of Kronecker factored curvature, without forming the gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from modicum.measurement.curvature import Loss
from modicum.measurement.kronecker import Kronecker, LayerFactors
from modicum.measurement.signals import layers_of, signals

__all__ = ["kronecker_scores", "kronecker_self_scores"]

ENTRIES = 1 << 25  # numbers of the preconditioned gradients that are held at a time
PRODUCTS = 1 << 24  # numbers of an intermediate product


def kronecker_scores(
    kronecker: Kronecker,
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    query: tuple[Tensor, Tensor],
    *,
    loss: Loss = "cross-entropy",
    delta: float | None = None,
    l2: float = 0.0,
    block: int = 512,
) -> Tensor:
    """`g_i^T (F + (l2 + delta) I)^-1 g_t` for all pairs of a training sample i and a query t.

    The gradient of a linear layer is `s a^T`, so a pair costs `2 o i` operations a layer and no gradient of a training
    sample is formed; where a layer is applied to several positions it is. Memory is that of the answer and of the
    preconditioned gradients of a block of queries.

    Args:
        kronecker: The factors of the layers that count.
        model: In evaluation mode.
        train: Inputs (n, *shape) and targets (n, ...).
        query: Inputs (m, *shape) and targets (m, ...).
        loss: Of a sample.
        delta: See `Kronecker.solve`.
        l2: See `Kronecker.solve`.
        block: Training samples at a time.

    Returns:
        (n, m), in the dtype of the model.
    """
    names = [layer.name for layer in kronecker.layers]
    layers = layers_of(model, names)
    inverses = [1 / layer.damped(delta, l2) for layer in kronecker.layers]
    rows = max(1, ENTRIES // sum(layer.size for layer in kronecker.layers))
    scores: Tensor | None = None
    for start in range(0, len(query[0]), rows):
        part = slice(start, start + rows)
        solved = [
            _solved(factors, inverse, s, a)
            for factors, inverse, s, a in zip(
                kronecker.layers, inverses, *_captured(model, layers, loss, query[0][part], query[1][part])
            )
        ]
        for first in range(0, len(train[0]), block):
            own = slice(first, first + block)
            captured = zip(solved, *_captured(model, layers, loss, train[0][own], train[1][own]))
            block_scores = sum(_against(matrix, s, a) for matrix, s, a in captured)
            assert isinstance(block_scores, Tensor)
            if scores is None:
                scores = block_scores.new_empty(len(train[0]), len(query[0]))
            scores[own, part] = block_scores
    assert scores is not None
    return scores


def kronecker_self_scores(
    kronecker: Kronecker,
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    *,
    loss: Loss = "cross-entropy",
    delta: float | None = None,
    l2: float = 0.0,
    block: int = 512,
) -> Tensor:
    """(n,) the diagonal `g_i^T (F + (l2 + delta) I)^-1 g_i`; of a linear layer as one matrix product."""
    layers = layers_of(model, [layer.name for layer in kronecker.layers])
    inverses = [1 / layer.damped(delta, l2) for layer in kronecker.layers]
    parts = []
    for x, y in _blocks(train, block):
        total = torch.zeros(len(x), dtype=inverses[0].dtype, device=x.device)
        for factors, inverse, s, a in zip(kronecker.layers, inverses, *_captured(model, layers, loss, x, y)):
            s, a = factors.rotated(s, a)
            if s.ndim == 2:
                total += ((s.square() @ inverse) * a.square()).sum(1)
                continue
            step = max(1, PRODUCTS // factors.size)
            each = [
                ((ps.mT @ pa).square() * inverse).sum((1, 2))
                for ps, pa in zip(torch.split(s, step), torch.split(a, step))
            ]
            total += torch.cat(each)
        parts.append(total)
    return torch.cat(parts)


def _captured(
    model: nn.Module, layers: dict[str, nn.Module], loss: Loss, x: Tensor, y: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    read, backward = signals(model, layers, loss, x, y)
    return next(backward), read


def _solved(factors: LayerFactors, inverse: Tensor, s: Tensor, a: Tensor) -> Tensor:
    """(q, o, i) preconditioned gradients of queries."""
    s, a = factors.rotated(s, a)
    gradient = s[:, :, None] * a[:, None] if s.ndim == 2 else s.mT @ a
    return factors.outputs @ (gradient.mul_(inverse) @ factors.inputs.T)


def _against(solved: Tensor, s: Tensor, a: Tensor) -> Tensor:
    """(b, q) products of the gradients of a block of samples with those of queries."""
    q, o, i = solved.shape
    if s.ndim == 3:
        step = max(1, PRODUCTS // (o * i))
        flat = solved.flatten(1).T
        return torch.cat([(ps.mT @ pa).flatten(1) @ flat for ps, pa in zip(torch.split(s, step), torch.split(a, step))])
    step = max(1, PRODUCTS // (q * min(o, i)))
    if i >= o:
        flat = solved.reshape(q * o, i).T
        parts = [
            ((pa @ flat).view(len(pa), q, o) @ ps[:, :, None])[..., 0]
            for ps, pa in zip(torch.split(s, step), torch.split(a, step))
        ]
    else:
        flat = solved.mT.reshape(q * i, o).T
        parts = [
            ((ps @ flat).view(len(ps), q, i) @ pa[:, :, None])[..., 0]
            for ps, pa in zip(torch.split(s, step), torch.split(a, step))
        ]
    return torch.cat(parts)


def _blocks(pair: tuple[Tensor, Tensor], block: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(torch.split(pair[0], block), torch.split(pair[1], block))
