"""Minimax: a diffusion model of the classes whose samples are close to all real images and far from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from modicum.distillation.diffusion import Denoiser, ddim, noised, signal
from modicum.distillation.distilled import Distilled, evaluation_recipe
from modicum.distillation.sre2l import pixel_range
from modicum.distillation.synthesis import Synthesis
from modicum.distillation.teaching import as_text, check_classes
from modicum.methods import Card, Measurement
from modicum.models import build
from modicum.options import check_options

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["Minimax", "minimax_losses"]

UNTOLD = 0.1  # share of the images whose class is not told, so that sampling can be guided
BLOCK = 500  # images that are sampled at a time


def minimax_losses(
    made: Tensor, real: Tensor, real_there: Tensor, earlier: Tensor, earlier_there: Tensor
) -> tuple[Tensor, Tensor]:
    """What makes generated images stand for all real ones, and differ from each other.

    With cosines over flattened images, `L_r = -mean_i min_{m in real} cos(z_i, m)` pulls each generated image z_i toward
    the real image of its class in the memory that it is farthest from, and `L_d = mean_i max_{m in earlier} cos(z_i, m)`
    pushes it away from the nearest one of those generated before. An empty memory adds nothing.

    Args:
        made: (n, d) generated images.
        real: (n, k, d) memories of real images, of the class of each.
        real_there: (n, k) which entries are filled.
        earlier: (n, j, d) memories of generated images, of the class of each.
        earlier_there: (n, j) which entries are filled.

    Returns:
        L_r in [-1, 1] and L_d in [-1, 1].

    Example:
        >>> z, there = torch.eye(2), torch.ones(2, 1, dtype=torch.bool)
        >>> [float(v) for v in minimax_losses(z, z[:, None], there, -z[:, None], there)]
        [-1.0, -1.0]

    Reference:
        Gu et al., Efficient Dataset Distillation via Minimax Diffusion, 2024, arXiv 2311.15529.
    """
    unit = F.normalize(made, dim=1)[:, :, None]
    near_real, near_made = ((F.normalize(m, dim=2) @ unit).squeeze(2) for m in (real, earlier))
    least = near_real.masked_fill(~real_there, torch.inf).amin(1).where(real_there.any(1), 0.0)
    most = near_made.masked_fill(~earlier_there, -torch.inf).amax(1).where(earlier_there.any(1), 0.0)
    return -least.mean(), most.mean()


class Memories:
    """The last so many images of each class, one memory of real and one of generated ones.

    Args:
        classes: Number of classes.
        size: Images of each.
        numbers: Of an image.
    """

    def __init__(self, classes: int, size: int, numbers: int) -> None:
        self.rows = torch.zeros(2, classes, size, numbers)
        self.filled = torch.zeros(2, classes, dtype=torch.int64)

    def read(self, which: int, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, size, numbers) the memory of the class of each sample, and (n, size) what of it is filled."""
        there = torch.arange(self.rows.shape[2]) < self.filled[which, labels][:, None]
        return self.rows[which, labels], there

    def add(self, which: int, labels: Tensor, rows: Tensor) -> None:
        """Put in images, the oldest of their class making room."""
        counts = torch.bincount(labels, minlength=self.rows.shape[1])
        order = labels.argsort(stable=True)
        rank = torch.empty_like(labels)
        rank[order] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
        fresh = rank >= (counts - self.rows.shape[2])[labels]  # of more than there is room for, the last ones
        at = (self.filled[which, labels] + rank) % self.rows.shape[2]
        self.rows[which, labels[fresh], at[fresh]] = rows.detach().cpu()[fresh]
        self.filled[which] += counts

    def state_dict(self) -> dict[str, Any]:
        """The images."""
        return {"rows": self.rows, "filled": self.filled}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """The inverse of `state_dict`."""
        self.rows, self.filled = state["rows"], state["filled"]


class _Run(Synthesis):
    """A denoiser whose weights are one vector, and what it has met."""

    method: Minimax

    def prepare(self) -> None:
        """A new denoiser, its average and empty memories."""
        m, shape = self.method, tuple(self.train.inputs.shape[1:])
        seed = int(torch.randint(2**31, (1,), generator=self.random("denoiser")))
        make = lambda: Denoiser(shape, self.classes, width=m.width)  # noqa: E731
        self.denoiser = build(make, self.train, seed).to(self.device)
        named = list(self.denoiser.named_parameters())
        self.names, self.shapes = [n for n, _ in named], [p.shape for _, p in named]
        self.sizes = [p.numel() for _, p in named]
        self.parameters = sum(self.sizes)
        start = torch.cat([p.detach().flatten() for _, p in named])
        self.learn("weights", start, m.lr, adam=(0.9, 0.999))
        self.learn("average", start, 0.0)
        self.memories = Memories(self.classes, m.memory, self.train.inputs[0].numel())
        self.low, self.high = (v.to(self.device) for v in pixel_range(self.train))

    def velocity(self, weights: Tensor, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        """The denoiser with these weights."""
        parts = torch.split(weights, self.sizes)
        named = {n: p.view(s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}
        out: Tensor = functional_call(self.denoiser, named, (x, time, labels))
        return out

    def step(self, iteration: int) -> dict[str, float]:
        """One batch of real images; near the end with the memories."""
        m, random = self.method, self.random(iteration)
        at = torch.randint(len(self.order), (m.batch_size,), generator=random)
        labels, real = self.real_labels[at], self.real(at)
        noise = torch.randn(real.shape, generator=random).to(self.device)
        time = torch.rand(m.batch_size, generator=random).to(self.device)
        untold = torch.rand(m.batch_size, generator=random) < UNTOLD
        told = labels.masked_fill(untold, self.classes).to(self.device)
        seen, target = noised(real, noise, time)
        tuning = iteration >= round((1 - m.tuning) * m.iterations)
        key = f"denoise {tuning}"
        weights = self.learned["weights"]
        with self.flops.forward(key):
            velocity = self.velocity(weights, seen, time, told)
            loss = denoise = (velocity - target).square().mean()
            row = {}
            if tuning:
                alpha, sigma = (k[:, None, None, None] for k in signal(time))
                made = (alpha * seen - sigma * velocity).flatten(1)
                memory = [v.to(self.device) for which in (0, 1) for v in self.memories.read(which, labels)]
                represent, diverse = minimax_losses(made, *memory)
                loss = denoise + m.represent * represent + m.diverse * diverse
                row = {"represent": float(represent.detach()), "diverse": float(diverse.detach())}
                self.memories.add(0, labels, real.flatten(1))
                self.memories.add(1, labels, made)
        with self.flops.backward(key):
            (slope,) = torch.autograd.grad(loss, weights)
        self.flops.charge(key)
        self.samples += m.batch_size
        self.descend(weights=slope)
        with torch.no_grad():
            decay = min(m.ema, (1 + iteration) / (10 + iteration))
            self.learned["average"].lerp_(weights, 1 - decay)
        return {"loss": float(denoise.detach()), **{"represent": 0.0, "diverse": 0.0, **row}}

    def sampled(self) -> Dataset:
        """The synthetic set that the average weights give, always from the same noise."""
        m, random = self.method, self.random("sample")
        noise = torch.randn((len(self.labels), *self.train.inputs.shape[1:]), generator=random)
        weights = self.learned["average"].detach()

        def guided(x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
            with self.flops.forward(f"sample {len(x)}"):
                both = torch.cat([labels, torch.full_like(labels, self.classes)])
                own, free = self.velocity(weights, x.repeat(2, 1, 1, 1), time.repeat(2), both).chunk(2)
            self.flops.charge(f"sample {len(x)}")
            self.samples += 2 * len(x)
            return free + m.guidance * (own - free)

        parts = torch.split(torch.arange(len(noise)), BLOCK)
        with torch.no_grad():
            images = [
                ddim(
                    guided,
                    noise[p].to(self.device),
                    self.labels[p].to(self.device),
                    steps=m.steps,
                    low=self.low,
                    high=self.high,
                )
                for p in parts
            ]
        return self.dataset(torch.cat(images))


@dataclass(frozen=True)
class Minimax:
    """Samples of a diffusion model that is tuned to represent the classes.

    A small class-conditional diffusion model is trained on the data; in the last part of the training `minimax_losses`
    are added to its loss, with memories of real and of generated images of each class. The synthetic images are samples
    of it with classifier-free guidance.

    The published method tunes a pretrained latent diffusion transformer of 600 million parameters; this one is trained
    here, on pixels, and shows the method on small images only.

    Args:
        iterations: Training steps.
        tuning: Share of them with the memories.
        represent: Weight of L_r.
        diverse: Weight of L_d.
        memory: Images of each class in a memory.
        batch_size: Real images a step.
        lr: Learning rate of Adam.
        ema: Decay of the average of the weights that samples.
        width: Channels of the denoiser.
        steps: Of the sampling.
        guidance: How much the class is exaggerated; 1 is not at all.
        model: The network the set is for; `auto` is the recipe's where it is a convnet or resnet, else `convnet(width=32)`.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> Minimax(iterations=100).memory
        64

    Reference:
        Gu et al., Efficient Dataset Distillation via Minimax Diffusion, 2024, arXiv 2311.15529.
    """

    iterations: int = 10_000
    tuning: float = 0.2
    represent: float = 0.002
    diverse: float = 0.008
    memory: int = 64
    batch_size: int = 128
    lr: float = 1e-3
    ema: float = 0.995
    width: int = 32
    steps: int = 50
    guidance: float = 2.0
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="minimax",
        title="Samples of a diffusion model that represent each class and differ from each other",
        paper="Gu et al., Efficient Dataset Distillation via Minimax Diffusion, 2024, arXiv 2311.15529",
        saves=("samples",),
        modalities=("image",),
    )

    def __post_init__(self) -> None:
        check_options(
            self,
            positive=("iterations", "memory", "batch_size", "lr", "width", "steps", "guidance"),
            not_negative=("represent", "diverse"),
            shares=("tuning",),
            below_one=("ema",),
        )

    def needs(self) -> tuple[Measurement, ...]:
        """No measurement."""
        return ()

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Train the diffusion model and sample from it.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Synthetic images per class, or in all, spread evenly over the classes.
            recipe: Gives the network when `model` is `auto`.
            ctx: Device, seed, ledger and store.

        Returns:
            The images with class indices, and the common protocol.

        Raises:
            DataError: The data are no images, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            TrainingError: The weights grew beyond all bounds.
        """
        check_classes(self.card.key, data.train)
        run = _Run(self, data.train, budget, recipe, ctx)
        run.prepare()
        student = evaluation_recipe(as_text(run.model), len(run.labels))
        return run.run(self.iterations, run.step, lambda: (run.sampled(), student), also=[run.memories])
