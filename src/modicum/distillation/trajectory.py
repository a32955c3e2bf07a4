"""What all methods share that match the trajectories of experts: students of a few steps on the synthetic samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.data.siamese import Transforms, apply_dsa, draw_dsa, parse_strategy
from modicum.distillation.distilled import evaluation_recipe
from modicum.distillation.synthesis import Synthesis
from modicum.distillation.unroll import flat_network, unrolled_gradient
from modicum.errors import ModicumError, TrainingError
from modicum.measurement.experts import Experts, ExpertTable
from modicum.models import build
from modicum.options import check_options

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.distillation.distilled import Distilled
    from modicum.methods import Card
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["TrajectoryMatching", "TrajectoryOptions", "trajectory_distance"]

LEAST_RATE = 1e-6
LEAST_WAY = 1e-12  # squared; experts that stand still cannot be matched
PATIENCE = 10  # iterations in a row whose loss is not finite


def trajectory_distance(student: Tensor, start: Tensor, target: Tensor) -> Tensor:
    """How far a student is from where the expert went, relative to the way of the expert.

    `|| theta_N - theta*_{t+M} ||^2 / || theta*_t - theta*_{t+M} ||^2`, over all parameters together: 1 for a student
    that did not move, 0 for one that arrived.

    Args:
        student: Parameters theta_N of the student after its last step, any shape.
        start: theta*_t, where both began.
        target: theta*_{t+M}, where the expert arrived.

    Returns:
        A scalar.

    Raises:
        ModicumError: The shapes differ, or the expert did not move.

    Example:
        >>> start, target = torch.zeros(2), torch.tensor([2.0, 0.0])
        >>> [float(trajectory_distance(student, start, target)) for student in (start, target, target / 2)]
        [1.0, 0.0, 0.25]

    Reference:
        Cazenavette et al., Dataset Distillation by Matching Training Trajectories, 2022, arXiv 2203.11932.
    """
    if not student.shape == start.shape == target.shape:
        raise ModicumError(
            f"student is {tuple(student.shape)}, start {tuple(start.shape)} and target {tuple(target.shape)}; expected "
            "the same parameters of all three"
        )
    way = (start - target).square().sum()
    if not float(way) >= LEAST_WAY:
        raise ModicumError(
            f"the squared distance from start to target is {float(way):.3g}; expected at least {LEAST_WAY:g}: the expert "
            "did not move (one tensor given twice, or a converged expert: match earlier epochs)"
        )
    return (student - target).square().sum() / way


class TrajectoryMatching(Synthesis):
    """Synthetic samples on which a student moves as an expert does.

    Each iteration takes an expert and an epoch t, puts a student there, trains it for N steps on the synthetic samples
    and moves them, the step size of the student and whatever else is learned down the gradient of
    `trajectory_distance`. The learned tensors are `inputs`, `rate` and, where a method registers them, `logits`, whose
    softmax are then the labels, and `mean`, a moving average of the inputs that is given instead of them. What methods
    change are the functions `window`, `weight`, `perturbed`, `between`, `assigned`.

    Args:
        method: With the fields of `TrajectoryOptions`; where it has them, `inner_momentum` and `threshold` are read too.
        train: What is distilled.
        budget: Synthetic samples per class or in all.
        recipe: Gives the network when the method's `model` is `auto`.
        ctx: Device, seed, ledger and store.
        experts: Trained on the same data, networks of the same architecture.

    Raises:
        ModicumError: The experts are those of other data or of another network, or too short.
    """

    def __init__(
        self, method: Any, train: Dataset, budget: Budget, recipe: Recipe, ctx: Context, experts: ExpertTable
    ) -> None:
        super().__init__(method, train, budget, recipe, ctx)
        experts.check(train, self.model)
        if method.max_start + method.expert_epochs - 1 > experts.epochs:
            raise ModicumError(
                f"{self.key} max_start={method.max_start} with expert_epochs={method.expert_epochs} reads experts up to "
                f"epoch {method.max_start + method.expert_epochs - 1}, but they have {experts.epochs}; train them longer "
                "or start earlier"
            )
        self.experts = experts
        network = build(self.model, train, 0).to(self.device)
        theta, self.call = flat_network(network)
        self.parameters = len(theta)
        self.own = self.labels.to(self.device)
        self.inner_momentum: float = getattr(method, "inner_momentum", 0.0)
        self.threshold: float = getattr(method, "threshold", 1e30)
        self.warned = False

    def begin(self, inputs: Tensor) -> None:
        """Register what is learned.

        Args:
            inputs: (m, *shape) standardized inputs to start from.
        """
        method = self.method
        self.learn("inputs", inputs, method.lr_img, momentum=method.momentum)
        self.learn("rate", torch.tensor(float(method.lr_start)), method.lr_lr, momentum=method.momentum)

    # -- what methods change -----------------------------------------------------------------------------------------

    def window(self, iteration: int) -> tuple[int, int]:
        """The first epoch that a student may start at, and the one after the last."""
        return 0, self.method.max_start

    def weight(self, epoch: int) -> float:
        """What the loss of a student that starts at an epoch is multiplied by."""
        return 1.0

    def perturbed(self, start: Tensor, random: torch.Generator) -> Tensor:
        """(p,) where the student starts, from where the expert was."""
        return start

    def between(self, expert: int, epoch: int, start: Tensor) -> dict[int, Callable[[Tensor], Tensor]]:
        """More losses on the student, by the number of its steps after which they are taken."""
        return {}

    def assigned(self, target: Tensor) -> Tensor | None:
        """(m, c) labels of this iteration, given the weights of the expert at its target; None for those of the set."""
        return None

    # -- an iteration ------------------------------------------------------------------------------------------------

    def step(self, iteration: int) -> dict[str, float]:
        """One segment of one expert."""
        method, random = self.method, self.random(iteration)
        low, high = self.window(iteration)
        expert = int(torch.randint(self.experts.count, (1,), generator=random))
        epoch = int(torch.randint(low, high, (1,), generator=random))
        start = self.perturbed(self.experts.at(expert, epoch, self.device), random)
        target = self.experts.at(expert, epoch + method.expert_epochs, self.device)
        parts, draws = self._batches(random)
        weight, rate, labels = self.weight(epoch), self.learned["rate"], self.assigned(target)
        leaves = [self.inputs, *([self.learned["logits"]] if "logits" in self.learned else [])]

        def student(theta: Tensor, n: int, inputs: Tensor, *logits: Tensor) -> Tensor:
            at = parts[n]
            targets = self._targets(labels, at, *logits)
            x = inputs if at is None else inputs[at]
            x = apply_dsa(x, draws[n]) if self.strategy else x
            return weight * F.cross_entropy(self.call(theta, x), targets)

        sizes = [len(self.own) if at is None else len(at) for at in parts]
        made = unrolled_gradient(
            student,
            start,
            leaves,
            rate,
            lambda theta: trajectory_distance(theta, start, target),
            steps=method.syn_steps,
            momentum=self.inner_momentum,
            also=self.between(expert, epoch, start),
            mode=method.grad,
            limit=self.threshold,
            flops=self.flops,
            shape=lambda n: sizes[n],
        )
        self.samples += sum(sizes) * (1 if method.grad == "unroll" else 2)
        loss = float(made.loss)
        row = {"loss": loss, "rate": float(rate.detach()), "epoch": epoch, "skipped": float(made.skipped)}
        if made.skipped:
            self._give_up(loss)
        else:
            assert made.rates is not None
            slopes = {"inputs": made.leaves[0], "rate": made.rates}
            if len(leaves) > 1:
                slopes["logits"] = made.leaves[1]
            self.descend(**{name: slope for name, slope in slopes.items() if slope is not None})
            self._keep_positive()
        if "mean" in self.learned:
            with torch.no_grad():
                self.learned["mean"].lerp_(self.inputs, 1 - method.ema)
        return row

    def made(self) -> tuple[Dataset, Recipe]:
        """The inputs with their labels, and the common protocol with the learned rate."""
        logits = self.learned.get("logits")
        targets = None if logits is None else logits.detach().softmax(1)
        strategy, model = "_".join(self.strategy) or "none", self.model if isinstance(self.model, str) else "auto"
        rate = max(LEAST_RATE, float(self.learned["rate"].detach()))
        recipe = evaluation_recipe(model, len(self.labels), augment=strategy, lr=rate)
        return self.dataset(self.learned.get("mean", self.inputs), targets), recipe

    def _targets(self, assigned: Tensor | None, at: Tensor | None, *logits: Tensor) -> Tensor:
        if assigned is not None:
            targets = assigned
        else:
            targets = logits[0].softmax(1) if logits else self.own
        return targets if at is None else targets[at]

    def _batches(self, random: torch.Generator) -> tuple[list[Tensor | None], list[Transforms]]:
        """Of every step of the student: positions in the synthetic set, None for all of it; and the transforms."""
        steps, size, m = self.method.syn_steps, self.method.batch_syn, len(self.own)
        parts: list[Tensor | None] = [None] * steps
        if 0 < size < m:
            parts = []
            while len(parts) < steps:
                parts += torch.split(torch.randperm(m, generator=random), size)
            parts = [None if at is None else at.to(self.device) for at in parts[:steps]]
        lengths = [m if at is None else len(at) for at in parts]
        draws = [draw_dsa(self.strategy, n, random, one_family=True) for n in lengths] if self.strategy else []
        return parts, draws

    def _give_up(self, loss: float) -> None:
        """Iterations that give no direction are left out, but not forever."""
        bad = [not isfinite(value) for value in [*self.history.get("loss", []), loss][-PATIENCE:]]
        if len(bad) == PATIENCE and all(bad):
            raise TrainingError(
                f"{self.key}: the loss of the last {PATIENCE} iterations is not finite; students diverge at the learned "
                f"rate {float(self.learned['rate'].detach()):.4g}: use a smaller lr_start, lr_lr or lr_img"
            )

    def _keep_positive(self) -> None:
        rate = self.learned["rate"]
        if float(rate.detach()) >= LEAST_RATE:
            return
        if not self.warned:  # where the rate is nothing, nothing moves, and it would be said in every iteration
            warnings.warn(
                f"{self.key}: the learned rate fell to {float(rate.detach()):.3g} and is held at {LEAST_RATE:g}; use a "
                f"smaller lr_lr than {self.method.lr_lr:g}",
                stacklevel=3,
            )
        self.warned = True
        with torch.no_grad():
            rate.fill_(LEAST_RATE)


@dataclass(frozen=True)
class TrajectoryOptions:
    """Options that the methods share which match trajectories.

    Args:
        iterations: Segments of experts that are matched, each a step of the synthetic samples.
        syn_steps: N, steps of the student.
        expert_epochs: M, epochs of the expert that the student is to catch up with.
        max_start: T+; students start at epochs 0..T+ - 1 of an expert. Early ones suit small sets.
        batch_syn: Synthetic samples a step of the student; 0 for all.
        lr_img: Step size on the standardized inputs; `auto` chooses it so that the first step changes them by 1 %.
        lr_lr: Step size on the learned rate.
        lr_start: The student's rate at the beginning.
        momentum: Of these steps.
        init: Start from `real` samples or from `noise`.
        augment: Families drawn for every batch of students and experts, such as `color_crop`, or `none`; `auto` is
            everything, without flip where classes are digits, and nothing on data without pixels.
        model: The network; `auto` is the recipe's where it is a convnet or resnet, `convnet(width=32)` for other
            images, and the recipe's for tables.
        grad: `adjoint`, exact at the memory of one step; `unroll`, exact too; `tesla` (see `unrolled_gradient`).
        experts: Number of experts.
        epochs: Of each; 0 for as many as are read. Published are 50, which is the same, as the learning rate is constant.
        lr_expert: Learning rate of the experts.
        batch_real: Real samples a step of the experts.
    """

    iterations: int = 5000
    syn_steps: int = 30
    expert_epochs: int = 2
    max_start: int = 20
    batch_syn: int = 0
    lr_img: float | Literal["auto"] = 1000.0
    lr_lr: float = 1e-5
    lr_start: float = 0.01
    momentum: float = 0.5
    init: Literal["real", "noise"] = "real"
    augment: str = "auto"
    model: str = "auto"
    grad: Literal["adjoint", "unroll", "tesla"] = "adjoint"
    experts: int = 100
    epochs: int = 0
    lr_expert: float = 0.01
    batch_real: int = 256

    if TYPE_CHECKING:
        card: ClassVar[Card]
    runs: ClassVar[type[TrajectoryMatching]] = TrajectoryMatching

    def __post_init__(self) -> None:
        positive = ("iterations", "syn_steps", "expert_epochs", "max_start", "lr_start", "experts", "lr_expert")
        check_options(
            self,
            positive=(*positive, "batch_real"),
            not_negative=("batch_syn", "lr_lr", "epochs"),
            below_one=("momentum",),
            choices={"init": ("real", "noise"), "grad": ("adjoint", "unroll", "tesla")},
        )
        if not (self.lr_img == "auto" or (isinstance(self.lr_img, (int, float)) and self.lr_img > 0)):
            raise ModicumError(
                f"method {self.card.key!r} option lr_img={self.lr_img!r}; expected a number > 0 or 'auto'"
            )
        if 0 < self.epochs < self.last_epoch:
            raise ModicumError(
                f"method {self.card.key!r} option epochs={self.epochs}; expected 0, or at least {self.last_epoch} = "
                f"max_start + expert_epochs - 1, the last epoch that is read"
            )
        if self.augment != "auto":
            parse_strategy(self.augment)

    @property
    def last_epoch(self) -> int:
        """The last epoch of the experts that is read."""
        return self.max_start + self.expert_epochs - 1

    def needs(self) -> tuple[Experts, ...]:
        """The experts."""
        return (
            Experts(
                count=self.experts,
                epochs=self.epochs or self.last_epoch,
                lr=self.lr_expert,
                batch_size=self.batch_real,
                augment=self.augment,
                model=self.model,
            ),
        )

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Make the synthetic set.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Synthetic samples per class, or in all, spread evenly over the classes.
            recipe: Gives the network when `model` is `auto`.
            ctx: Device, seed, ledger and store.
            measured: The experts, an `ExpertTable`; measured now when it is not given.

        Returns:
            Floating inputs in the units of the stored data with their labels; the common protocol, with the learned rate
            and the augmentation of the matching.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            ModicumError: The experts are those of other data or of another network, or too short.
            TrainingError: Students or inputs grew beyond all bounds.
        """
        experts = measured[0] if measured else self.needs()[0].measure(data, recipe, ctx)
        run = self.runs(self, data.train, budget, recipe, ctx, experts)
        run.begin(run.start(self.init))
        return run.run(self.iterations, run.step)
