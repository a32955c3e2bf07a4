"""A small class-conditional diffusion model: the network, the noise at a time, and deterministic sampling."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.errors import ModicumError

__all__ = ["Denoiser", "ddim", "noised", "signal"]

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]


class Denoiser(nn.Module):
    """Residual blocks at one, two or three scales, told the time and the class.

    Args:
        shape: (channels, height, width) of an image.
        classes: Number of classes c; class c means that it is not told.
        width: Channels at the finest scale; twice as many at the coarser ones.

    Example:
        >>> network = Denoiser((1, 8, 8), 3, width=8)
        >>> network(torch.rand(4, 1, 8, 8), torch.rand(4), torch.tensor([0, 1, 2, 3])).shape
        torch.Size([4, 1, 8, 8])

    Reference:
        Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020, arXiv 2006.11239.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, *, width: int = 32) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ModicumError(f"denoiser width={width!r}; expected a multiple of 4")
        sides = list(shape[1:])
        self.levels = 2 if min(sides) >= 16 and all(s % 4 == 0 for s in sides) else int(all(s % 2 == 0 for s in sides))
        told = 4 * width
        self.time = nn.Sequential(nn.Linear(2 * width, told), nn.SiLU(), nn.Linear(told, told))
        self.kind = nn.Embedding(classes + 1, told)
        self.width, wide = width, 2 * width
        channels = [width, wide][: self.levels]  # of the scales above the coarsest
        before = [width, *channels]
        self.enter = nn.Conv2d(shape[0], width, 3, padding=1)
        self.down = nn.ModuleList([_Block(a, b, told) for a, b in zip(before, channels)])
        self.middle = nn.ModuleList([_Block(before[-1], wide, told), _Block(wide, wide, told)])
        self.up = nn.ModuleList([_Block(wide + b, b, told) for b in reversed(channels)])
        last = channels[0] if channels else wide
        self.leave = nn.Sequential(nn.GroupNorm(4, last), nn.SiLU(), nn.Conv2d(last, shape[0], 3, padding=1))

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        """What `noised` calls the velocity.

        Args:
            x: (n, channels, h, w) noisy images.
            time: (n,) in [0, 1].
            labels: (n,) class indices, or c.

        Returns:
            (n, channels, h, w).
        """
        rates = torch.exp(torch.linspace(0, math.log(1000.0), self.width, device=x.device))
        angle = time[:, None] * rates
        told = self.time(torch.cat([angle.sin(), angle.cos()], 1)) + self.kind(labels)
        x = self.enter(x)
        kept = []
        for block in self.down:
            x = block(x, told)
            kept.append(x)
            x = F.avg_pool2d(x, 2)
        for block in self.middle:
            x = block(x, told)
        for block in self.up:
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), kept.pop()], 1), told)
        out: Tensor = self.leave(x)
        return out


class _Block(nn.Module):
    """Two convolutions, shifted and scaled between by what is told."""

    def __init__(self, inside: int, outside: int, told: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(4, inside), nn.SiLU(), nn.Conv2d(inside, outside, 3, padding=1))
        self.norm, self.told = nn.GroupNorm(4, outside), nn.Linear(told, 2 * outside)
        self.second = nn.Conv2d(outside, outside, 3, padding=1)
        self.shortcut = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(F.silu(told))[:, :, None, None].chunk(2, 1)
        inner = self.norm(self.first(x)) * (1 + scale) + shift
        out: Tensor = self.shortcut(x) + self.second(F.silu(inner))
        return out


def signal(time: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of image and noise at a time: `alpha = cos(pi t / 2)` and `sigma = sin(pi t / 2)`, whose squares add to 1.

    Example:
        >>> [round(float(v), 2) for v in signal(torch.tensor(0.5))]
        [0.71, 0.71]

    Reference:
        Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, arXiv 2102.09672.
    """
    angle = 0.5 * math.pi * time
    return angle.cos(), angle.sin()


def noised(images: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Images at a time of the diffusion, and what the network is to predict.

    `x_t = alpha x + sigma e`, and the velocity `v = alpha e - sigma x`; from both, `x = alpha x_t - sigma v`.

    Args:
        images: (n, channels, h, w) with a standard deviation of about 1.
        noise: As large, standard normal.
        time: (n,) in [0, 1].

    Returns:
        Noisy images and velocities.

    Example:
        >>> x, e, t = torch.rand(2, 1, 4, 4), torch.randn(2, 1, 4, 4), torch.tensor([0.2, 0.9])
        >>> seen, v = noised(x, e, t)
        >>> a, s = (k[:, None, None, None] for k in signal(t))
        >>> bool((a * seen - s * v - x).abs().max() < 1e-6)
        True

    Reference:
        Salimans and Ho, Progressive Distillation for Fast Sampling of Diffusion Models, 2022, arXiv 2202.00512.
    """
    alpha, sigma = (k[:, None, None, None] for k in signal(time))
    return alpha * images + sigma * noise, alpha * noise - sigma * images


def ddim(
    velocity: Velocity,
    noise: Tensor,
    labels: Tensor,
    *,
    steps: int = 50,
    low: Tensor | float = -torch.inf,
    high: Tensor | float = torch.inf,
) -> Tensor:
    """Deterministic sampling: from noise to images in equal steps of time.

    In each step `x = clip(alpha x_t - sigma v)`, `e = (x_t - alpha x) / sigma`, and `x_s = alpha_s x + sigma_s e`.

    Args:
        velocity: (x (n, channels, h, w), time (n,), labels (n,)) -> velocities.
        noise: (n, channels, h, w) standard normal: the same noise gives the same images.
        labels: (n,) class indices.
        steps: Evaluations of the velocity.
        low: Least value of a pixel.
        high: Largest value of a pixel.

    Returns:
        (n, channels, h, w) images.

    Example:
        >>> to_zero = lambda x, time, labels: x / signal(time)[1].clamp(min=1e-9)[:, None, None, None] * signal(time)[0][:, None, None, None]
        >>> bool(ddim(to_zero, torch.randn(2, 1, 4, 4), torch.zeros(2).long(), steps=5).abs().max() < 1e-4)
        True

    Reference:
        Song, Meng and Ermon, Denoising Diffusion Implicit Models, 2021, arXiv 2010.02502.
    """
    x = noise
    times = torch.linspace(1.0, 0.0, steps + 1, device=noise.device, dtype=noise.dtype)
    clean = x
    for i in range(steps):
        now, then = times[i], times[i + 1]
        alpha, sigma = signal(now)
        clean = alpha * x - sigma * velocity(x, now.expand(len(x)), labels)
        clean = clean.maximum(torch.as_tensor(low, dtype=x.dtype, device=x.device))
        clean = clean.minimum(torch.as_tensor(high, dtype=x.dtype, device=x.device))
        rest = (x - alpha * clean) / sigma
        x = signal(then)[0] * clean + signal(then)[1] * rest
    return clean
