"""SRe2L: images recovered from a teacher by the statistics of its batch norms, and labeled by it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.data.geometry import Flip, ResizedCrop
from modicum.dataset import Dataset
from modicum.distillation.synthesis import Synthesis
from modicum.distillation.teacher import Teacher
from modicum.distillation.teaching import Taught, TrainedTeacher, as_text, check_classes, student_recipe
from modicum.errors import ModicumError
from modicum.methods import Card, Measurement
from modicum.options import check_options

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["Inversion", "SRe2L", "bn_statistics_loss"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def bn_statistics_loss(model: nn.Module, inputs: Tensor, first: float = 10.0) -> tuple[Tensor, Tensor]:
    """How far the statistics of a batch are from those that the batch norms of a network have seen.

    `sum_l w_l (|| mu_l(x) - m_l ||_2 + || s_l(x) - v_l ||_2)` over batch norms l with running means m_l and variances
    v_l; mu_l and s_l are the mean and the biased variance of each channel of the layer's input, over the batch and all
    places; `w_1 = first` and the others are 1.

    Args:
        model: With batch norms, in evaluation mode.
        inputs: (n, *shape) standardized.
        first: Weight of the first layer.

    Returns:
        The loss, and the (n, c) outputs of the same pass.

    Raises:
        ModicumError: The network has no batch norm with running statistics, or is in training mode.

    Example:
        >>> network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3)).eval()
        >>> loss, outputs = bn_statistics_loss(network, torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        >>> float(loss), outputs.shape
        (0.0, torch.Size([2, 3]))

    Reference:
        Yin, Xing and Shen, Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New Perspective,
        2023, arXiv 2306.13092.
    """
    if model.training:
        raise ModicumError(
            "the model is in training mode, which would change its running statistics; call model.eval()"
        )
    terms: list[Tensor] = []

    def compare(norm: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(norm, NORMS)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        dims = [0, *range(2, args[0].ndim)]
        mean, variance = args[0].mean(dims), args[0].var(dims, unbiased=False)
        terms.append((mean - norm.running_mean).norm() + (variance - norm.running_var).norm())

    norms = [m for m in model.modules() if _tracks(m)]
    if not norms:
        raise ModicumError(
            f"model {type(model).__name__} has no batch norm with running statistics to recover images from; use a network "
            "such as resnet9 or resnet18 with norm='batch'"
        )
    handles = [norm.register_forward_pre_hook(compare) for norm in norms]
    try:
        outputs = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return first * terms[0] + sum(terms[1:], torch.zeros_like(terms[0])), outputs


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a network has a batch norm with running statistics."""
    return any(_tracks(module) for module in model.modules())


def _tracks(module: nn.Module) -> bool:
    return isinstance(module, NORMS) and module.running_mean is not None


def pixel_range(train: Dataset) -> tuple[Tensor, Tensor]:
    """The least and largest standardized value of each channel, (1, channels, 1, 1): of white and black for images from 0
    to 255, of the training images for others."""
    if train.inputs.dtype == torch.uint8:
        low, high = torch.zeros(train.inputs.shape[1]), torch.full((train.inputs.shape[1],), 255.0)
    else:
        parts = [inputs.float().transpose(0, 1).flatten(1) for _, inputs in train.batches(4096)]
        low = torch.stack([part.amin(1) for part in parts]).amin(0)
        high = torch.stack([part.amax(1) for part in parts]).amax(0)
    low, high = (train.prepare(v.reshape(1, -1, 1, 1)) for v in (low, high))
    return low, high


class Inversion(Synthesis):
    """Images that are recovered from networks.

    Batches of images of all classes descend by themselves; see `SRe2L` for the options that the method must have.
    """

    teachers: list[Taught]

    def prepare(self, teachers: list[Taught]) -> None:
        """Start from noise and part the images into batches.

        Args:
            teachers: The networks.
        """
        self.teachers = teachers
        self.low, self.high = (v.to(self.device) for v in pixel_range(self.train))
        self.flips = not set(self.train.info.classes) <= set("0123456789")
        ranks = torch.cat([torch.arange(k) for k in self.counts.tolist()])
        self.parts = torch.split(ranks.argsort(stable=True), self.method.batch)
        self.learn("inputs", self.start("noise"), self.method.lr_img, adam=(0.5, 0.9))

    def view(self, x: Tensor, random: torch.Generator) -> Tensor:
        """Random crops, flips and one roll of the batch; differentiable in the pixels."""
        shape = tuple(x.shape[1:])
        crop = ResizedCrop(tuple(self.method.scale))
        x = crop.apply(x, crop.draw(len(x), shape, random).to(x))
        if self.flips:
            x = Flip().apply(x, Flip().draw(len(x), shape, random).to(x.device))
        most = [int(self.method.jitter * side) for side in shape[1:]]
        shifts = [int(torch.randint(-k, k + 1, (1,), generator=random)) for k in most]
        return x.roll(shifts, (2, 3))

    def penalties(self, x: Tensor) -> Tensor:
        """What is asked of the pixels themselves: a small length and few edges."""
        rough = (x.diff(dim=2).square().sum() + x.diff(dim=3).square().sum()) / len(x)
        out: Tensor = self.method.l2 * x.flatten(1).norm(dim=1).mean() + self.method.tv * rough
        return out

    def energy(self, seen: Tensor, labels: Tensor, which: int) -> tuple[Tensor, Tensor]:
        """What is descended on a batch of views.

        Args:
            seen: (b, channels, h, w) views.
            labels: (b,) classes.
            which: Of the networks.

        Returns:
            The cross-entropy, and the weighted rest.
        """
        statistics, outputs = bn_statistics_loss(self.teachers[which].model, seen, self.method.first)
        return F.cross_entropy(outputs, labels), self.method.r_bn * statistics

    def step(self, iteration: int) -> dict[str, float]:
        """One step of every batch."""
        m = self.method
        slope = torch.zeros_like(self.inputs)
        told, rest = [], []
        for number, part in enumerate(self.parts):
            random = self.random(iteration, number)
            x = self.inputs[part.to(self.device)]
            seen = self.view(x, random)
            leaf = seen.detach().requires_grad_(True)
            which = int(torch.randint(len(self.teachers), (1,), generator=random))
            key = f"recover {which} {len(part)}"
            with self.flops.forward(key):
                entropy, statistics = self.energy(leaf, self.labels[part].to(self.device), which)
            with self.flops.backward(key):
                (pull,) = torch.autograd.grad(entropy + statistics, leaf)
            self.flops.charge(key)
            self.samples += len(part)
            whole = (seen * pull).sum() + (self.penalties(x) if m.l2 or m.tv else 0.0)
            slope = slope + torch.autograd.grad(whole, self.inputs)[0]
            told.append(float(entropy.detach()))
            rest.append(float(statistics.detach()))
        rate = m.lr_img * (1 + math.cos(math.pi * iteration / m.iterations)) / 2
        self.optimizers["inputs"].param_groups[0]["lr"] = rate
        self.descend(inputs=slope)
        with torch.no_grad():
            self.inputs.copy_(self.inputs.maximum(self.low).minimum(self.high))
        entropy_mean, rest_mean = sum(told) / len(told), sum(rest) / len(rest)
        return {"loss": entropy_mean + rest_mean, "cross_entropy": entropy_mean, "statistics": rest_mean}


@dataclass(frozen=True)
class SRe2L:
    """Squeeze, recover and relabel.

    A teacher is trained on all data; noise descends the teacher's cross-entropy for its class and the distance of the
    batch statistics from the running ones (`bn_statistics_loss`); a student is trained on what the teacher says of every
    augmented view. There is no inner training, and batches are independent. Compare it with random real images labeled by
    the same teacher, which are often better on small images.

    Args:
        iterations: Steps of every image; 4000 for ImageNet.
        lr_img: Step size of Adam, falling along a cosine.
        r_bn: Weight of the statistics.
        first: Weight of the first batch norm among them.
        l2: Weight of the length of an image.
        tv: Weight of the squared differences of neighbors.
        batch: Images whose statistics are taken together.
        scale: Least and largest share of an image in a view, when recovering.
        jitter: Largest roll of a batch, as a share of the side; a seventh is 32 px of 224.
        views: Least and largest share of an image that the student sees.
        teacher: A network with batch norm.
        teacher_epochs: Of its training.
        temperature: Of the teacher's labels.
        model: The student; `auto` is the recipe's where it is a convnet or resnet, else `convnet(width=32)`.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> SRe2L(iterations=10).r_bn
        0.01

    Reference:
        Yin, Xing and Shen, Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New Perspective,
        2023, arXiv 2306.13092.
    """

    iterations: int = 1000
    lr_img: float = 0.25
    r_bn: float = 0.01
    first: float = 10.0
    l2: float = 0.0
    tv: float = 0.0
    batch: int = 100
    scale: tuple[float, float] = (0.08, 1.0)
    jitter: float = 1 / 7
    views: tuple[float, float] = (0.08, 1.0)
    teacher: str = "resnet9"
    teacher_epochs: int = 20
    temperature: float = 20.0
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="sre2l",
        title="Images recovered from the batch norms of a teacher, labeled by it",
        paper="Yin, Xing and Shen, Squeeze, Recover and Relabel, 2023, arXiv 2306.13092",
        saves=("samples", "memory"),
        modalities=("image",),
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("iterations", "lr_img", "batch", "teacher_epochs", "temperature"),
            not_negative=("r_bn", "first", "l2", "tv"),
            below_one=("jitter",),
        )
        for option in ("scale", "views"):
            ResizedCrop(getattr(self, option))

    def needs(self) -> tuple[Measurement, ...]:
        """The teacher."""
        return (TrainedTeacher(self.teacher, self.teacher_epochs),)

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Recover the images.

        Args:
            data: Its training split says which classes and pixels there are; its images are seen by the teacher alone.
            budget: Synthetic images per class, or in all, spread evenly over the classes.
            recipe: Gives the student when `model` is `auto`.
            ctx: Device, seed, ledger and store.
            measured: The teacher.

        Returns:
            The images with class indices, the teacher, and the recipe of a student that learns what it says.

        Raises:
            DataError: The data are no images, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            ModicumError: The teacher has no batch norm.
            TrainingError: The inputs grew beyond all bounds, or the teacher is near chance.
        """
        check_classes(self.card.key, data.train)
        run = Inversion(self, data.train, budget, recipe, ctx)
        run.prepare(list(measured))
        taught: Taught = measured[0]
        student = student_recipe(as_text(run.model), data.train, len(run.labels), scale=self.views)
        made = run.run(self.iterations, run.step, lambda: (run.dataset(), student))
        return replace(made, teacher=Teacher(taught.model, taught.description, self.temperature))
