"""DSA: gradient matching where real and synthetic samples of a class go through the same random transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from modicum.distillation.dc import GradientMatching, check_matching
from modicum.distillation.matching import Metric
from modicum.methods import Card, Measurement

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["DSA"]


@dataclass(frozen=True)
class DSA:
    """Gradient matching with differentiable siamese augmentation.

    `min_S sum_c D(grad l(theta; A_w(S_c)), grad l(theta; A_w(T_c)))`: a new transform w of each class in each update; the
    networks are trained on transformed synthetic samples, and so is whoever trains on the set. With `augment='none'` it is
    `dc` to the bit.

    Args:
        iterations: Networks.
        lr_img: Learning rate of the inputs; `auto` makes the first step change them by 1 %.
        momentum: Of SGD on the inputs.
        lr_net: Learning rate of the networks on the synthetic set.
        batch_real: Real samples of each class an update; all of a smaller class.
        outer: Updates a network; `auto` is `loops_for` of the samples a class.
        inner: Epochs of training between updates; `auto` likewise.
        distance: `layers`, or the worse `cos`, `mse`, `l1` of the whole gradient.
        init: `real` samples, or `noise`.
        augment: Families; `auto` is the published strategy, without flip on digits, nothing on data without pixels.
        model: The network; `auto` is the recipe's where it is a convnet or resnet, `convnet(width=32)` for other
            images, and the recipe's for tables.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> DSA(augment="crop_flip").init
        'real'

    Reference:
        Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, 2021, arXiv 2102.08259.
    """

    iterations: int = 1000
    lr_img: float | Literal["auto"] = 0.1
    momentum: float = 0.5
    lr_net: float = 0.01
    batch_real: int = 256
    outer: int | Literal["auto"] = "auto"
    inner: int | Literal["auto"] = "auto"
    distance: Metric = "layers"
    init: Literal["real", "noise"] = "real"
    augment: str = "auto"
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="dsa",
        title="Gradient matching where real and synthetic samples go through the same random transform",
        paper="Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, 2021, arXiv 2102.08259",
        saves=("samples", "compute"),
    )

    def __post_init__(self) -> None:
        check_matching(self)

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
            Floating inputs in the units of the stored data, with class indices as targets; the common protocol with the
            augmentation of the matching.

        Raises:
            DataError: The data are text, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            TrainingError: The inputs grew beyond all bounds.
        """
        run = GradientMatching(self, data.train, budget, recipe, ctx)
        run.learn("inputs", run.start(self.init), self.lr_img, momentum=self.momentum)
        return run.run(self.iterations, run.step)
