"""KIP: synthetic samples on which kernel ridge regression, an infinitely wide network, answers the real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from modicum.distillation.kernels import kernel_of
from modicum.distillation.ridge import kernel_weights, label_solve
from modicum.distillation.synthesis import Synthesis
from modicum.errors import DataError, ModicumError
from modicum.methods import Card, Measurement, make
from modicum.options import check_options
from modicum.spec import parse_call
from modicum.training.outputs import centered_targets
from modicum.training.recipe import Recipe

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget

__all__ = ["KIP", "kernel_answers", "wide_recipe"]

BLOCK = 1 << 20  # pairs of a target and a synthetic sample at a time


@dataclass(frozen=True)
class KIP:
    """Descend the error, at real samples, of kernel ridge regression on the synthetic ones.

    With labels Y (one-hot rows less 1 / c) and a kernel K, an iteration draws a balanced batch T of real samples and
    descends `1/2 mean (K_ts (K_ss + l I)^-1 Y_s - Y_t)^2`, `l = reg tr(K_ss) / m`, in the samples. With the neural tangent
    kernel this is what an infinitely wide network trained to the end on the synthetic set does on the real one, without
    training any. `labels="solved"` with `images="fixed"` is Label Solve: real samples with the best labels.

    Targets come in blocks, each with its own gradient: memory is that of a million pairs. An iteration takes of the order
    of `4 d m (k + m)` multiply-adds for k targets of d numbers. The set is for wide networks trained with squared error;
    the paper works on images standardized channel by channel, its sequel whitens color images (`zca=0.1`).

    Args:
        iterations: Steps; 300 to 1000 are published.
        lr_img: Learning rate of Adam, for samples and learned labels.
        targets: Real samples in an iteration, the same number of each class; all where there are no more.
        reg: Ridge, relative to the mean of the diagonal of the kernel.
        kernel: `fc_ntk`, `conv_ntk` (small images), `rbf` or `laplace`, with options such as `fc_ntk(depth=3)`.
        labels: `fixed` to the classes, `learned` by descent, or `solved` in closed form after each step, and for all real
            samples after the last.
        images: `learned`, or `fixed` to what they start from.
        init: `real` samples to start from, or `noise`.
        precision: `float64`, or `float32` where it is not available.
        model: The network that the set is evaluated with; `auto` is one as deep as the kernel and 1024 wide.

    Raises:
        ModicumError: An option makes no sense, or nothing is learned.

    Example:
        >>> KIP(iterations=300, labels="learned").targets
        5000

    Reference:
        Nguyen, Chen and Lee, Dataset Meta-Learning from Kernel Ridge-Regression, 2021, arXiv 2011.00050.
    """

    iterations: int = 1000
    lr_img: float = 0.04
    targets: int = 5000
    reg: float = 1e-6
    kernel: str = "fc_ntk(depth=1)"
    labels: Literal["fixed", "learned", "solved"] = "fixed"
    images: Literal["learned", "fixed"] = "learned"
    init: Literal["real", "noise"] = "real"
    precision: Literal["float64", "float32"] = "float64"
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="kip",
        title="Synthetic samples, and labels, on which an infinitely wide network answers the real samples",
        paper="Nguyen, Chen and Lee, Dataset Meta-Learning from Kernel Ridge-Regression, 2021, arXiv 2011.00050",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("iterations", "lr_img", "targets"),
            not_negative=("reg",),
            choices={
                "labels": ("fixed", "learned", "solved"),
                "images": ("learned", "fixed"),
                "init": ("real", "noise"),
                "precision": ("float64", "float32"),
            },
        )
        kernel_of(self.kernel)
        if self.precision == "float32" and self.reg < 1e-8:
            raise ModicumError(f"kip reg={self.reg!r} with precision='float32'; expected reg >= 1e-8, or 'float64'")
        if self.images == self.labels == "fixed":
            raise ModicumError("kip images='fixed' and labels='fixed' leave nothing to learn; change one of them")

    def needs(self) -> tuple[Measurement, ...]:
        """No measurement."""
        return ()

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Make the synthetic set.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Synthetic samples per class, or in all, spread evenly over the classes.
            recipe: Gives the network with the `conv_ntk` kernel when `model` is `auto`.
            ctx: Device, seed, ledger and store.

        Returns:
            Floating inputs in the units of the stored data, ids `kip-<class>-<k>`; targets are class indices, or (m, c)
            numbers where labels are learned or solved; the recipe trains a wide network with squared error. The history
            has the loss and `accuracy`, the share of the targets of the iteration that the kernel predictor gets right.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            TrainingError: Synthetic samples became equal, or grew beyond all bounds.
        """
        return _Run(self, data.train, budget, recipe, ctx).made_by_descent()


class _Run(Synthesis):
    """Descent through the closed form; the gradient of each block of targets is exact and added up."""

    method: KIP

    def __init__(self, method: KIP, train: Dataset, budget: Budget, recipe: Recipe, ctx: Context) -> None:
        super().__init__(method, train, budget, recipe, ctx)
        name, options = parse_call(method.kernel)
        if method.model == "auto" and name != "conv_ntk":
            self.model = f"mlp(hidden=1024, layers={options.get('depth', 1)})"
        self.kernel, self.dtype = kernel_of(method.kernel), getattr(torch, method.precision)
        self.truth = centered_targets(self.real_labels, self.classes).to(self.device, self.dtype)
        self.own = centered_targets(self.labels, self.classes).to(self.device, self.dtype)

    def made_by_descent(self) -> Distilled:
        """The whole run."""
        method = self.method
        start, adam, once = self.start(method.init).to(self.dtype), (0.9, 0.999), False
        if method.images == "learned":
            self.learn("inputs", start, method.lr_img, adam=adam)
        else:
            self.learned["inputs"] = start.to(self.device)
        if method.labels == "learned":
            self.learn("labels", self.own, method.lr_img, adam=adam)
        elif method.labels == "solved":
            self.learned["labels"] = self.own.clone()
            once = method.images == "fixed"
            if not once:
                self.solve_labels(self.targets(0))
        return self.run(1 if once else method.iterations, self.solve if once else self.step, self.made)

    def targets(self, iteration: int) -> Tensor:
        """Positions of the real samples of an iteration."""
        if self.method.targets >= len(self.train):
            return torch.arange(len(self.train))
        return self.batch(self.random("targets", iteration), max(1, self.method.targets // self.classes))

    def step(self, iteration: int) -> dict[str, float]:
        """One step on the error at a batch of real samples."""
        batch = self.targets(iteration)
        loss, right, slopes = self.gradient(batch)
        self.descend(**{name: slopes[name] for name in self.optimizers})
        if self.method.labels == "solved":
            last = iteration + 1 == self.method.iterations
            self.solve_labels(torch.arange(len(self.train)) if last else batch)
        return {"loss": loss, "accuracy": right}

    def solve(self, iteration: int) -> dict[str, float]:
        """Label Solve: the best labels for all real samples."""
        everything = torch.arange(len(self.train))
        self.solve_labels(everything)
        loss, right, _ = self.gradient(everything)
        return {"loss": loss, "accuracy": right}

    def gradient(self, batch: Tensor) -> tuple[float, float, dict[str, Tensor]]:
        """The loss and the accuracy at real samples, and the gradients of inputs and labels."""
        x = self.inputs.detach().requires_grad_()
        y = self.learned.get("labels", self.own).detach().requires_grad_()
        m, c = y.shape
        with self.flops.forward("support"):
            support = self.kernel(x, x)
        leaf = support.detach().requires_grad_()
        weights = kernel_weights(leaf, y, self.method.reg)
        w = weights.detach().requires_grad_()
        loss, right = (torch.zeros((), device=self.device, dtype=self.dtype) for _ in range(2))
        slope_x, slope_w = torch.zeros_like(x), torch.zeros_like(w)
        for part in torch.split(batch, max(1, BLOCK // m)):
            seen, truth, key = self.real(part).to(self.dtype), self.truth[part], f"targets {len(part)}"
            with self.flops.forward(key):
                kernel = self.kernel(seen, x)
                answers = kernel @ w
            errors = (answers.detach() - truth) / (len(batch) * c)
            with self.flops.backward(key):
                more_x, more_w = torch.autograd.grad(answers, (x, w), errors)
            self.flops.charge(key)
            slope_x, slope_w = slope_x + more_x, slope_w + more_w
            loss = loss + 0.5 * (errors * (answers.detach() - truth)).sum()
            right = right + (answers.argmax(1) == self.real_labels[part].to(self.device)).sum()
        slope_k, slope_y = torch.autograd.grad(weights, (leaf, y), slope_w)
        with self.flops.backward("support"):
            (more_x,) = torch.autograd.grad(support, x, slope_k)
        self.flops.charge("support")
        self.samples += len(batch) + m
        # a Cholesky factor and its derivative, and two solves with it in each direction
        self.extra_flops += m**3 + 8 * m * m * c
        return float(loss), float(right) / len(batch), {"inputs": slope_x + more_x, "labels": slope_y}

    def solve_labels(self, batch: Tensor) -> None:
        """The labels that are best at real samples."""
        x = self.inputs.detach()
        with self.flops.forward("support"):
            support = self.kernel(x, x)
        self.flops.charge("support")
        kernels = []
        for part in torch.split(batch, max(1, BLOCK // len(x))):
            with self.flops.forward(key := f"solve {len(part)}"):
                kernels.append(self.kernel(self.real(part).to(self.dtype), x))
            self.flops.charge(key)
        self.learned["labels"].copy_(label_solve(support, torch.cat(kernels), self.truth[batch], self.method.reg))
        k, m = len(batch), len(x)
        self.samples += k + m
        self.extra_flops += m**3 // 3 + 2 * m * m * k + 6 * k * m * m  # the weights of all targets; a decomposition

    def made(self) -> tuple[Dataset, Recipe]:
        """Single precision is enough for what is stored."""
        labels = self.learned["labels"].float() if "labels" in self.learned else None
        model = self.model if isinstance(self.model, str) else "auto"
        return self.dataset(self.inputs.float(), labels), wide_recipe(model, len(self.labels))


def wide_recipe(model: str, samples: int) -> Recipe:
    """How a finite network comes close to the kernel predictor: squared error, all samples at once, small steps.

    Args:
        model: A wide network.
        samples: In the synthetic set.

    Returns:
        The recipe.

    Example:
        >>> wide_recipe("mlp(hidden=1024, layers=1)", 10).loss
        'mse'
    """
    return Recipe(
        model,
        steps=500,
        batch_size=samples,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.0,
        schedule="cosine",
        loss="mse",
    )


def kernel_answers(made: Distilled, data: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """What the kernel predictor of a set that `kip` made says of real samples.

    Args:
        made: The set; its method says which kernel and ridge.
        data: Real samples in the units of the stored data.
        device: Where to compute.

    Returns:
        (n, c) answers in the coding of the labels; the class is the largest.

    Raises:
        ModicumError: Another method made the set.
        DataError: The data have another shape.

    Example:
        >>> import modicum
        >>> made = modicum.distill("digits", "kip(iterations=20)", per_class=1)
        >>> test = modicum.load("digits").test
        >>> float((kernel_answers(made, test).argmax(1) == test.labels).float().mean()) > 0.75
        True
    """
    method = make(made.method)
    if not isinstance(method, KIP):
        raise ModicumError(f"made is by {made.method!r}; expected a set made by kip, which has a kernel")
    tiny, real, dtype = made.dataset, made.prepared(data), getattr(torch, method.precision)
    if tiny.inputs.shape[1:] != real.inputs.shape[1:]:
        raise DataError(
            f"data has inputs of {tuple(real.inputs.shape[1:])}; expected {tuple(tiny.inputs.shape[1:])}, as the set has"
        )
    kernel, x = kernel_of(method.kernel), tiny.prepare(tiny.inputs, device).to(dtype)
    assert tiny.targets is not None
    labels = centered_targets(tiny.targets, len(tiny.info.classes)).to(device, dtype)
    weights = kernel_weights(kernel(x, x), labels, method.reg)
    size = max(1, BLOCK // len(x))
    rows = [kernel(real.prepare(seen, device).to(dtype), x) @ weights for _, seen in real.batches(size)]
    return torch.cat([row.cpu() for row in rows]) if rows else torch.zeros(0, labels.shape[1], dtype=dtype)
