"""FRePo: synthetic samples on whose features, in networks of many ages, a ridge regression predicts the real labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from modicum.data.siamese import parse_strategy
from modicum.distillation.pool import Pool
from modicum.distillation.synthesis import Synthesis
from modicum.errors import DataError, TrainingError
from modicum.methods import Card, Measurement
from modicum.models import features
from modicum.options import check_options
from modicum.training.outputs import centered_targets
from modicum.training.recipe import Recipe

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget

__all__ = ["FRePo", "PooledRun", "regression_recipe", "fitted_head", "ridge_predict"]

BLOCK = 512  # real samples in one forward pass
FLIP_MOST = 500  # synthetic samples up to which their mirror images join the regression
STEPS = ((10, 1000), (100, 2000), (500, 5000), (1000, 10_000), (5000, 40_000))  # of training on so many samples


def fitted_head(rows: Tensor, labels: Tensor, reg: float = 1e-6) -> Tensor:
    """The linear layer that fits labels best, with a ridge relative to the size of the features.

    `W = F^T (F F^T + lambda I)^-1 Y = (F^T F + lambda I)^-1 F^T Y` with `lambda = reg tr(F F^T) / m`; the smaller of the
    two systems is solved, in float64 where the device has it. Differentiable in both arguments.

    Args:
        rows: (m, d) features F.
        labels: (m, c) numbers Y.
        reg: Relative ridge > 0.

    Returns:
        (d, c) weights, in the dtype of the features.

    Raises:
        DataError: Shapes do not fit, or reg is not positive.
        TrainingError: The features are all zero or not finite.

    Example:
        >>> fitted_head(torch.eye(2), torch.tensor([[1.0], [3.0]]), reg=1.0).flatten().tolist()
        [0.5, 1.5]
    """
    if rows.ndim != 2 or labels.ndim != 2 or len(rows) != len(labels):
        raise DataError(
            f"features are {tuple(rows.shape)} and labels {tuple(labels.shape)}; expected (m, d) and (m, c)"
        )
    if not reg > 0:
        raise DataError(f"reg={reg!r}; expected a number > 0, without a ridge the system may be singular")
    dtype = rows.dtype if rows.device.type == "mps" else torch.float64
    exact, y = rows.to(dtype), labels.to(dtype)
    m, d = exact.shape
    gram = exact @ exact.T if m <= d else exact.T @ exact
    ridge = reg * exact.square().sum() / m
    if not bool(ridge.isfinite() & (ridge > 0)):
        raise TrainingError(
            "the features of the synthetic samples are all zero or not finite, so no label can be predicted from them: "
            "the network is dead or its training diverged; use a smaller lr_net, or a network with normalization"
        )
    factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=dtype, device=rows.device))
    if m <= d:
        head = exact.T @ torch.cholesky_solve(y, factor)
    else:
        head = torch.cholesky_solve(exact.T @ y, factor)
    return head.to(rows.dtype)


def ridge_predict(features_s: Tensor, labels_s: Tensor, features_t: Tensor, reg: float = 1e-6) -> Tensor:
    """Labels of target samples as the ridge regression on synthetic ones predicts them.

    `K_ts (K_ss + lambda I)^-1 Y_s` with `K_ss = F_s F_s^T`, `K_ts = F_t F_s^T` and `lambda = reg tr(K_ss) / m`. The
    kernel K_ts is never formed.

    Args:
        features_s: (m, d) of the synthetic samples.
        labels_s: (m, c) their labels.
        features_t: (n, d) of the target samples.
        reg: Relative ridge > 0.

    Returns:
        (n, c) predictions.

    Raises:
        DataError: Shapes do not fit, or reg is not positive.
        TrainingError: The features are all zero or not finite.

    Example:
        >>> s, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.eye(2)
        >>> ridge_predict(s, y, s, reg=1e-9).round(decimals=4).tolist()
        [[1.0, 0.0], [0.0, 1.0]]

    Reference:
        Zhou, Nezhadarya and Ba, Dataset Distillation using Neural Feature Regression, 2022, arXiv 2206.00719.
    """
    if features_t.ndim != 2 or features_t.shape[1:] != features_s.shape[1:]:
        raise DataError(
            f"features_s is {tuple(features_s.shape)} and features_t {tuple(features_t.shape)}; expected (m, d), (n, d)"
        )
    return features_t @ fitted_head(features_s, labels_s, reg)


def regression_recipe(model: str, samples: int, *, lr: float = 3e-4, augment: str = "none") -> Recipe:
    """How a set with regression labels is trained on: Adam on the squared error, with averaged weights.

    Adam with warm-up and a cosine to zero, weights averaged with decay 0.995; 1000 steps for 10 samples, 2000 for 100,
    5000 for 500, 10,000 for 1000, 40,000 for 5000.

    Args:
        model: The network.
        samples: In the synthetic set.
        lr: Highest learning rate.
        augment: A strategy such as `color_crop_cutout_flip_scale_rotate`, or `none`.

    Returns:
        The recipe.

    Example:
        >>> regression_recipe("convnet", 10).steps, regression_recipe("convnet", 500).steps
        (1000, 5000)

    Reference:
        Zhou, Nezhadarya and Ba, Dataset Distillation using Neural Feature Regression, 2022, arXiv 2206.00719.
    """
    import numpy as np

    sizes, steps = np.log(np.array(STEPS, dtype=float)).T
    return Recipe(
        model,
        steps=round(math.exp(float(np.interp(math.log(samples), sizes, steps)))),
        batch_size=min(500, samples),
        optimizer="adamw",
        lr=lr,
        weight_decay=0.0,
        warmup=0.1,
        loss="mse",
        ema=0.995,
        augment=() if augment in ("none", "") else (f"dsa(strategy={augment!r})",),
    )


@dataclass(frozen=True)
class FRePo:
    """Neural feature regression with pooling.

    Every iteration takes a network of a pool, fits a linear layer on its features of the synthetic samples in closed
    form, and moves samples and labels a step down the squared error of what that layer predicts of real samples:
    `sum_c (K_ts (K_ss + lambda I)^-1 Y_s - Y_t)^2 / 2`, plus a term that keeps the two largest labels of a sample apart.
    The gradient takes the network as it is, however it was trained. Then the network is trained a step on the synthetic
    samples.

    The published optimizer is LAMB; here it is Adam, whose steps have the same size on standardized inputs. The published
    network is `convnet(width=128, norm='none', growth=2)`, on images that were whitened (`zca=0.1`) where they have color.
    Memory is that of the pool, of the synthetic samples with their gradient, and of the features of one batch.

    Args:
        iterations: Steps.
        lr_img: Highest learning rate of the inputs; it falls to a tenth by a cosine.
        lr_label: Highest learning rate of the labels.
        learn_labels: Whether labels are learned or stay one-hot rows less their mean.
        batch_real: Real samples a step.
        reg: Ridge relative to the mean squared size of the features.
        pool: Number of networks.
        lifetime: Training steps after which a network is drawn anew.
        lr_net: Learning rate of Adam for the networks of the pool and for training on the set.
        flip: Whether mirror images join the regression; `auto` on images with color that are not of digits, up to 500.
        init: Start from `real` samples or from `noise`.
        augment: Augmentation of training on the set, see `DM`.
        model: The network, see `DM`.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> FRePo(iterations=100).pool
        10

    Reference:
        Zhou, Nezhadarya and Ba, Dataset Distillation using Neural Feature Regression, 2022, arXiv 2206.00719.
    """

    iterations: int = 500_000
    lr_img: float = 3e-4
    lr_label: float = 3e-4
    learn_labels: bool = True
    batch_real: int = 1024
    reg: float = 1e-6
    pool: int = 10
    lifetime: int = 100
    lr_net: float = 3e-4
    flip: Literal["auto", "yes", "no"] = "auto"
    init: Literal["real", "noise"] = "real"
    augment: str = "auto"
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="frepo",
        title="Synthetic samples on whose features a ridge regression predicts the labels of real ones",
        paper="Zhou, Nezhadarya and Ba, Dataset Distillation using Neural Feature Regression, 2022, arXiv 2206.00719",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=(
                "iterations",
                "lr_img",
                "lr_label",
                "batch_real",
                "reg",
                "pool",
                "lifetime",
                "lr_net",
            ),
            choices={"flip": ("auto", "yes", "no"), "init": ("real", "noise")},
        )
        if self.augment != "auto":
            parse_strategy(self.augment)

    def needs(self) -> tuple[Measurement, ...]:
        """No measurement."""
        return ()

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Make the synthetic set.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Synthetic samples per class, or in all, spread evenly over the classes.
            recipe: Gives the network when `model` is `auto`.
            ctx: Device, seed, ledger and store.

        Returns:
            Floating inputs in the units of the stored data, with (m, c) learned labels as targets for squared error, and
            `regression_recipe`.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            TrainingError: A network is dead, or the inputs grew beyond all bounds.
        """
        run = _Run(self, data.train, budget, recipe, ctx)
        return run.run(self.iterations, run.step, also=[run.pool])


class PooledRun(Synthesis):
    """What methods with a pool of networks and regression labels share.

    Args:
        method: With the options `init`, `lr_img`, `lr_label`, `learn_labels`, `pool`, `lifetime`, `lr_net`, `batch_real`
            and `flip`.
        train: What is distilled.
        budget: Synthetic samples per class or in all.
        recipe: Gives the network when the method's `model` is `auto`.
        ctx: Device, seed, ledger and store.
    """

    def __init__(self, method: Any, train: Dataset, budget: Budget, recipe: Recipe, ctx: Context) -> None:
        super().__init__(method, train, budget, recipe, ctx)
        self.learn("inputs", self.start(method.init), method.lr_img, adam=(0.9, 0.999))
        labels = centered_targets(self.labels, self.classes) / math.sqrt(self.classes / 10)
        self.learn("labels", labels, method.lr_label, adam=(0.9, 0.999))
        self.pool = Pool(self, method.pool, method.lifetime, method.lr_net)
        self.flips = flips(method.flip, train, len(self.labels))

    @property
    def targets(self) -> Tensor:
        """(m, c) the labels as they are now."""
        return self.learned["labels"]

    def mirrored(self, inputs: Tensor) -> Tensor:
        """The samples that enter the regression: themselves, followed by their mirror images where these are used."""
        return torch.cat([inputs, inputs.flip(-1)]) if self.flips else inputs

    def drawn(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions of random real samples, and their (n, c) centered labels on the device."""
        positions = torch.randperm(len(self.real_labels), generator=random)[: self.method.batch_real]
        return positions, centered_targets(self.real_labels[positions], self.classes).to(self.device)

    def made(self) -> tuple[Dataset, Recipe]:
        """The inputs with their labels, and the recipe of regression labels."""
        model = self.model if isinstance(self.model, str) else "auto"
        strategy = "_".join(self.strategy) or "none"
        recipe = regression_recipe(model, len(self.labels), lr=self.method.lr_net, augment=strategy)
        return self.dataset(self.inputs, self.targets), recipe

    def charge_ridge(self, m: int, n: int, d: int) -> None:
        """Enter the solve and its gradient: m synthetic and n real rows of d features; a backward pass costs twice."""
        k = min(m, d)
        forward = 2 * k * m * d + k**3 // 3 + 2 * self.classes * (k * k + m * d + n * d)
        self.extra_flops += 3 * forward


class _Run(PooledRun):
    method: FRePo

    def step(self, iteration: int) -> dict[str, float]:
        """One network, one batch, one step of samples and labels, one step of the network."""
        method, random = self.method, self.random(iteration)
        member = self.pool.choose(random)
        network = self.pool.networks[member].requires_grad_(False)
        positions, wanted = self.drawn(random)
        with torch.no_grad():
            rows_t = torch.cat([self._real(network, part) for part in torch.split(positions, BLOCK)])
        seen, labels = self.inputs.detach().requires_grad_(), self.targets.detach().requires_grad_()
        with self.flops.forward("synthetic"):
            rows = features(network, self.mirrored(seen))
        given = torch.cat([labels, labels]) if self.flips else labels
        misfit = 0.5 * (ridge_predict(rows, given, rows_t, method.reg) - wanted).square().sum(1).mean()
        pull, slope_y = torch.autograd.grad(misfit + undecided(labels), (rows, labels))
        with self.flops.backward("synthetic"):
            (slope,) = torch.autograd.grad(rows, seen, pull)
        self.flops.charge("synthetic")
        self.charge_ridge(len(rows), len(rows_t), rows.shape[1])
        self.samples += len(positions) + len(rows)
        share = 0.1 + 0.45 * (1 + math.cos(math.pi * iteration / method.iterations))
        self.optimizers["inputs"].param_groups[0]["lr"] = method.lr_img * share
        self.optimizers["labels"].param_groups[0]["lr"] = method.lr_label * share
        self.descend(inputs=slope, **({"labels": slope_y} if method.learn_labels else {}))
        network.requires_grad_(True)
        self.pool.train(member, self.inputs, self.targets, random)
        return {"loss": float(misfit.detach())}

    def _real(self, network: torch.nn.Module, part: Tensor) -> Tensor:
        x, key = self.real(part), f"real {len(part)}"
        with self.flops.forward(key):
            rows = features(network, x)
        self.flops.charge(key)
        return rows


def undecided(labels: Tensor) -> Tensor:
    """What labels cost that do not say which class comes first: `mean_j -min(y_j(1) - y_j(2), 1 / c)`.

    Args:
        labels: (m, c).

    Returns:
        A scalar, at least `-1 / c`.

    Example:
        >>> float(undecided(torch.tensor([[0.5, 0.25], [3.0, 0.0]])))
        -0.375
    """
    if labels.shape[1] < 2:
        return labels.new_zeros(())
    top = labels.topk(2, dim=1).values
    return -(top[:, 0] - top[:, 1]).clamp(max=1 / labels.shape[1]).mean()


def flips(flip: str, train: Dataset, samples: int) -> bool:
    """Whether mirror images join the regression."""
    if flip != "auto":
        if flip == "yes" and train.info.modality != "image":
            raise DataError(f"flip='yes' is for images, but this data set is {train.info.modality}; use 'no'")
        return flip == "yes"
    digits = set(train.info.classes) <= set("0123456789")
    color = train.info.modality == "image" and train.inputs.shape[1] == 3
    return color and not digits and samples <= FLIP_MOST
