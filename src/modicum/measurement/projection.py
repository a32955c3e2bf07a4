"""Random projections of long vectors: made a block at a time from counters, the same for training and validation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from modicum.context import generator
from modicum.errors import ModicumError

__all__ = ["KINDS", "Kind", "project", "project_back"]

Kind: TypeAlias = Literal["rademacher", "gaussian", "count-sketch"]
KINDS = ("rademacher", "gaussian", "count-sketch")
ENTRIES = 1 << 21  # of a dense matrix that are made at a time
CACHED = 1 << 18  # entries that are signed at a time, to stay in the cache
COLUMNS = 1 << 16  # of a sketch that are made at a time


def project(gradients: Tensor | Iterable[Tensor], dimensions: int, kind: Kind = "rademacher", seed: int = 0) -> Tensor:
    """Project vectors to few dimensions so that their inner products stay, in the mean exactly.

    `z = S g` with `E[<S g, S h>] = <g, h>`, and for each kind the standard deviation of `<S g, S h>` is at most
    `sqrt(2 / k) ||g|| ||h||`:

    - `rademacher`, `gaussian`: independent entries of variance 1/k; k operations an entry of g.
    - `count-sketch`: each entry of g is added with a random sign to one of k sums; one operation an entry of g.

    The matrix is a function of (seed, kind, k) and of the position in g: the same for every call. Of a dense one 2 MiB
    entries are there at a time, of a sketch 64 Ki columns.

    Args:
        gradients: (b, p), or pieces (b, p_1), (b, p_2), ... of the columns in order.
        dimensions: k.
        kind: Of matrix.
        seed: Of the matrix.

    Returns:
        (b, k), in the dtype and on the device of the gradients.

    Raises:
        ModicumError: An unknown kind, k < 1, no pieces, or pieces that do not fit.

    Example:
        >>> g = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
        >>> z = project(g, 64, "count-sketch")
        >>> z.shape, torch.equal(z, project([g[:, :300], g[:, 300:]], 64, "count-sketch"))
        (torch.Size([3, 64]), True)

    Reference:
        Johnson and Lindenstrauss, Extensions of Lipschitz mappings into a Hilbert space, 1984; Achlioptas,
        Database-friendly random projections, 2003; Charikar, Chen and Farach-Colton, Finding frequent items in data
        streams, 2002; Kane and Nelson, Sparser Johnson-Lindenstrauss Transforms, 2014, arXiv 1012.1577.
    """
    _check(dimensions, kind)
    start, out = 0, None
    for piece in [gradients] if isinstance(gradients, Tensor) else gradients:
        if piece.ndim != 2 or (out is not None and len(piece) != len(out)):
            raise ModicumError(
                f"gradients: a piece has shape {tuple(piece.shape)}; expected (b, p), b the same for all"
            )
        if out is None:
            out = piece.new_zeros(len(piece), dimensions)
        if kind == "count-sketch":
            for columns, sums, signs in _sums(start, start + piece.shape[1], dimensions, seed, piece):
                here, step = piece[:, columns], max(1, CACHED // len(piece))
                for a in range(0, len(sums), step):
                    few = slice(a, a + step)
                    out.index_add_(1, sums[few], here[:, few] * signs[few])
        else:
            for rows, matrix in _dense(start, start + piece.shape[1], dimensions, kind, seed, piece):
                out.addmm_(piece[:, rows], matrix)
        start += piece.shape[1]
    if out is None:
        raise ModicumError("gradients holds no pieces; expected at least one tensor (b, p)")
    return out


def project_back(vector: Tensor, size: int, kind: Kind = "rademacher", seed: int = 0) -> Tensor:
    """The transposed projection, `S^T z`: `<S g, z> = <g, S^T z>` needs one vector of p numbers and no projected g.

    Args:
        vector: (k,).
        size: p.
        kind: Of matrix.
        seed: Of the matrix.

    Returns:
        (p,).

    Raises:
        ModicumError: An unknown kind, or the vector is not one.

    Example:
        >>> g, z = torch.ones(1, 50), torch.arange(8.0)
        >>> torch.allclose(project(g, 8) @ z, g @ project_back(z, 50), atol=1e-4)
        True
    """
    if vector.ndim != 1:
        raise ModicumError(f"vector has shape {tuple(vector.shape)}; expected (k,)")
    k = len(vector)
    _check(k, kind)
    out = vector.new_empty(size)
    if kind == "count-sketch":
        for columns, sums, signs in _sums(0, size, k, seed, vector):
            out[columns] = signs * vector[sums]
    else:
        for rows, matrix in _dense(0, size, k, kind, seed, vector):
            out[rows] = matrix @ vector
    return out


def _check(dimensions: int, kind: str) -> None:
    if kind not in KINDS:
        raise ModicumError(f"kind={kind!r}; expected one of {KINDS}")
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1:
        raise ModicumError(f"dimensions={dimensions!r}; expected an integer >= 1")


def _sums(start: int, end: int, k: int, seed: int, like: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Columns of a piece that holds start..end, the sum that each is added to, and its sign."""
    for group in range(start // COLUMNS, -(-end // COLUMNS)):
        first = group * COLUMNS
        drawn = torch.randint(2 * k, (COLUMNS,), generator=generator(seed, "count-sketch", k, group))
        begin, stop = max(start, first), min(end, first + COLUMNS)
        drawn = drawn[begin - first : stop - first].to(like.device)
        yield slice(begin - start, stop - start), drawn >> 1, (1 - 2 * (drawn & 1)).to(like.dtype)


def _dense(start: int, end: int, k: int, kind: str, seed: int, like: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows start..end of the transposed matrix, (rows, k) at a time, and where they are in the piece."""
    together = max(1, ENTRIES // k)
    for group in range(start // together, -(-end // together)):
        draw = generator(seed, kind, k, group)
        first = group * together
        if kind == "gaussian":
            matrix = torch.randn(together, k, generator=draw).to(like)
        else:
            matrix = _signs(together * k, draw).reshape(together, k).to(like)
        begin, stop = max(start, first), min(end, first + together)
        rows = matrix[begin - first : stop - first]
        yield slice(begin - start, stop - start), rows.mul_(1 / math.sqrt(k))


def _signs(n: int, draw: torch.Generator) -> Tensor:
    """(n,) float32 signs, 56 of each random number."""
    words = torch.randint(1 << 56, (-(-n // 56),), generator=draw)
    octets = words.view(torch.uint8).reshape(-1, 8)[:, :7].flatten().int()
    return _TABLE.index_select(0, octets).flatten()[:n]


_TABLE = 1.0 - 2.0 * ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).float()
