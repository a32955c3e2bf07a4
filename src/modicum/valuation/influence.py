"""Influence: how much the validation loss would rise if a sample had not been trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from modicum.arrays import tensor
from modicum.errors import DataError, ModicumError
from modicum.flops import count_flops
from modicum.measurement.inverse_hessian import LARGEST
from modicum.measurement.kronecker import kronecker_factors
from modicum.measurement.signals import fits
from modicum.measurement.softmax import SoftmaxHead, fit_softmax
from modicum.measurement.solver import Solver, apply_inverse
from modicum.methods import Card
from modicum.reading import by_id, labels_of, rows_of
from modicum.scores import Scores
from modicum.valuation.influence_functions import influence_on_loss

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import FeatureTable
    from modicum.measurement.gradients import GradientTable
    from modicum.methods import Measurement

__all__ = ["Influence", "head_influence"]

OPERATIONS = 1e11  # to form the matrix of a head: some seconds


@dataclass(frozen=True)
class Influence:
    """Influence on the mean validation loss, of softmax regression on an encoder's features or of a trained network.

    For n samples of d features and c classes the head takes 12 n d + 24 n c bytes and 150 MB for blocks, and with `exact`
    another 32 P^2 bytes for its P = c (d + 1) weights, 800 MB at most.

    Args:
        model: `head`: softmax regression fit to convergence, whose derivatives are exact; `recipe`: the recipe's network,
            trained on the training set.
        encoder: Whose features the head reads (see `modicum.measurement.Features`).
        l2: Penalty of the head beside its mean loss, on all weights; of a network it is the recipe's weight decay.
        solver: How the curvature is inverted (see `modicum.measurement.solver.Solver`); `auto` is `exact` for a head of
            up to 5,000 weights whose matrix takes up to 10^11 operations to form, `cg` above, and `ek-fac` for a network, whose other layers are taken as constant. The
            labels that its factors need are drawn from the model with the context's seed.
        delta: Damping; None is 0, for `ek-fac` and `k-fac` a tenth of a layer's mean eigenvalue.
        newton: Whether each prediction is a Newton step on the other samples, by the sample's leverage, instead of a
            step to first order; for a head with `exact`.

    Reference:
        Koh and Liang, Understanding Black-box Predictions via Influence Functions, 2017, arXiv 1703.04730. Grosse et al.,
        Studying Large Language Model Generalization with Influence Functions, 2023, arXiv 2308.03296.
    """

    model: str = "head"
    encoder: str = "inputs"
    l2: float = 1e-2
    solver: str = "auto"
    delta: float | None = None
    newton: bool = False

    card: ClassVar[Card] = Card(
        key="influence",
        title="Influence functions on the validation loss",
        paper="Koh and Liang, Understanding Black-box Predictions via Influence Functions, 2017, arXiv 1703.04730",
        saves=("samples", "compute"),
    )

    def needs(self) -> tuple[Measurement, ...]:
        """Features for the head, the trained network for a recipe."""
        from modicum.measurement.features import Features
        from modicum.measurement.gradients import Gradients

        if self.model not in ("head", "recipe"):
            raise ModicumError(f"model={self.model!r}; expected 'head' or 'recipe'")
        return (Gradients((1.0,)) if self.model == "recipe" else Features(self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Predicted increase of the mean validation loss on removal; charged for every pass and product."""
        self.needs()
        labels = labels_of("train", data.train, classes=2)
        wanted = labels_of("valid", data.valid)
        order = by_id(data.train)
        values = np.empty(len(labels))
        with ctx.ledger.clock("choose", self.card.key) as counts:
            if self.model == "recipe":
                found, note, cost = self._of_network(measured[0], data, ctx)
            else:
                found, note, cost = self._of_head(measured[0], data, ctx, labels[order], wanted)
            values[order] = found.double().cpu().numpy()
            counts.update(cost)
        unit = "validation cross-entropy in nats"
        return Scores(values, data.train.ids, self.card.key, "value", unit, labels.numpy(), note=note)

    def _of_head(
        self, table: FeatureTable, data: Splits, ctx: Context, labels: Tensor, wanted: Tensor
    ) -> tuple[Tensor, str, dict[str, int]]:
        train = tensor("train features", rows_of("train features", table.train, data.train), (2,), "(n, d)")
        valid = tensor("valid features", rows_of("valid features", table.valid, data.valid), (2,), "(m, d)")
        if train.shape[1] != valid.shape[1]:
            raise DataError(f"valid features have {valid.shape[1]} columns but train features have {train.shape[1]}")
        classes = max(data.train.classes, int(labels.max()) + 1, int(wanted.max()) + 1)
        order = by_id(data.train).to(train.device)
        head, products = fit_softmax(train[order].to(ctx.device), labels.to(ctx.device), classes, self.l2)
        ones = torch.ones(len(valid), 1, dtype=torch.float64, device=ctx.device)
        goal = head.mean_gradient(torch.cat([valid.to(ctx.device).double(), ones], 1), wanted.to(ctx.device))
        n, size = len(labels), head.weights.numel()
        small = self.newton or n * size**2 <= OPERATIONS
        name = self.solver if self.solver != "auto" else "exact" if size <= LARGEST and small else "cg"
        found = head_influence(head, goal, Solver(name, self.delta, seed=ctx.seed), self.newton) / n
        flops = 4 * n * size * products + 2 * (n + len(valid)) * size
        flops += n * size**2 + size**3 // 3 if name == "exact" else 0
        note = f"{name}{' with Newton steps' if self.newton else ''}, softmax regression of {size:,} weights"
        return found, note, {"extra_flops": flops}

    def _of_network(self, table: GradientTable, data: Splits, ctx: Context) -> tuple[Tensor, str, dict[str, int]]:
        if self.newton:
            raise ModicumError("newton=True is for model='head'; a network has no leverage")
        table.positions(data.train)  # its samples are those of the data, in the order of their ids
        model, recipe = table.model(), table.recipe
        name = "ek-fac" if self.solver == "auto" else self.solver
        own = [(n, layer) for n, layer in model.named_modules() if any(True for _ in layer.parameters(False))]
        layers, note = tuple(n for n, layer in own if fits(layer)), name
        solver = Solver(name, self.delta, seed=ctx.seed, layers=layers if name in ("ek-fac", "k-fac") else ())
        if solver.layers and len(layers) < len(own):
            note += f" on {len(layers)} of {len(own)} layers, the linear and convolution layers"
        inputs = [d.prepare(d.inputs, ctx.device) for d in (table.train, data.valid)]
        targets = [d.prepare_targets(ctx.device) for d in (table.train, data.valid)]
        # SGD's weight decay is a penalty on the loss; AdamW's is not
        l2 = recipe.weight_decay if recipe.optimizer == "sgd" else 0.0
        with count_flops() as counter, torch.no_grad():
            model(inputs[0][:1])
        found = influence_on_loss(model, inputs[0], targets[0], inputs[1], targets[1], l2=l2, solver=solver)
        n, m = len(inputs[0]), len(inputs[1])
        # two passes for the factors, one for the gradient of each part, and one forward in the direction that was solved
        forward, backward = (5 * n + m) * counter.flops, (4 * n + 2 * m) * counter.flops
        return found, note, {"samples": 4 * n + m, "forward_flops": forward, "backward_flops": backward}


def head_influence(head: SoftmaxHead, goal: Tensor, solver: Solver, newton: bool = False) -> Tensor:
    """(n,) `goal^T H^-1 grad l_i` of a softmax head: n times the first-order change when a sample is left out.

    Args:
        head: At its minimum.
        goal: (P,) gradient of what is looked at.
        solver: How H is inverted.
        newton: Leave-one-out Newton steps, by the leverage of each sample.

    Raises:
        ModicumError: Newton steps are asked for without the inverse of the whole matrix.
    """
    exact = solver.name == "exact" or (solver.name == "auto" and head.weights.numel() <= LARGEST)
    if newton and not exact:
        raise ModicumError(
            f"newton=True needs solver='exact' and at most {LARGEST:,} weights, got solver={solver.name!r} and "
            f"{head.weights.numel():,}; use newton=False, or an encoder of fewer features"
        )
    if not newton:
        return head.products(_inverse(head, solver)(goal[:, None]))[:, 0]
    whole = head.hessian()
    inverse = _inverse(head, solver, whole)(torch.eye(len(whole), dtype=whole.dtype, device=whole.device))
    return head.products((inverse @ goal)[:, None], head.left_out_signals(inverse))[:, 0]


def _inverse(head: SoftmaxHead, solver: Solver, whole: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    if not solver.factored:
        like, product = head.weights.flatten(), head.hessian_product
        return apply_inverse(solver, product, like, lambda: head.hessian() if whole is None else whole)
    c, d = head.weights.shape
    layer = nn.Linear(d - 1, c, device=head.weights.device, dtype=head.weights.dtype)
    layer.load_state_dict({"weight": head.weights[:, :-1], "bias": head.weights[:, -1]})
    factors = kronecker_factors(
        layer, head.features[:, :-1], labels="expected", corrected=solver.name == "ek-fac"
    ).layers[0]
    # the layer's input with its 1 appended is the head's row: only the order of the weights differs
    lam = 1 / factors.damped(solver.delta, head.l2)

    def apply(b: Tensor) -> Tensor:
        rows = b.T.reshape(-1, c, d)
        return (factors.outputs @ ((factors.outputs.T @ rows @ factors.inputs) * lam) @ factors.inputs.T).flatten(1).T

    return apply
