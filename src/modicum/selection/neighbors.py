"""Nearest neighbors of every sample among the others: exact in blocks, or nearly so for millions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, center_of, unit_rows
from modicum.arrays import features as checked_features
from modicum.errors import DataError

__all__ = ["METRICS", "neighbor_graph"]

METRICS = ("euclidean", "cosine")
BLOCK = 1 << 23  # entries of a block of distances
GROUP = 16  # columns whose minimum is looked at first
EXACT = 100_000  # samples up to which all pairs are compared unless told otherwise
REFINED = 10  # neighbors whose neighbors are looked at too
TRAINED_ON = 40  # samples a cell that the cells are found on


def neighbor_graph(
    features: Array, k: int, metric: str = "euclidean", approximate: bool | None = None, probes: int = 32
) -> tuple[Array, Array]:
    """The k nearest other samples of every sample, nearest first; ties among those compared go to the lower position.

    Exact: all pairs in blocks, n^2 d multiplications. Approximate: the samples are parted into about 2 sqrt(n) cells by
    k-means, and a sample is compared with those of the `probes` cells nearest its own: about probes / (2 sqrt(n)) of the
    pairs. The candidates come from one matrix product; the distances that are returned are computed again from the
    differences, so that equal rows are at distance 0.

    Memory is twice that of the features, the answer, and blocks of 32 MB each.

    Args:
        features: (n, d).
        k: Neighbors of each, 1 to n - 1.
        metric: `euclidean`, or `cosine`: one less the cosine of the angle.
        approximate: Whether to search cells; above 100,000 samples when None.
        probes: Cells that are searched; more find more of the true neighbors.

    Returns:
        (n, k) int64 positions and (n, k) distances.

    Raises:
        DataError: Features of another shape or not finite, a row that is zero where angles are asked, k, metric or
            probes out of range.

    Example:
        >>> indices, distances = neighbor_graph(np.array([[0.0], [1.0], [3.0]]), 2)
        >>> indices.tolist(), distances.tolist()
        ([[1, 2], [0, 2], [1, 0]], [[1.0, 3.0], [1.0, 2.0], [2.0, 3.0]])

    Reference:
        Jegou, Douze, Schmid, Product Quantization for Nearest Neighbor Search, 2011 (the inverted file of cells).
    """
    plain = checked_features("features", features)
    n = len(plain)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k < n:
        raise DataError(f"k={k!r}; expected an integer from 1 to n - 1 = {n - 1}, the number of other samples")
    if metric not in METRICS:
        raise DataError(f"metric={metric!r}; expected one of {METRICS}")
    if isinstance(probes, bool) or not isinstance(probes, (int, np.integer)) or probes < 1:
        raise DataError(f"probes={probes!r}; expected an integer >= 1")
    plain = unit_rows("features", plain) if metric == "cosine" else plain - center_of(plain).astype(plain.dtype)
    device = features.device if isinstance(features, Tensor) else torch.device("cpu")
    rows = torch.from_numpy(plain).to(device)
    search = _cells if (n > EXACT if approximate is None else approximate) else _all_pairs
    indices, distances = search(rows, int(k), probes)
    if metric == "cosine":
        distances.square_().div_(2)  # of unit rows: ||u - v||^2 = 2 - 2 <u, v>
    if isinstance(features, Tensor):
        return indices, distances
    return indices.cpu().numpy(), distances.cpu().numpy()


def _all_pairs(rows: Tensor, k: int, probes: int) -> tuple[Tensor, Tensor]:
    everything = torch.arange(len(rows), device=rows.device)
    indices, distances = _empty(rows, k)
    step = max(1, BLOCK // len(rows))
    for start in range(0, len(rows), step):
        mine = everything[start : start + step]
        indices[mine], distances[mine] = _nearest(rows[mine], mine, rows, everything, k)
    return indices, distances


def _cells(rows: Tensor, k: int, probes: int) -> tuple[Tensor, Tensor]:
    n = len(rows)
    cells = max(1, round(2 * n**0.5))
    centers = rows[torch.linspace(0, n - 1, cells, device=rows.device).long()].clone()
    some = rows[torch.linspace(0, n - 1, min(n, TRAINED_ON * cells), device=rows.device).long()]
    for _ in range(5):
        of = _assigned(some, centers)
        counts = torch.bincount(of, minlength=cells)
        sums = torch.zeros_like(centers).index_add_(0, of, some)
        centers = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centers)
    of = _assigned(rows, centers)
    order = torch.argsort(of, stable=True)
    members = torch.split(order, torch.bincount(of, minlength=cells).tolist())
    near = torch.argsort(torch.cdist(centers, centers), stable=True, dim=1)
    indices, distances = _empty(rows, k)
    for cell, mine in enumerate(members):
        if not len(mine):
            continue
        searched, found = [], 0
        for place, other in enumerate(near[cell].tolist()):
            if place >= probes and found > k:
                break
            searched.append(members[other])
            found += len(members[other])
        candidates = torch.cat(searched).sort().values
        table = rows[candidates]
        for part in torch.split(mine, max(1, BLOCK // len(candidates))):
            indices[part], distances[part] = _nearest(rows[part], part, table, candidates, k)
    _refined(rows, indices, distances)
    return indices, distances


def _empty(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (len(rows), k)
    return torch.empty(shape, dtype=torch.int64, device=rows.device), rows.new_empty(shape)


def _assigned(rows: Tensor, centers: Tensor) -> Tensor:
    """(n,) the cell of each row."""
    squares, step = torch.linalg.vecdot(centers, centers), max(1, BLOCK // len(centers))
    of = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    # one buffer for all blocks: small results between large blocks would leave holes in the heap that none fits into
    apart = centers.new_empty((min(step, len(rows)), len(centers)))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        of[start : start + step] = torch.addmm(squares, part, centers.T, alpha=-2, out=apart[: len(part)]).argmin(1)
    return of


def _nearest(queries: Tensor, at: Tensor, table: Tensor, positions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of the table's rows, whose sorted positions are given, that are not the query itself."""
    squares = torch.linalg.vecdot(table, table)
    found = torch.addmm(squares, queries, table.T, alpha=-2)
    own = torch.searchsorted(positions, at)
    found[torch.arange(len(at), device=at.device), own] = torch.inf
    # a few more than asked, as rounding may misplace those at the edge
    width = min(k + 4, len(positions) - 1)
    places = smallest(found, width)
    near = found.gather(1, places)
    edge = near.sort(1).values[:, k - 1]
    slack = 4 * table.shape[1] ** 0.5 * torch.finfo(found.dtype).eps * float(squares.max())
    tied = (near.amax(1) <= edge + slack) & (width < len(positions) - 1)
    some = tied.nonzero().flatten()
    if len(some):  # more at the edge than were looked at: the first of them too
        columns = torch.arange(len(positions), dtype=found.dtype, device=found.device)
        beside = (found[some] - edge[some, None]).abs() <= slack
        first = smallest(torch.where(beside, columns, torch.inf), k)
        more = places[:, :1].repeat(1, k)
        more[some] = torch.where(beside.gather(1, first), first, more[some])
        places = torch.cat([places, more], 1)
    del found
    places = torch.sort(places, 1)[0]
    values, chosen = _ranked(queries, table, places, k, doubles=bool(len(some)))
    return positions[chosen], values


def _ranked(queries: Tensor, table: Tensor, places: Tensor, k: int, doubles: bool = False) -> tuple[Tensor, Tensor]:
    """Distances to the k nearest of the table's rows at sorted places (b, c), and which those are."""
    exact = queries.new_empty(places.shape)
    step = max(1, BLOCK // (places.shape[1] * table.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        exact[part] = (queries[part, None] - table[places[part]]).square_().sum(-1).sqrt_()
    if doubles:
        exact[:, 1:][places[:, 1:] == places[:, :-1]] = torch.inf
    values, order = torch.sort(exact, stable=True, dim=1)
    return values[:, :k], places.gather(1, order[:, :k])


def _refined(rows: Tensor, indices: Tensor, distances: Tensor) -> None:
    """Look among the neighbors of the neighbors too: what a cell's border hides is found from the other side."""
    k = indices.shape[1]
    near = indices[:, :REFINED].clone()
    for part in torch.split(torch.arange(len(rows), device=rows.device), max(1, BLOCK // (REFINED**2 * rows.shape[1]))):
        second = near[near[part]].flatten(1)
        own = second == part[:, None]
        second[own] = near[part][:, :1].expand_as(second)[own]
        places = torch.sort(torch.cat([indices[part], second], 1), 1)[0]
        distances[part], indices[part] = _ranked(rows[part], rows, places, k, doubles=True)


def smallest(table: Tensor, k: int) -> Tensor:
    """(b, k) places of the k least entries of every row of a table (b, m), in no order.

    They lie in the k groups of columns whose minima are least, so that one pass for the minima replaces a partial sort.
    """
    width = table.shape[1] // GROUP
    if width < 4 * k:
        return table.topk(k, largest=False, sorted=False).indices
    body = table[:, : width * GROUP].reshape(len(table), GROUP, width)
    groups = body.amin(1).topk(k, largest=False, sorted=False).indices
    offsets = torch.arange(GROUP, device=table.device) * width
    columns = (groups[:, :, None] + offsets).flatten(1)
    rest = torch.arange(width * GROUP, table.shape[1], device=table.device).expand(len(table), -1)
    columns = torch.cat([columns, rest], 1)
    return columns.gather(1, table.gather(1, columns).topk(k, largest=False, sorted=False).indices)
