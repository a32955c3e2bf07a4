"""TracIn: what a sample did to the validation loss while the model was trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from modicum.arrays import Array, back, real, tensor
from modicum.context import generator
from modicum.errors import DataError, ModicumError
from modicum.flops import count_flops
from modicum.methods import Card
from modicum.reading import labels_of
from modicum.scores import Scores
from modicum.valuation.spread import mean_and_error

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.gradients import Gradients, GradientTable

__all__ = ["Tracin", "tracin", "tracin_fast", "tracin_sketch"]


def tracin(train_gradients: Array, valid_gradients: Array | None, rates: Array, *, per_target: bool = False) -> Array:
    """By how much each training sample lowered the validation loss, from gradients at checkpoints (TracInCP).

    `phi_i = sum_k eta_k <grad l_i(theta_k), g(theta_k)>` with the mean gradient g of the validation samples; of each one
    with `per_target`. Without validation gradients it is the self-influence `sum_k eta_k ||grad l_i(theta_k)||^2`.

    Args:
        train_gradients: (checkpoints, n, p).
        valid_gradients: (checkpoints, m, p), or None for self-influence.
        rates: (checkpoints,) learning rates, >= 0.
        per_target: Whether to give the matrix instead of its mean over the validation samples.

    Returns:
        (n,) values in the unit of the loss, positive = it helped; (m, n) with `per_target`.

    Raises:
        DataError: No checkpoints, shapes that do not fit, a negative rate, or numbers that are not finite.

    Example:
        >>> import numpy as np
        >>> g = np.array([[[1.0, 0.0], [-1.0, 1.0]]])
        >>> tracin(g, g[:, :1], np.array([0.1])).tolist(), tracin(g, None, np.array([0.1])).tolist()
        ([0.1, -0.1], [0.1, 0.2])

    Reference:
        Pruthi, Liu, Sundararajan and Kale, Estimating Training Data Influence by Tracing Gradient Descent, 2020,
        arXiv 2002.08484.
    """
    g = tensor("train_gradients", train_gradients, (3,), "(checkpoints, n, p)")
    eta = _rates(rates, len(g)).to(g)
    if valid_gradients is None:
        return _like(torch.einsum("k,kn->n", eta, g.square().sum(2)), train_gradients)
    v = _fits(tensor("valid_gradients", valid_gradients, (3,), "(checkpoints, m, p)"), "valid_gradients", g)
    if per_target:
        total = g.new_zeros(v.shape[1], g.shape[1])
        for rate, at_valid, at_train in zip(eta, v, g):
            total += rate * (at_valid @ at_train.mT)
        return _like(total, train_gradients)
    return _like(torch.einsum("k,kn->n", eta, (g @ v.mean(1)[:, :, None])[..., 0]), train_gradients)


def tracin_fast(
    train_factors: tuple[Array, Array], valid_factors: tuple[Array, Array] | None, rates: Array, *,
    per_target: bool = False,
) -> Array:  # fmt: skip
    """The same for the last linear layer, from the two factors of its gradient.

    The gradient of a sample is `e h^T`, so that `<g_i, g_t> = <e_i, e_t> <h_i, h_t>`: no gradient is formed. The factors
    are those of `modicum.measurement.per_sample.last_layer_gradients`, `e = p - e_y` and the input of the layer followed
    by a 1 for the bias, which makes `<h_i, h_t> + 1` of the product of the inputs.

    Args:
        train_factors: (checkpoints, n, c) and (checkpoints, n, d).
        valid_factors: (checkpoints, m, c) and (checkpoints, m, d), or None for self-influence.
        rates: (checkpoints,) learning rates, >= 0.
        per_target: See `tracin`.

    Returns:
        (n,) values, or (m, n) with `per_target`.

    Raises:
        DataError: See `tracin`.

    Example:
        >>> import numpy as np
        >>> e, h = np.array([[[-0.5, 0.5], [0.5, -0.5]]]), np.array([[[1.0, 1.0], [1.0, 1.0]]])
        >>> tracin_fast((e, h), (e[:, :1], h[:, :1]), np.array([1.0])).tolist()
        [1.0, -1.0]
    """
    e, h = (tensor(f"train_factors[{i}]", t, (3,), "(checkpoints, n, c)") for i, t in enumerate(train_factors))
    if e.shape[:2] != h.shape[:2]:
        raise DataError(
            f"train_factors have shapes {tuple(e.shape)} and {tuple(h.shape)}; expected as many rows in both"
        )
    eta = _rates(rates, len(e)).to(e)
    if valid_factors is None:
        norms = e.square().sum(2) * h.square().sum(2)
        return _like(torch.einsum("k,kn->n", eta, norms), train_factors[0])
    pairs = enumerate(zip(valid_factors, (e, h)))
    f, w = (
        _fits(tensor(f"valid_factors[{i}]", t, (3,), "(checkpoints, m, c)"), f"valid_factors[{i}]", like)
        for i, (t, like) in pairs
    )
    if per_target:
        total = e.new_zeros(f.shape[1], e.shape[1])
        for k, rate in enumerate(eta):
            total += rate * (f[k] @ e[k].mT) * (w[k] @ h[k].mT)
        return _like(total, train_factors[0])
    mean = f.mT @ w / f.shape[1]
    return _like(torch.einsum("k,kn->n", eta, ((e @ mean) * h).sum(2)), train_factors[0])


def tracin_sketch(errors: Array, features: Array, dimensions: int, seed: int = 0) -> Array:
    """A short vector for each sample, whose inner products are those of the last-layer gradients in the mean.

    `vec((A e) (B h)^T)` with Gaussian matrices A (r, c) and B (s, d) of variance 1/r and 1/s, `r s <= dimensions`:
    `E <z_i, z_j> = <e_i, e_j> <h_i, h_j>`. So the training samples that matter for another one are its neighbors by
    inner product. A factor that is short enough is kept as it is.

    Args:
        errors: (n, c) first factors.
        features: (n, d) second factors.
        dimensions: Of the vector, at most.
        seed: Of the matrices: the same for training and validation samples.

    Returns:
        (n, r s).

    Raises:
        DataError: Shapes do not fit, numbers are not finite, or dimensions < 1.

    Example:
        >>> tracin_sketch(torch.rand(5, 10), torch.rand(5, 100), 64).shape
        torch.Size([5, 64])
    """
    e, h = tensor("errors", errors, (2,), "(n, c)"), tensor("features", features, (2,), "(n, d)")
    if len(e) != len(h):
        raise DataError(f"errors has {len(e)} rows but features has {len(h)}")
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1:
        raise DataError(f"dimensions={dimensions!r}; expected an integer >= 1")
    r = min(e.shape[1], math.isqrt(dimensions))
    s = min(h.shape[1], dimensions // r)
    short = (_shortened(t, k, seed, name) for t, k, name in ((e, r, "errors"), (h, s, "features")))
    left, right = short
    return _like((left[:, :, None] * right[:, None]).flatten(1), errors)


def _shortened(rows: Tensor, k: int, seed: int, name: str) -> Tensor:
    if rows.shape[1] == k:
        return rows
    matrix = torch.randn(rows.shape[1], k, generator=generator(seed, "tracin", name)).to(rows)
    return rows @ matrix / math.sqrt(k)


def _rates(rates: Any, checkpoints: int) -> Tensor:
    plain = real("rates", rates, (1,), "(checkpoints,)")
    if len(plain) != checkpoints:
        raise DataError(f"rates has {len(plain)} entries for {checkpoints} checkpoints; expected one each")
    if (plain < 0).any():
        raise DataError(f"rates[{int((plain < 0).argmax())}] is {plain.min()}; expected learning rates >= 0")
    return torch.from_numpy(plain.copy())


def _fits(valid: Tensor, name: str, train: Tensor) -> Tensor:
    if len(valid) != len(train) or valid.shape[2] != train.shape[2]:
        raise DataError(
            f"{name} has shape {tuple(valid.shape)}; expected ({len(train)}, m, {train.shape[2]}), as for training"
        )
    return valid.to(train)


def _like(result: Tensor, like: Array) -> Array:
    return back(result.cpu().numpy(), like)


@dataclass(frozen=True)
class Tracin:
    """TracIn at checkpoints evenly over the run: a value, or the self-influence, a difficulty that finds wrong labels.

    The rate of a checkpoint is the mean learning rate of the steps since the one before, as the paper takes it constant
    there. Memory beyond the weights: with `last`, (n + m) (c + d) numbers; with `all`, those of a forward pass of a
    block of samples in two directions, because the products with the mean validation gradient are made in forward mode
    and the norms by layer, never from the gradients themselves.

    Args:
        checkpoints: Moments of the run, evenly, the last one at its end; the paper takes 5 to 9.
        layers: `last`, as in the paper, or `all`, which tells more where a network fits its wrong labels.
        against: `valid`: the effect on the mean validation loss. `self`: on the sample's own loss; high is suspect, and
            the lowest are kept.
        runs: Training runs that are averaged.
    """

    checkpoints: int = 9
    layers: str = "last"
    against: str = "valid"
    runs: int = 1

    card: ClassVar[Card] = Card(
        key="tracin",
        title="Effect on the validation loss, traced through the training run",
        paper="Pruthi et al., Estimating Training Data Influence by Tracing Gradient Descent, 2020, arXiv 2002.08484",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        for name, value, known in (
            ("layers", self.layers, ("last", "all")),
            ("against", self.against, ("valid", "self")),
        ):
            if value not in known:
                raise ModicumError(f"{name}={value!r}; expected one of {known}")
        if isinstance(self.checkpoints, bool) or not isinstance(self.checkpoints, int) or self.checkpoints < 1:
            raise ModicumError(f"checkpoints={self.checkpoints!r}; expected an integer >= 1")

    def needs(self) -> tuple[Gradients]:
        """Models at the checkpoints."""
        from modicum.measurement.gradients import Gradients

        moments = tuple((k + 1) / self.checkpoints for k in range(self.checkpoints))
        return (Gradients(moments, self.runs),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """The mean over runs, with its standard error; charged for the passes over the samples."""
        labels = labels_of("train", data.train, classes=2)
        table: GradientTable = measured[0]
        order = table.positions(data.train)
        if self.against == "valid":
            labels_of("valid", data.valid)
        with ctx.ledger.clock("choose", self.card.key) as counts:
            with count_flops() as counter:
                first = self._run(table, 0)
            rows = torch.stack([first, *(self._run(table, run) for run in range(1, table.runs))])
            found = torch.empty_like(rows)
            found[:, order] = rows
            values, errors = mean_and_error(found)
            samples = len(data.train) + (len(data.valid) if self.against == "valid" else 0)
            counts.update(samples=samples * table.runs * table.checkpoints, extra_flops=counter.flops * table.runs)
            counts.update(uncounted=counter.uncounted)
        kind, order_kept = ("value", "hardest") if self.against == "valid" else ("difficulty", "easiest")
        unit = "validation loss" if self.against == "valid" else "loss of the sample itself"
        return Scores(
            values, data.train.ids, self.card.key, kind, unit, labels.numpy(), order_kept, errors  # type: ignore[arg-type]
        )  # fmt: skip

    def _run(self, table: GradientTable, run: int) -> Tensor:
        """(n,) float64 values from one run, in the order of the ids."""
        total = torch.zeros(len(table.train), dtype=torch.float64)
        for k, rate in enumerate(table.rates.tolist()):
            if self.layers == "last":
                one = torch.ones(1, dtype=torch.float64)
                pairs = [table.factors(part, run, k) for part in (("train", "valid")[: 1 + (self.against == "valid")])]  # type: ignore[arg-type]
                e, h = ([pair[i][None] for pair in pairs] for i in (0, 1))
                valid = (e[1], h[1]) if self.against == "valid" else None
                found = tracin_fast((e[0], h[0]), valid, one)
            elif self.against == "valid":
                found = table.products("train", table.mean("valid", run, k), run, k)
            else:
                found = table.norms("train", run, k).square()
            total += rate * found.cpu().double()
        return total
