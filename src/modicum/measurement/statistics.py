"""Statistics: cheap numbers about every sample that say how unlike the others it is, whatever it is about."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modicum.context import Context
from modicum.dataset import Dataset, Splits
from modicum.measurement.cache import cached
from modicum.measurement.features import Features
from modicum.measurement.wording import wording
from modicum.reading import by_id
from modicum.training.recipe import Recipe

__all__ = ["Statistics", "StatisticsTable", "image_statistics", "typicality"]

REFERENCE = 2048  # samples that every sample is compared with
PARTS = (4, 16, 64)  # principal components after which the rest of a sample is measured
NEAREST = (1, 5)
BLOCK = 1 << 22
IMAGE_STATISTICS = (
    *("mean", "deviation", "least", "median", "most", "rows' change", "columns' change", "curvature", "flat share"),
    *("center across", "center down", "spread", "border", "fine share"),
)


@dataclass(frozen=True, eq=False)
class StatisticsTable:
    """What `Statistics` measured.

    Args:
        train: (n, d) float32 numbers of the training samples.
        names: What they are, d texts.
    """

    train: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class Statistics:
    """Numbers that tell damaged samples from whole ones; no label is read.

    Every kind of data: how far a sample is from its neighbors and from the principal components of all. Texts: how
    usual their words, pairs and triples of words are in the other texts, how they begin and end, how much the last of
    several texts shares with the first, whether simple calculations in them are right (see
    `modicum.measurement.wording.wording`). Images: brightness, contrast, edges, place and fineness of what is on them.
    """

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> StatisticsTable:
        """Count, or read from the cache; charged to `ctx.ledger` as choosing."""
        rows = Features("inputs").measure(data, recipe, ctx).train
        description = {"train": data.train.fingerprint, "seed": ctx.seed, "version": 1}
        names: list[str] = []

        def make(inner: Context) -> dict[str, Tensor]:
            order = by_id(data.train)
            with inner.ledger.clock("choose", "statistics", samples=len(order)) as counts:
                made, found = _statistics(data.train[order], rows[order], inner)
                counts["extra_flops"] = 2 * rows.numel() * (min(REFERENCE, len(rows)) + max(PARTS))
            table = torch.empty_like(made)
            table[order] = made
            names.extend(found)
            return {"train": table}

        measured, ledger = cached("statistics", description, ctx, make)
        ctx.ledger.charges.extend(ledger.charges)
        return StatisticsTable(measured["train"], tuple(names) or statistic_names(data.train))

    def trainings(self) -> float:
        """None."""
        return 0.0


def statistic_names(dataset: Dataset) -> tuple[str, ...]:
    """What the columns of the statistics of a data set are called."""
    typical = (*(f"beyond {q} components" for q in PARTS), *(f"distance {k}" for k in NEAREST))
    if dataset.info.modality == "text" and dataset.info.vocabulary:
        return (*typical, *wording(dataset.inputs[:1], dataset.info.vocabulary)[1])
    return (*typical, *IMAGE_STATISTICS) if dataset.info.modality == "image" else typical


def _statistics(dataset: Dataset, rows: Tensor, ctx: Context) -> tuple[Tensor, tuple[str, ...]]:
    tables = [typicality(rows, ctx.generator("statistics"))]
    if dataset.info.modality == "text" and dataset.info.vocabulary:
        tables.append(torch.from_numpy(wording(dataset.inputs, dataset.info.vocabulary)[0]).float())
    elif dataset.info.modality == "image":
        tables.append(torch.cat([image_statistics(part.float()) for _, part in dataset.batches(1024)]))
    return torch.cat(tables, 1), statistic_names(dataset)


def typicality(rows: Tensor, generator: torch.Generator) -> Tensor:
    """How unlike the others every sample is, on a logarithmic scale.

    `log(1e-6 + ||r_q||)`, with `r_q` what the first q = 4, 16, 64 principal components leave of the sample, and
    `log(1e-6 + d_k)`, with `d_k` the distance to its k-th neighbor, k = 1, 5, among at most 2,048 other samples. Time is
    `2048 n d`, memory beside the rows 32 kB for each column and some 100 MB.

    Args:
        rows: (n, d) features.
        generator: Of which samples are compared with.

    Returns:
        (n, 5) numbers; where there are too few samples or columns, columns of zeros.

    Example:
        >>> rows = torch.cat([torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.full((1, 3), 9.0)])
        >>> int(typicality(rows, torch.Generator().manual_seed(0))[:, 3].argmax())
        50
    """
    n, d = rows.shape
    center = rows.mean(0, dtype=torch.float64)
    picks = torch.randperm(n, generator=generator)[:REFERENCE].sort().values
    some = rows[picks].double() - center
    basis = torch.linalg.eigh(some.T @ some).eigenvectors.flip(1) if d <= 1024 else _basis(some)
    reach = min(max(NEAREST), len(picks) - 1)
    left = torch.zeros(n, len(PARTS), dtype=torch.float64)
    near = torch.zeros(n, len(NEAREST), dtype=torch.float64)
    own = torch.full((n,), -1)
    own[picks] = torch.arange(len(picks))
    step = max(1, BLOCK // max(len(picks), d))
    for start in range(0, n, step):
        part = slice(start, start + step)
        centered = rows[part].double() - center
        along, length = (centered @ basis[:, : max(PARTS)]).square().cumsum(1), centered.square().sum(1)
        for j, q in enumerate(PARTS):
            if q < min(d, n):
                left[part, j] = (length - along[:, q - 1]).clamp(min=0).sqrt().add(1e-6).log()
        if not reach:
            continue
        distances = torch.cdist(centered, some, compute_mode="use_mm_for_euclid_dist")
        here = (own[part] >= 0).nonzero().flatten()
        distances[here, own[part][here]] = torch.inf
        nearest = distances.topk(reach, largest=False).values
        near[part] = torch.stack([nearest[:, min(k, reach) - 1] for k in NEAREST], 1)
    return torch.cat([left, near.add(1e-6).log()], 1).float()


def _basis(some: Tensor) -> Tensor:
    right: Tensor = torch.linalg.svd(some, full_matrices=False).Vh
    return right.T


def image_statistics(images: Tensor) -> Tensor:
    """Numbers about brightness, contrast, edges, place and fineness of images.

    Brightness is the mean over the channels, on a scale on which the brightest pixel of the images is 1 when that is
    larger. With `D` the differences of neighboring pixels: means of |D| down and across, of |D D|, the share of
    neighbors that are equal, the first two moments of where the brightness lies, the mean at the border, and
    `mean |x - blurred x| / (1e-6 + deviation)`.

    Args:
        images: (n, c, h, w) floating, h and w at least 3.

    Returns:
        (n, 14) numbers, in the order of `IMAGE_STATISTICS`.

    Example:
        >>> flat, noise = torch.zeros(1, 1, 8, 8), torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> table = image_statistics(torch.cat([flat, noise]))
        >>> bool(table[0, 7] < table[1, 7])
        True
    """
    gray = images.float().mean(1)
    gray = gray / (255.0 if float(gray.abs().max()) > 32 else 16.0 if float(gray.abs().max()) > 1.5 else 1.0)
    n, h, w = gray.shape
    flat = gray.flatten(1)
    down, across = gray.diff(dim=1), gray.diff(dim=2)
    curve = (gray[:, 2:, 1:-1] + gray[:, :-2, 1:-1] + gray[:, 1:-1, 2:] + gray[:, 1:-1, :-2]) / 4 - gray[:, 1:-1, 1:-1]
    mass = flat - flat.min(1, keepdim=True).values + 1e-6
    mass = (mass / mass.sum(1, keepdim=True)).reshape(n, h, w)
    y, x = torch.linspace(-1, 1, h), torch.linspace(-1, 1, w)
    center_x, center_y = (mass.sum(1) * x).sum(1), (mass.sum(2) * y).sum(1)
    spread = (mass.sum(1) * x**2).sum(1) + (mass.sum(2) * y**2).sum(1) - center_x**2 - center_y**2
    border = torch.cat([gray[:, 0], gray[:, -1], gray[:, :, 0], gray[:, :, -1]], 1).mean(1)
    quantiles = torch.quantile(flat, torch.tensor([0.05, 0.5, 0.95]), dim=1)
    deviation = flat.std(1)
    columns = [flat.mean(1), deviation, *quantiles, down.abs().mean((1, 2)), across.abs().mean((1, 2))]
    columns += [curve.abs().mean((1, 2)), (across.abs() < 1e-3).float().mean((1, 2)), center_x, center_y, spread]
    columns += [border, curve.abs().mean((1, 2)) / (1e-6 + deviation)]
    return torch.stack(columns, 1)
