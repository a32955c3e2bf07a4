"""G-Shapley: Data Shapley of a model in training, one gradient step for each sample that joins."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from modicum.arrays import Array, class_indices, tensor
from modicum.errors import DataError
from modicum.methods import Card
from modicum.reading import labels_of, rows_of
from modicum.scores import Scores
from modicum.valuation.game import Estimate
from modicum.valuation.permutations import PermutationRun, carry_out
from modicum.valuation.players import as_scores, checked, steps_of

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.measurement.features import Features

__all__ = ["GShapley", "OnePass", "g_shapley"]

RATES = tuple(10.0 ** -(1 + i / 2) for i in range(8))  # 10^-1, 10^-1.5, ..., 10^-4.5
TRIES = 10  # passes for each rate
QUERIES = 1024  # that many networks answer at once
LIGHT = 1 << 12  # queries of softmax regressions whose matrices are small


def g_shapley(
    train_inputs: Array,
    train_targets: Array,
    valid_inputs: Array,
    valid_targets: Array,
    generator: torch.Generator,
    permutations: int = 1000,
    learning_rate: float | None = None,
    model: Callable[[int], nn.Module] | None = None,
    antithetic: bool = True,
    stop: str = "change",
    threshold: float | None = None,
) -> Estimate:
    """Gradient Shapley: marginal contributions along one epoch of stochastic gradient descent.

    For each permutation weights `theta_0` are drawn and `theta_j = theta_{j-1} - a grad loss(theta_{j-1}, x_j, y_j)`; the
    sample in place j is given `v(theta_j) - v(theta_{j-1})`, v being the validation accuracy, the first one included: a
    permutation adds up to `v(theta_n) - v(theta_0)`. The model is a softmax regression, whose permutations are all trained
    at once, at O(d c + m (d + c)) for a sample that joins; or any network, at one pass over the m validation samples.

    Args:
        train_inputs: (n, *shape) finite numbers; (n, d) for the softmax regression.
        train_targets: (n,) class indices.
        valid_inputs: (m, *shape).
        valid_targets: (m,) class indices.
        generator: Of permutations and initial weights.
        permutations: At most so many; rounded up to even when antithetic.
        learning_rate: a; the best of one pass when None (see `OnePass.search`).
        model: Makes a network from a seed, such as `lambda seed: build("mlp", data, seed)`; it runs in evaluation mode,
            because batches of one sample have no batch statistics. Softmax regression when None.
        antithetic: See `tmc_shapley`.
        stop: See `tmc_shapley`.
        threshold: See `tmc_shapley`.

    Returns:
        Values in units of accuracy, standard errors, how many permutations there were, and a note.

    Raises:
        DataError: Shapes do not fit, or an argument is out of range.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> x, y = torch.tensor([[1.0], [2.0], [-1.0], [-2.0]]), torch.tensor([0, 0, 1, 1])
        >>> g_shapley(x, y, x, y, draw, 20, learning_rate=1.0).values.sum() > 0
        np.True_

    Reference:
        Ghorbani, Zou, Data Shapley: Equitable Valuation of Data for Machine Learning, 2019, arXiv 1904.02868.
    """
    game = OnePass(train_inputs, train_targets, valid_inputs, valid_targets, generator, learning_rate, model)
    return carry_out(PermutationRun(game, ["shapley"], generator, permutations, None, 0, antithetic, stop, threshold))[
        0
    ]


class OnePass:
    """A game whose prefixes are the steps of one epoch of batches of one sample (see `g_shapley`).

    Args:
        train_inputs: See `g_shapley`.
        train_targets: See `g_shapley`.
        valid_inputs: See `g_shapley`.
        valid_targets: See `g_shapley`.
        generator: Of the initial weights, and of the search for a learning rate.
        learning_rate: See `g_shapley`.
        model: See `g_shapley`.

    Raises:
        DataError: Shapes do not fit, or an argument is out of range.
    """

    def __init__(
        self,
        train_inputs: Any,
        train_targets: Any,
        valid_inputs: Any,
        valid_targets: Any,
        generator: torch.Generator,
        learning_rate: float | None = None,
        model: Callable[[int], nn.Module] | None = None,
    ) -> None:
        if learning_rate is not None and not learning_rate > 0:
            raise DataError(f"learning_rate={learning_rate}; expected a number > 0, or None to search one")
        ndim, shape = ((2,), "(n, d), one row a sample") if model is None else (tuple(range(1, 9)), "(n, *shape)")
        x, queries = (
            tensor("train_inputs", train_inputs, ndim, shape),
            tensor("valid_inputs", valid_inputs, ndim, shape),
        )
        if x.shape[1:] != queries.shape[1:]:
            raise DataError(f"valid_inputs have shape {tuple(queries.shape)} but train_inputs {tuple(x.shape)}")
        y = torch.from_numpy(class_indices("train_targets", train_targets, len(x)))
        wanted = torch.from_numpy(class_indices("valid_targets", valid_targets, len(queries)))
        self.players, self.generator = len(x), generator
        self.light = model is None and len(queries) <= LIGHT  # see `one_thread`
        self.y, self.wanted = y.to(x.device), wanted.to(x.device)
        classes = int(torch.cat([y, wanted]).max()) + 1
        self.trainer: _Softmax | _Networks
        self.trainer = _Softmax(x, queries, classes) if model is None else _Networks(x, queries, model)
        self.learning_rate = self.search() if learning_rate is None else float(learning_rate)

    def search(self) -> float:
        """The learning rate of 10^-1, 10^-1.5, ..., 10^-4.5 with the greatest accuracy after one pass: the mean less the
        standard deviation over ten passes, which are the same permutations and initial weights for each rate."""
        orders = torch.stack([torch.randperm(self.players, generator=self.generator) for _ in range(TRIES)])
        seeds = torch.randint(1 << 62, (TRIES,), generator=self.generator)
        worth = []
        for rate in RATES:
            self.trainer.start(seeds)
            for at in orders.T:
                self.trainer.step(at, self.y[at.to(self.y.device)], rate)
            last = self.right()
            worth.append(float(last.mean() - last.std()))
        return float(RATES[worth.index(max(worth))])

    def right(self) -> Tensor:
        """(b,) validation accuracies now: an answer is right when no other class has a larger output."""
        outputs = self.trainer.outputs  # (b, c, m): the largest of many short rows takes several times as long
        own = outputs.gather(1, self.wanted.expand(len(outputs), 1, -1))[:, 0]
        return (own >= outputs.amax(1)).double().mean(1).cpu()

    def prefixes(self, orders: Tensor, tolerance: float | None = None, patience: int = 5) -> tuple[Tensor, Tensor]:
        """Accuracies before the first step and after each; never truncated."""
        b, n = orders.shape
        values = torch.empty(b, n + 1, dtype=torch.float64)
        self.trainer.start(torch.randint(1 << 62, (b,), generator=self.generator))
        values[:, 0] = self.right()
        for j in range(n):
            at = orders[:, j]
            self.trainer.step(at, self.y[at.to(self.y.device)], self.learning_rate)
            values[:, j + 1] = self.right()
        return values, torch.full((b,), n)


class _Softmax:
    """Many softmax regressions at once, with their outputs for the queries kept up to date."""

    def __init__(self, x: Tensor, queries: Tensor, classes: int) -> None:
        self.x, self.queries = (torch.cat([r.double(), r.new_ones(len(r), 1).double()], 1) for r in (x, queries))
        self.transposed = self.queries.T.contiguous()
        self.classes = classes

    def start(self, seeds: Tensor) -> None:
        """Weights as `nn.Linear` draws them."""
        d = self.x.shape[1]
        drawn = [torch.rand(d, self.classes, generator=_seeded(seed), dtype=torch.float64) for seed in seeds.tolist()]
        self.weights = ((2 * torch.stack(drawn) - 1) / math.sqrt(max(1, d - 1))).to(self.x.device)
        self.outputs = (self.queries @ self.weights).transpose(1, 2).contiguous()

    def step(self, at: Tensor, y: Tensor, rate: float) -> None:
        """One sample each."""
        x = self.x[at.to(self.x.device)]
        error = torch.bmm(x[:, None], self.weights)[:, 0].softmax(1)
        error.scatter_add_(1, y[:, None], error.new_full((len(y), 1), -1.0))
        error *= -rate
        self.weights.baddbmm_(x[:, :, None], error[:, None])
        self.outputs.baddbmm_(error[:, :, None], (x @ self.transposed)[:, None])


class _Networks:
    """Many networks at once, by stacked parameters."""

    def __init__(self, x: Tensor, queries: Tensor, model: Callable[[int], nn.Module]) -> None:
        self.x, self.queries, self.model = x, queries, model

    def start(self, seeds: Tensor) -> None:
        """New networks."""
        made = [self.model(seed).to(self.x.device).eval() for seed in seeds.tolist()]
        self.network = made[0]
        parameters, self.buffers = torch.func.stack_module_state(made)
        self.parameters = {name: p.detach() for name, p in parameters.items()}
        dtype = next(iter(self.parameters.values())).dtype
        self.x, self.queries = self.x.to(dtype), self.queries.to(dtype)

    def step(self, at: Tensor, y: Tensor, rate: float) -> None:
        """One sample each."""

        def loss(parameters: Any, buffers: Any, x: Tensor, target: Tensor) -> Tensor:
            outputs = torch.func.functional_call(self.network, (parameters, buffers), (x[None],))
            return nn.functional.cross_entropy(outputs, target[None])

        gradients = torch.func.vmap(torch.func.grad(loss))(
            self.parameters, self.buffers, self.x[at.to(self.x.device)], y
        )
        self.parameters = {name: p - rate * gradients[name] for name, p in self.parameters.items()}

    @property
    def outputs(self) -> Tensor:
        """(b, c, m) outputs for the queries."""

        def answer(parameters: Any, buffers: Any, queries: Tensor) -> Tensor:
            outputs: Tensor = torch.func.functional_call(self.network, (parameters, buffers), (queries,))
            return outputs.T

        every = torch.func.vmap(answer, in_dims=(0, 0, None))
        with torch.no_grad():
            return torch.cat(
                [every(self.parameters, self.buffers, part) for part in torch.split(self.queries, QUERIES)], 2
            )


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class GShapley:
    """G-Shapley of a softmax regression on an encoder's features: no retraining, one pass for each permutation.

    Memory: 8 (n d + m d + 32 (d c + m c)) bytes for n training and m validation samples of d features and c classes.

    Args:
        permutations: At most.
        learning_rate: Of the steps; the best of one pass, by validation accuracy, when None.
        encoder: Whose features (see `modicum.measurement.Features`).
        antithetic: See `tmc_shapley`.
        stop: See `tmc_shapley`.
        threshold: Of the rule.
    """

    permutations: int = 1000
    learning_rate: float | None = None
    encoder: str = "inputs"
    antithetic: bool = True
    stop: str = "change"
    threshold: float | None = None

    card: ClassVar[Card] = Card(
        key="g-shapley",
        title="Shapley values along one epoch of gradient descent",
        paper="Ghorbani, Zou, Data Shapley: Equitable Valuation of Data for Machine Learning, 2019, arXiv 1904.02868",
        saves=("samples", "labels"),
        growth=2.0,
    )

    def needs(self) -> tuple[Features]:
        """Features of the training and the validation samples."""
        from modicum.measurement.features import Features

        return (Features(self.encoder),)

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores:
        """Values with standard errors; stops at the deadline and goes on from there another time."""
        labels, order = checked(data)
        targets, wanted = labels_of("train", data.train), labels_of("valid", data.valid)
        near = rows_of("train features", measured[0].train, data.train).to(ctx.device)[order]
        query = rows_of("valid features", measured[0].valid, data.valid).to(ctx.device)
        with ctx.ledger.clock("choose", self.card.key) as counts:
            generator = ctx.generator("g-shapley")
            game = OnePass(near, targets[order], query, wanted, generator, self.learning_rate)
            run = PermutationRun(
                game,
                ["shapley"],
                generator,
                self.permutations,
                antithetic=bool(self.antithetic),
                rule=self.stop,
                threshold=self.threshold,
            )
            found = carry_out(run, steps_of(self, data, ctx))[0]
            (n, d), m, c = near.shape, len(query), game.trainer.weights.shape[2]  # type: ignore[union-attr]
            passes = found.samples + (len(RATES) * TRIES if self.learning_rate is None else 0)
            counts["extra_flops"] = passes * n * (4 * (d + 1) * c + 2 * m * (d + 1) + 2 * m * c)
            if self.learning_rate is None:
                found = found._replace(note=f"{found.note}; learning rate {game.learning_rate:.3g}")
        return as_scores(self, data, labels, order, found)
