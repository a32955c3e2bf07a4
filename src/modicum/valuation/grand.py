"""GraNd: the norm of the gradient of a sample early in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from modicum.arrays import Array, tensor
from modicum.errors import DataError
from modicum.flops import count_flops
from modicum.methods import Card
from modicum.options import check_options
from modicum.reading import labels_of
from modicum.scores import Scores
from modicum.valuation.spread import mean_and_error, mean_of_runs

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.gradients import Gradients, GradientTable

__all__ = ["Grand", "grand"]


def grand(gradients: Array | tuple[Array, Array]) -> Array:
    """The expected norm of the gradient of each sample.

    `E_runs ||grad_theta l(x_i, y_i; theta)||_2`. Gradients of the last linear layer are `e h^T` with the error
    `e = p - e_y` and the input h of the layer, followed by a 1 for the bias, so that their norm is
    `||p - e_y|| sqrt(1 + ||h||^2)`: EL2N times the length of h. Give those as their two factors. Norms over all
    parameters, without the gradients: `modicum.measurement.gradient_norms`.

    Args:
        gradients: (n, p) of every sample, (runs, n, p) of several models, or two factors of them, ((runs,) n, c) and
            ((runs,) n, d + 1).

    Returns:
        (n,) difficulties, higher = harder, in nats per unit of the parameters.

    Raises:
        DataError: Another shape, not finite, or factors that do not fit each other.

    Example:
        >>> errors, inputs = torch.tensor([[0.6, -0.8]]), torch.tensor([[2.0, 2.0, 1.0]])
        >>> grand((errors, inputs)).tolist(), grand(torch.kron(errors, inputs)).round(decimals=4).tolist()
        ([3.0], [3.0])

    Reference:
        Paul, Ganguli, Dziugaite, Deep Learning on a Data Diet, 2021, arXiv 2107.07075.
    """
    factors = gradients if isinstance(gradients, tuple) else (gradients,)
    shape = "(n, p) or (runs, n, p)"
    names = ("gradients",) if len(factors) == 1 else tuple(f"gradients[{i}]" for i in range(len(factors)))
    checked = [tensor(name, factor, (2, 3), shape) for name, factor in zip(names, factors)]
    if (isinstance(gradients, tuple) and len(checked) != 2) or checked[0].shape[:-1] != checked[-1].shape[:-1]:
        got = ", ".join(str(tuple(factor.shape)) for factor in checked)
        raise DataError(f"gradients are factors of shapes {got}; expected two with the same runs and samples")
    norms: Tensor = torch.linalg.vector_norm(checked[0], dim=-1)
    if len(checked) == 2:
        norms = norms * torch.linalg.vector_norm(checked[1], dim=-1).to(norms.device)
    return mean_of_runs(norms, factors[0])


@dataclass(frozen=True)
class Grand:
    """Hard samples are those that move a young model most. At the initial weights this says little, so a model is
    trained for a part of its schedule first, at least one epoch.

    Args:
        runs: Training runs from different initial weights that are averaged.
        until: Share of the training run after which the gradients are taken.
        last_layer: Gradients of the last linear layer only, which need no backward pass.

    Raises:
        ModicumError: A number out of range.
    """

    runs: int = 10
    until: float = 0.1
    last_layer: bool = False

    card: ClassVar[Card] = Card(
        key="grand",
        title="Norm of the gradient early in training",
        paper="Paul, Ganguli, Dziugaite, Deep Learning on a Data Diet, 2021, arXiv 2107.07075",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_options(self, positive=("runs", "until"), shares=("until",))

    def needs(self) -> tuple[Gradients]:
        """Models at one moment of their training."""
        from modicum.measurement.gradients import Gradients

        return (Gradients((self.until,), self.runs),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """The mean over runs, with its standard error; charged for the passes over the samples."""
        labels = labels_of("train", data.train, classes=2)
        table: GradientTable = measured[0]
        order = table.positions(data.train)
        with ctx.ledger.clock("choose", self.card.key) as counts:
            with count_flops() as counter:
                first = self._norms(table, 0)
            rows = torch.stack([first, *(self._norms(table, run) for run in range(1, table.runs))])
            found = torch.empty_like(rows)
            found[:, order] = rows
            values, errors = mean_and_error(found)
            counts.update(samples=len(labels) * table.runs, extra_flops=counter.flops * table.runs)
            counts.update(uncounted=counter.uncounted)
        unit = "norm of the gradient" + (" of the last layer" if self.last_layer else "")
        return Scores(values, data.train.ids, self.card.key, "difficulty", unit, labels.numpy(), errors=errors)

    def _norms(self, table: GradientTable, run: int) -> Tensor:
        """(n,) float64 norms of one run, in the order of the ids."""
        found = grand(table.factors("train", run)) if self.last_layer else table.norms("train", run)
        return found.cpu().double()
