"""A memory bank: one unit vector a sample, the weights of a classifier in which every image is a class."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.context import generator
from modicum.data.views import Views
from modicum.errors import TrainingError
from modicum.losses.instance_discrimination import check_rows
from modicum.pretraining.heads import projector
from modicum.pretraining.learner import Backbone, Batches, Learner, Plan

__all__ = ["BankLearner", "corrected_bank_update", "draw_others", "ema_bank_update", "initial_bank"]

INITS = ("features", "random", "uniform")
"""What a bank may hold at the start."""


def corrected_bank_update(
    bank: Tensor, features: Tensor, indices: Tensor, probabilities: Tensor, step: float
) -> Tensor:
    """One step on the rows of a bank along the whole gradient of instance discrimination.

    The gradient of -log p_i in row k is `(p_k - 1[k = i]) v` up to the temperature, so that
    `W' = normalize(W + step (E - P)^T V)` with E the one-hot rows of the samples: a row is pulled to its own sample and
    pushed from all samples that are taken for it. The usual moving average `normalize(m w_i + (1 - m) v_i)` is the same
    with P = 0 and step = (1 - m) / m. Rows that are not passed stay as they are: pass the rows of the batch with their
    columns of P, or all candidates.

    Time is one product of (k, b) and (b, d), memory that of a few copies of the rows.

    Args:
        bank: (k, d) rows, not written to.
        features: (b, d) unit vectors.
        indices: (b,) the row of each sample; samples of the same row add up.
        probabilities: (b, k) of each row for each sample, computed with the rows as they are passed.
        step: >= 0.

    Returns:
        (k, d) the new rows, of unit length.

    Raises:
        TrainingError: Shapes do not fit, an index is no row, or the step is negative.

    Example:
        >>> bank, v = torch.eye(2), torch.tensor([[0.6, 0.8]])
        >>> new = corrected_bank_update(bank, v, torch.tensor([0]), torch.tensor([[0.5, 0.5]]), step=1.0)
        >>> [[round(x, 3) for x in row] for row in new.tolist()]
        [[0.956, 0.294], [-0.447, 0.894]]

    Reference:
        Cao and Wu, On Improving the Algorithm-, Model-, and Data- Efficiency of Self-Supervised Learning, 2024,
        arXiv 2404.19289.
    """
    shapes = [tuple(t.shape) for t in (bank, features, indices, probabilities)]
    b, k = len(indices), len(bank)
    if bank.ndim != 2 or shapes[1:] != [(b, bank.shape[1]), (b,), (b, k)]:
        raise TrainingError(
            f"bank, features, indices and probabilities have shapes {', '.join(map(str, shapes))}; "
            "expected (k, d), (b, d), (b,) and (b, k)"
        )
    if not 0 <= step < math.inf:
        raise TrainingError(f"step={step!r}; expected a number >= 0")
    if b:
        check_rows("indices", indices, bank)
    with torch.no_grad():
        pulled = bank.index_add(0, indices, features, alpha=step)
        return F.normalize(torch.addmm(pulled, probabilities.T, features, alpha=-step), dim=1, eps=1e-12)


def ema_bank_update(rows: Tensor, features: Tensor, momentum: float) -> Tensor:
    """(b, d) `normalize(m w + (1 - m) v)`, the moving average of the rows of a batch and its embeddings.

    Example:
        >>> ema_bank_update(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
        tensor([[0.7071, 0.7071]])
    """
    return F.normalize(momentum * rows + (1 - momentum) * features, dim=1, eps=1e-12)


def draw_others(n: int, taken: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Distinct positions drawn uniformly from those of n that are not taken.

    Args:
        n: Number of positions.
        taken: (b,) distinct positions.
        count: How many to draw, at most n - b.
        draw: On the CPU.

    Returns:
        (count,) positions, on the device of `taken`.

    Example:
        >>> draw_others(5, torch.tensor([1, 3]), 3, torch.Generator()).sort().values.tolist()
        [0, 2, 4]
    """
    share = (count + len(taken)) / n
    if share > 0.5:  # a permutation of everything
        free = torch.ones(n, dtype=torch.bool)
        free[taken.cpu()] = False
        order = torch.randperm(n, generator=draw)
        return order[free[order]][:count].to(taken.device)
    found = torch.zeros(n, dtype=torch.bool)
    size = math.ceil(1.1 * -n * math.log1p(-share)) + 16  # of so many draws about 1.1 share n differ
    while True:
        found[torch.randint(n, (size,), generator=draw)] = True
        found[taken.cpu()] = False
        rows = found.nonzero()[:, 0]
        if len(rows) >= count:
            return rows[torch.randperm(len(rows), generator=draw)[:count]].to(taken.device)


def initial_bank(kind: str, n: int, dimension: int, seed: int) -> Tensor:
    """(n, d) rows at the start: `random` unit vectors, or entries `uniform` of variance 1 / d, as first published.

    For `features` the rows are zero until the untrained network has seen the samples.

    Example:
        >>> initial_bank("random", 3, 4, seed=0).norm(dim=1)
        tensor([1.0000, 1.0000, 1.0000])
    """
    if kind == "features":
        return torch.zeros(n, dimension)
    draw = generator(seed, "bank")
    if kind == "random":
        return F.normalize(torch.randn((n, dimension), generator=draw), dim=1)
    return (2 * torch.rand((n, dimension), generator=draw) - 1) * math.sqrt(3 / dimension)


class BankLearner(Learner):
    """A learner with one embedding a sample and a row a sample in a bank.

    What `forward` leaves in `self.pending` are the arguments of `write`, which is called after the update of the weights:
    a step reads the rows from before it. A subclass gives `forward`, and `write` where it is no moving average.

    Args:
        backbone: What is kept in the end.
        views: Makes the one augmented view.
        plan: Of the run.
        n: Samples of the data.
        hidden: Width of the two hidden layers of the head; 0 for a linear one.
        dimension: Of the embeddings.
        bank_init: See `initial_bank`.
        momentum: Of the moving average.
    """

    bank: Tensor

    def __init__(
        self,
        backbone: Backbone,
        views: Views | None,
        plan: Plan,
        n: int,
        *,
        hidden: int,
        dimension: int,
        bank_init: str,
        momentum: float,
    ) -> None:
        super().__init__(backbone, views)
        self.head = projector((backbone.width, *([hidden, hidden] if hidden else []), dimension))
        self.bank_init, self.batch_size, self.momentum = bank_init, plan.batch_size, momentum
        self.register_buffer("bank", initial_bank(bank_init, n, dimension, plan.seed))
        self.pending: tuple[Any, ...] = ()

    def embed(self, inputs: Tensor) -> Tensor:
        """(b, d) unit vectors in single precision, so that the bank keeps its own under autocast."""
        return F.normalize(self.head(self.backbone(inputs)).float(), dim=1, eps=1e-12)

    @torch.no_grad()
    def begin(self, batches: Batches) -> None:
        """Fill the bank with the embeddings of the untrained network, which warms its statistics too."""
        if self.bank_init == "features":
            for at, inputs in batches(even_size(len(self.bank), self.batch_size)):
                self.bank[at.to(inputs.device)] = self.embed(self.views(inputs, 1)[0])

    @torch.no_grad()
    def after(self) -> None:
        """Write the rows of the step."""
        if self.pending:
            self.write(*self.pending)
            self.pending = ()

    def write(self, indices: Tensor, v: Tensor) -> None:
        """Move the rows of a batch towards its embeddings."""
        self.bank[indices] = ema_bank_update(self.bank[indices], v, self.momentum)


def even_size(n: int, most: int) -> int:
    """A batch size near `most` with which n samples part into batches of about the same size, none of a single sample.

    Example:
        >>> even_size(129, 128), even_size(1000, 128), even_size(9, 2)
        (65, 125, 3)
    """
    even = -(-n // -(-n // most))
    return next(size for size in range(even, n + 1) if n % size != 1 or n == 1)


def check_distinct(indices: Tensor) -> None:
    """Refuse a batch that has a sample twice, whose row could be written only once.

    Raises:
        TrainingError: It has.
    """
    if bool((indices.sort().values.diff() == 0).any()):
        raise TrainingError(
            "indices holds a position twice, and its row can be written only once a step; visit samples without "
            "replacement"
        )
