"""IDC: each stored image is decoded into several training images, matched in networks that are trained on real data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.data.mixing import cutmix
from modicum.data.siamese import Transforms, apply_dsa, draw_dsa, parse_strategy
from modicum.distillation.dc import GradientMatching, Groups
from modicum.distillation.distilled import evaluation_recipe
from modicum.distillation.matching import Metric
from modicum.distillation.synthetic import synthetic_set
from modicum.errors import DataError, ModicumError
from modicum.methods import Card, Measurement
from modicum.options import check_options

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.distillation.distilled import Distilled
    from modicum.scores import Budget
    from modicum.training.recipe import Recipe

__all__ = ["IDC", "decode_grid", "encode_grid"]

RATES = {"mse": 5e-3, "l1": 1e-4}  # published, for ten images a class
STAGES = (("flip",), ("color",), ("crop", "scale", "rotate"), ("cutout",))


def decode_grid(images: Tensor, factor: int, *, fill: float = 0.5) -> Tensor:
    """Cut each image into a grid of patches and enlarge every patch to the size of the image.

    Patches have sides of `ceil(side / factor)`; they are enlarged bilinearly. The map is linear where the factor divides
    the sides.

    Args:
        images: (m, channels, height, width).
        factor: f, rows and columns of the grid.
        fill: What images are padded with on the right and at the bottom where the factor does not divide a side.

    Returns:
        (f^2 m, channels, height, width) images, patch after patch: number p m + i is patch p of image i.

    Raises:
        ModicumError: The factor is not an integer from 1 to a quarter of the shorter side.

    Example:
        >>> tiles = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(4, 0).repeat_interleave(4, 1)
        >>> decode_grid(tiles[None, None], 2)[:, 0, 0, 0].tolist()
        [1.0, 2.0, 3.0, 4.0]

    Reference:
        Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization, 2022, arXiv 2205.14959.
    """
    m, channels, height, width = check_grid(images, factor)
    if factor == 1:
        return images
    high, wide = -(-height // factor), -(-width // factor)
    padded = F.pad(images, (0, factor * wide - width, 0, factor * high - height), value=fill)
    patches = padded.reshape(m, channels, factor, high, factor, wide).permute(2, 4, 0, 1, 3, 5).flatten(0, 2)
    return F.interpolate(patches, size=(height, width), mode="bilinear", align_corners=False)


def encode_grid(images: Tensor, factor: int) -> Tensor:
    """Shrink images and tile them, so that decoding gives them back, smoothed.

    Args:
        images: (f^2 m, channels, height, width), patch after patch.
        factor: f, rows and columns of the grid.

    Returns:
        (m, channels, height, width).

    Example:
        >>> x = torch.arange(1.0, 5.0).reshape(4, 1, 1, 1).expand(4, 1, 8, 8)
        >>> bool((decode_grid(encode_grid(x, 2), 2) == x).all())
        True
    """
    n, channels, height, width = check_grid(images, factor)
    if n % factor**2:
        raise ModicumError(f"{n} images do not fill grids of {factor} x {factor}; expected a multiple of {factor**2}")
    high, wide = -(-height // factor), -(-width // factor)
    small = F.interpolate(images, size=(high, wide), mode="bilinear", align_corners=False, antialias=True)
    grid = small.reshape(factor, factor, n // factor**2, channels, high, wide).permute(2, 3, 0, 4, 1, 5)
    return grid.reshape(-1, channels, factor * high, factor * wide)[:, :, :height, :width].clone()


def check_grid(images: Tensor, factor: int) -> tuple[int, int, int, int]:
    """The shape of images that a factor fits.

    Raises:
        ModicumError: It does not.
    """
    if images.ndim != 4:
        raise DataError(f"images have shape {tuple(images.shape)}; expected (m, channels, height, width)")
    m, channels, height, width = images.shape
    most = max(1, min(height, width) // 4)
    if isinstance(factor, bool) or not isinstance(factor, int) or not 1 <= factor <= most:
        raise ModicumError(
            f"factor={factor!r}; expected an integer from 1 to {most} for images of {height} x {width} px"
        )
    return m, channels, height, width


@dataclass(frozen=True)
class IDC:
    """Information-intensive dataset condensation.

    `min_u sum_c D(grad l(theta; A_w(decode(u_c))), grad l(theta; A_w(T_c)))` in networks theta that are trained on real
    data, with D the squared or absolute difference of the gradients of convolutions. The budget counts stored images;
    each is decoded into `factor`^2 training images, and only the stored ones must be kept (`Distilled.stored`). Stored
    pixels lie between 0 and 1 of the range of the data. All classes take one step together, and cut-outs are filled with
    the mean rather than black; the published code steps class after class.

    Args:
        iterations: Networks.
        factor: Rows and columns of the grid.
        multi: Whether smaller factors are decoded too, down to the whole image.
        inner: Updates a network, an epoch on real data after each.
        lr_img: Learning rate of the stored pixels; `paper` is 5e-3 (mse) or 1e-4 (l1) times a tenth of the images a class,
            `auto` makes the first step change them by 1 %.
        momentum: Of SGD on the pixels.
        distance: `mse`, `l1`, or `auto`: mse for colored images, l1 for grey ones.
        batch_real: Real samples of each class an update.
        batch_made: At most so many decoded images of each class an update.
        early: Epochs on all real data before the first update.
        real_samples: Real samples in the epoch after each update.
        lr_net: Learning rate of the networks.
        cutmix: Whether networks are trained on mixed images; `auto`: on colored ones.
        init: `mix` tiles shrunk real images, `real` takes one for each stored image, `noise` is uniform.
        augment: Families: flip, then color, then one of crop, scale and rotate, then cutout, where they are named; `auto`
            is all for colored images (without flip on digits) and `color_crop` for grey ones.
        model: The network; `auto` is the recipe's where it is a convnet or resnet, `convnet(width=32)` otherwise.

    Raises:
        ModicumError: A number makes no sense.

    Example:
        >>> IDC(factor=3).inner
        100

    Reference:
        Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization, 2022, arXiv 2205.14959.
    """

    iterations: int = 2000
    factor: int = 2
    multi: bool = False
    inner: int = 100
    lr_img: float | Literal["auto", "paper"] = "paper"
    momentum: float = 0.5
    distance: Metric | Literal["auto"] = "auto"
    batch_real: int = 64
    batch_made: int = 128
    early: int = 0
    real_samples: int = 500
    lr_net: float = 0.01
    cutmix: bool | Literal["auto"] = "auto"
    init: Literal["mix", "real", "noise"] = "real"
    augment: str = "auto"
    model: str = "auto"

    card: ClassVar[Card] = Card(
        key="idc",
        title="Stored images that decode into several training images each, matched in networks trained on real data",
        paper="Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization, 2022, arXiv 2205.14959",
        saves=("samples", "memory"),
        modalities=("image",),
    )

    def __post_init__(self) -> None:
        if self.lr_img not in ("auto", "paper") and (isinstance(self.lr_img, str) or not self.lr_img > 0):
            raise ModicumError(f"method 'idc' option lr_img={self.lr_img!r}; expected a number > 0, 'auto' or 'paper'")
        check_options(
            self,
            positive=("iterations", "factor", "inner", "batch_real", "batch_made", "lr_net"),
            not_negative=("early", "real_samples"),
            below_one=("momentum",),
            choices={"init": ("mix", "real", "noise"), "distance": ("auto", "layers", "cos", "mse", "l1")},
        )
        if self.cutmix not in (True, False, "auto"):
            raise ModicumError(f"method 'idc' option cutmix={self.cutmix!r}; expected True, False or 'auto'")
        if self.augment != "auto":
            parse_strategy(self.augment)

    def needs(self) -> tuple[Measurement, ...]:
        """No measurement."""
        return ()

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled:
        """Make the synthetic set.

        Args:
            data: Its training split is distilled; the others are not looked at.
            budget: Stored images per class, or in all, spread evenly over the classes.
            recipe: Gives the network when `model` is `auto`.
            ctx: Device, seed, ledger and store.

        Returns:
            The decoded images in the units of the stored data, with class indices as targets; the common protocol with
            batches of 64; `stored` holds the images that they are decoded from.

        Raises:
            DataError: The data are no images, have no labels, a class without samples, or inputs that are not finite.
            BudgetError: Fewer samples than classes.
            ModicumError: The factor does not fit the images.
            TrainingError: The pixels are not finite.
        """
        if data.train.info.modality != "image":
            raise DataError(f"idc decodes images, but this data set is {data.train.info.modality}; use dsa")
        grey = data.train.inputs.shape[1] == 1
        run = _Run(self, data.train, budget, recipe, ctx)
        if self.augment == "auto" and grey:
            run.strategy = parse_strategy("color_crop")
        run.metric_name = ("l1" if grey else "mse") if self.distance == "auto" else self.distance
        run.mixes = not grey if self.cutmix == "auto" else bool(self.cutmix)
        lr: float | str = self.lr_img
        if lr == "paper":
            lr = RATES.get(run.metric_name, 0.1) * float(run.counts.max()) / 10
        run.learn("inputs", run.first_pixels(self.init), lr, momentum=self.momentum)
        return run.run(self.iterations, run.step, run.made)


class _Run(GradientMatching):
    """Stored pixels between 0 and 1, decoded; networks that learn from real data between updates."""

    def stored(self) -> dict[str, Tensor]:
        """The images before they are decoded."""
        return {"images": self.inputs.detach().cpu().clone()}

    method: Any
    metric_name: Metric = "mse"
    mixes = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        inputs = self.train.inputs
        bounds = (0, 255) if inputs.dtype == torch.uint8 else (float(inputs.min()), float(inputs.max()))
        shape = (1, *inputs.shape[1:2], 1, 1)
        self.low, self.high = (self.train.prepare(torch.full(shape, float(b)), self.device) for b in bounds)
        self.factors = range(self.method.factor, 0, -1) if self.method.multi else (self.method.factor,)
        self.each = sum(f**2 for f in self.factors)
        check_grid(inputs[:1], self.method.factor)

    @property
    def metric(self) -> Metric:
        """The distance of gradients."""
        return self.metric_name

    def first_pixels(self, init: str) -> Tensor:
        """(m, *shape) pixels to start from."""
        if init == "noise":
            return torch.rand((len(self.labels), *self.train.inputs.shape[1:]), generator=self.random("init"))
        if init == "real":
            return self.pixels(self.start("real"))
        f, random = self.method.factor, self.random("init")
        ranks = torch.cat([torch.arange(k * f * f) for k in self.counts.tolist()])
        labels = self.labels.repeat_interleave(f * f)
        chosen = self.shuffled(random)[self.first[labels] + ranks % self.real_counts[labels]]
        real = self.pixels(self.real(chosen).cpu())
        # image after image here, patch after patch there
        return encode_grid(real.reshape(-1, f * f, *real.shape[1:]).transpose(0, 1).flatten(0, 1), f)

    def pixels(self, x: Tensor) -> Tensor:
        """Standardized inputs as shares of the range of the data."""
        return ((x - self.low.cpu()) / (self.high - self.low).cpu()).clamp(0, 1)

    def decoded(self) -> Tensor:
        """(each m, *shape) standardized training images, those of a stored image one after the other."""
        m = len(self.labels)
        parts = [decode_grid(self.inputs, f).reshape(-1, m, *self.inputs.shape[1:]) for f in self.factors]
        return (torch.cat(parts).transpose(0, 1).flatten(0, 1)) * (self.high - self.low) + self.low

    def draw(self, random: torch.Generator, groups: int | None = None) -> Any:
        """One draw of each stage that the strategy has families of."""
        stages = [tuple(name for name in stage if name in self.strategy) for stage in STAGES]
        return [draw_dsa(names, groups or self.classes, random) for names in stages if names]

    def transform(self, x: Tensor, draw: Any, groups: Tensor) -> Tensor:
        """The stages one after the other."""
        stage: Transforms
        for stage in draw:
            x = apply_dsa(x, stage, groups)
        return x

    def step(self, iteration: int) -> dict[str, float]:
        """One network, updated on its way through training on real data."""
        random = self.random(iteration)
        network, losses = self.network(random), []
        self.least = 4 if any(p.ndim == 4 for p in network.parameters()) else 2
        for _ in range(self.method.early):
            self.train_on_real(network, random, len(self.train))
        for _ in range(self.method.inner):
            losses.append(self.update(network, random, iteration, 0))
            self.train_on_real(network, random, self.method.real_samples)
        with torch.no_grad():
            self.inputs.clamp_(0, 1)
        return {"loss": sum(losses) / len(losses)}

    def update(self, network: nn.Module, random: torch.Generator, iteration: int, update: int) -> float:
        """One step of the pixels of all classes."""
        self.freeze(network, random)
        draw = self.draw(random)
        real = self.real_gradients(network, self.blocks(random, self.method.batch_real), draw)
        own = self.some_decoded(random)
        chosen = own[0].flatten()
        labels = self.labels.repeat_interleave(self.each)[chosen]
        places = (torch.arange(len(chosen)).reshape(own[0].shape), own[1])
        x = self.decoded()[chosen.to(self.device)]
        loss, slope = self.match(network, x, labels, places, real, draw)
        self.descend(inputs=slope)
        return loss

    def some_decoded(self, random: torch.Generator) -> Groups:
        """Positions of at most `batch_made` decoded images of each class, others every time, and their weights."""
        counts = self.counts * self.each
        size = min(int(counts.max()), self.method.batch_made)
        taken = counts.clamp(max=size)[:, None]
        keys = torch.rand((self.classes, int(counts.max())), generator=random)
        keys[torch.arange(keys.shape[1])[None] >= counts[:, None]] = 2.0
        ranks = torch.arange(size)[None]
        chosen = keys.argsort(1).gather(1, ranks % taken)
        return (counts.cumsum(0) - counts)[:, None] + chosen, (ranks < taken) / taken.float()

    def train_on_real(self, network: nn.Module, random: torch.Generator, samples: int) -> None:
        """One epoch on so many real samples, as SGD with momentum 0.9 and weight decay 5e-4 takes it."""
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), self.method.lr_net, 0.9, weight_decay=5e-4)
        for part in self._parts(random, samples):
            seen, y = self.transform(self.real(part), self.draw(random, len(part)), torch.arange(len(part))), None
            labels, lam = self.real_labels[part].to(self.device), 1.0
            if self.mixes:
                seen, pair, lam = cutmix(seen, 1.0, random, majority=False)
                y = labels[pair]
            optimizer.zero_grad()
            with self.flops.forward(f"train {len(part)}"):
                logits = network(seen)
                loss = lam * F.cross_entropy(logits, labels)
                loss = loss if y is None else loss + (1 - lam) * F.cross_entropy(logits, y)
            with self.flops.backward(f"train {len(part)}"):
                loss.backward()  # type: ignore[no-untyped-call]
            self.flops.charge(f"train {len(part)}")
            self.samples += len(part)
            optimizer.step()

    def _parts(self, random: torch.Generator, samples: int) -> Iterator[Tensor]:
        yield from torch.split(torch.randperm(len(self.train), generator=random)[:samples], self.method.batch_real)

    def made(self) -> tuple[Dataset, Recipe]:
        """The decoded images with hard labels, and the common protocol with batches of 64."""
        with torch.no_grad():
            images = self.decoded()
        made = synthetic_set(self.key, self.train, images, self.counts * self.each)
        model = self.model if isinstance(self.model, str) else "auto"
        recipe = evaluation_recipe(model, len(made), augment="_".join(self.strategy) or "none")
        more = ("cutmix",) if self.mixes else ()
        return made, replace(recipe, batch_size=min(64, len(made)), augment=(*recipe.augment, *more))
