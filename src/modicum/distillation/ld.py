"""LD: real samples keep their inputs, and soft labels are learned that train a network best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.distillation.synthesis import Synthesis
from modicum.distillation.unroll import flat_network, unrolled_gradient
from modicum.errors import DataError, ModicumError
from modicum.methods import Card, Measurement
from modicum.models import features
from modicum.options import check_options
from modicum.training.recipe import Recipe

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget

__all__ = ["LD", "project_labels", "ridge_head"]


def project_labels(labels: Tensor) -> Tensor:
    """Soft labels made probabilities: clipped to [0, 1] and divided by the sum of the row; uniform where that is zero.

    Args:
        labels: (n, c).

    Returns:
        (n, c).

    Raises:
        DataError: Labels are not (n, c) with c >= 2.

    Example:
        >>> project_labels(torch.tensor([[0.5, 2.0], [-1.0, -2.0]])).tolist()
        [[0.3333333432674408, 0.6666666865348816], [0.5, 0.5]]

    Reference:
        Bohdal, Yang and Hospedales, Flexible Dataset Distillation, 2020, arXiv 2006.08572.
    """
    if labels.ndim != 2 or labels.shape[1] < 2:
        raise DataError(f"labels is {tuple(labels.shape)}; expected (n, c) with c >= 2 classes")
    inside = labels.clamp(0, 1)
    total = inside.sum(1, keepdim=True)
    uniform = torch.full_like(inside, 1 / labels.shape[1])
    return torch.where(total > 0, inside / total.clamp(min=torch.finfo(labels.dtype).tiny), uniform)


def ridge_head(features: Tensor, labels: Tensor, reg: float) -> Tensor:
    """The last layer that fits soft labels best, in closed form: `w = F^T (F F^T + reg I)^-1 Y`.

    A product of (b, b) rather than (d, d): it is for fewer samples than features. As reg goes to zero with b >= d it is
    least squares.

    Args:
        features: (b, d), with a column of ones for a bias.
        labels: (b, c).
        reg: Added to the diagonal, > 0.

    Returns:
        (d, c), differentiable in both.

    Raises:
        DataError: Shapes do not fit.
        ModicumError: reg is not positive.

    Example:
        >>> ridge_head(torch.eye(2), torch.eye(2), 1.0).tolist()
        [[0.5, 0.0], [0.0, 0.5]]

    Reference:
        Bertinetto et al., Meta-learning with Differentiable Closed-form Solvers, 2019, arXiv 1805.08136.
    """
    if features.ndim != 2 or labels.ndim != 2 or len(features) != len(labels):
        raise DataError(
            f"features is {tuple(features.shape)} and labels {tuple(labels.shape)}; expected (b, d), (b, c)"
        )
    if not reg > 0:
        raise ModicumError(f"reg={reg!r}; expected a number > 0")
    kernel = features @ features.T
    solved: Tensor = torch.linalg.solve(kernel + reg * torch.eye(len(kernel)).to(kernel), labels)
    return features.T @ solved


@dataclass(frozen=True)
class LD:
    """Label distillation.

    The inputs are random real samples, as many of each class, and stay as they are. One network is trained along on their
    soft labels, and each of its steps teaches them: after a virtual step of size `alpha` on a batch of them, or, with
    `first_order`, with the head that ridge regression gives on their features, the cross-entropy of real samples is
    differentiated with respect to the labels; Adam moves them, and they are made probabilities again. When the mean loss
    of the last `window` steps has not fallen for as many, a new network begins. How long the last three fell is how long a
    network is to be trained on the set.

    Args:
        iterations: Outer steps; 24,000 are 400 epochs of 60,000 samples.
        first_order: Whether the head is solved for instead of a step differentiated: no second derivatives.
        lr_label: Learning rate of Adam for the labels.
        alpha: Size of the virtual step.
        lr: Learning rate of Adam for the network, in making the set and in training on it.
        batch_syn: Base samples a step; 0 for 10 of up to 20, 25 of up to 50, and 50 of more.
        batch_real: Real samples a step.
        window: Steps without progress before a new network; 0 for 50 of up to 100 samples and 200 of more.
        reg: Of the ridge regression.
        scale: Its outputs are multiplied by it before the softmax.
        model: The network; `auto` as for the other distillers. The published one is `lenet` on MNIST.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> LD(iterations=100, first_order=True).lr_label
        0.001

    Reference:
        Bohdal, Yang and Hospedales, Flexible Dataset Distillation: Learn Labels Instead of Images, 2020, arXiv 2006.08572.
    """

    iterations: int = 24_000
    first_order: bool = False
    lr_label: float = 1e-3
    alpha: float = 0.01
    lr: float = 1e-3
    batch_syn: int = 0
    batch_real: int = 1024
    window: int = 0
    reg: float = 1.0
    scale: float = 1.0
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="ld",
        title="Soft labels of real samples, learned so that they train a network best",
        paper="Bohdal, Yang and Hospedales, Flexible Dataset Distillation, 2020, arXiv 2006.08572",
        saves=("samples", "labels"),
        modalities=("image", "tabular"),
    )

    def __post_init__(self) -> None:
        positive = ("iterations", "lr_label", "alpha", "lr", "batch_real", "reg", "scale")
        check_options(self, positive=positive, not_negative=("batch_syn", "window"))

    def needs(self) -> tuple[Measurement, ...]:
        """No measurement."""
        return ()

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Make the synthetic set.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Samples per class, or in all, spread evenly over the classes.
            recipe: Gives the network when `model` is `auto`.
            ctx: Device, seed, ledger and store.

        Returns:
            Real inputs with learned probabilities as targets, and the recipe with the number of steps that was learned.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            TrainingError: The labels are no longer finite.
        """
        run = _Run(self, data.train, budget, recipe, ctx)
        return run.run(self.iterations, run.step, run.made, also=[run.student])


class _Run(Synthesis):
    """Teaching labels along the training of a network."""

    method: LD

    def __init__(self, method: LD, train: Dataset, budget: Budget, recipe: Recipe, ctx: Context) -> None:
        super().__init__(method, train, budget, recipe, ctx)
        m = len(self.labels)
        self.size = min(m, method.batch_syn or (10 if m <= 20 else 25 if m <= 50 else 50))
        self.base = self.start("real").to(self.device)
        self.learn("labels", torch.full((m, self.classes), 1 / self.classes), method.lr_label, adam=(0.9, 0.999))
        self.module = self.network(self.random("network"))
        self.call = flat_network(self.module)[1]
        self.student = Student(self.fresh(0), method.lr, method.window or (50 if m <= 100 else 200))

    def fresh(self, restarts: int) -> Tensor:
        """(p,) the parameters that a network begins with."""
        return flat_network(self.network(self.random("network", restarts)))[0]

    def step(self, iteration: int) -> dict[str, float]:
        """One outer step."""
        random, student = self.random(iteration), self.student
        part = torch.randperm(len(self.labels), generator=random)[: self.size]
        batch = torch.randperm(len(self.train), generator=random)[: self.method.batch_real]
        x, y = self.real(batch), self.real_labels[batch].to(self.device)
        teach = self._by_ridge if self.method.first_order else self._by_step
        loss, slope = teach(part, x, y)
        self.descend(labels=slope)
        labels = self.learned["labels"]
        with torch.no_grad():
            labels.copy_(project_labels(labels))
        with self.flops.forward("student"):
            own = F.cross_entropy(self.call(student.theta, self.base[part]), labels.detach()[part])
        with self.flops.backward("student"):
            own.backward()  # type: ignore[no-untyped-call]
        self.flops.charge("student")
        student.step()
        self.samples += len(batch) + (2 if self.method.first_order else 3) * len(part)
        if student.stalled(float(loss)):
            student.restart(self.fresh(len(student.lengths)))
        return {"loss": float(loss), "restarts": len(student.lengths)}

    def _by_step(self, part: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        inputs = self.base[part]
        found = unrolled_gradient(
            lambda theta, n, labels: F.cross_entropy(self.call(theta, inputs), labels[part]),
            self.student.theta,
            [self.learned["labels"]],
            self.method.alpha,
            lambda theta: F.cross_entropy(self.call(theta, x), y),
            steps=1,
            flops=self.flops,
        )
        (slope,) = found.leaves
        assert slope is not None
        return found.loss, slope

    def _by_ridge(self, part: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        labels = self.learned["labels"]
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(self.student.theta.detach(), self.module.parameters())
            with self.flops.forward("features"):
                rows, real = (F.pad(features(self.module, z), (0, 1), value=1.0) for z in (self.base[part], x))
        self.flops.charge("features")
        with self.flops.forward("ridge"):
            head = ridge_head(rows, labels[part], self.method.reg)
            loss = F.cross_entropy(self.method.scale * real @ head, y)
        with self.flops.backward("ridge"):
            (slope,) = torch.autograd.grad(loss, labels)
        self.flops.charge("ridge")
        return loss.detach(), slope

    def made(self) -> tuple[Dataset, Recipe]:
        """The base samples with their labels, and for how long to train on them."""
        recipe = Recipe(
            self.model,
            steps=self.student.length,
            batch_size=self.size,
            optimizer="adamw",
            lr=self.method.lr,
            weight_decay=0.0,
            schedule="constant",
        )
        return self.dataset(self.base, self.learned["labels"]), recipe


class Student:
    """The network that is trained along: its parameters, their Adam, and when to begin anew."""

    def __init__(self, theta: Tensor, lr: float, window: int) -> None:
        self.lr, self.window = lr, window
        self.lengths: list[int] = []
        self.begin(theta)

    def restart(self, theta: Tensor) -> None:
        """Another network; how long the loss of the last one fell is kept."""
        self.lengths.append(self.best)
        self.begin(theta)

    def begin(self, theta: Tensor) -> None:
        """A network."""
        self.theta = nn.Parameter(theta.clone())
        self.optimizer = torch.optim.Adam([self.theta], self.lr)
        self.losses: list[float] = []
        self.steps, self.best, self.lowest = 0, 1, math.inf

    def step(self) -> None:
        """One of its own steps."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def stalled(self, loss: float) -> bool:
        """Whether the mean of the last losses has not fallen for as many steps."""
        self.steps += 1
        self.losses = [*self.losses[1 - self.window :], loss] if self.window > 1 else [loss]
        mean = sum(self.losses) / len(self.losses)
        if len(self.losses) == self.window and mean < self.lowest:
            self.lowest, self.best = mean, self.steps
        return self.steps - self.best >= self.window and len(self.losses) == self.window

    @property
    def length(self) -> int:
        """Steps to train on the set: the mean of the last three networks, or where the first one is."""
        last = self.lengths[-3:] or [self.best]
        return max(1, round(sum(last) / len(last)))

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {
            "theta": self.theta.detach(),
            "optimizer": self.optimizer.state_dict(),
            "numbers": [self.steps, self.best, self.lowest],
            "losses": self.losses,
            "lengths": self.lengths,
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        with torch.no_grad():
            self.theta.copy_(state["theta"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self.best, self.lowest = state["numbers"]
        self.losses, self.lengths = state["losses"], state["lengths"]
