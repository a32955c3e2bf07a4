"""How noisy are targets? Relabeling intensity on two Gaussians, where everything is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modicum.context import generator
from modicum.errors import ModicumError

__all__ = ["RelabelingNoise", "gradient_noise", "relabeling_noise"]


@dataclass(frozen=True)
class RelabelingNoise:
    """What targets between labels and posterior probabilities do to stochastic gradient descent.

    Args:
        intensities: rho, from 0 for labels to 1 for posterior probabilities.
        noise: Trace of the covariance of the gradient of one sample at the optimum, measured.
        expected: The same by its formula, (1 - rho)^2 of that of labels.
        distance: Mean squared distance to the optimum after the last step.
    """

    intensities: tuple[float, ...]
    noise: tuple[float, ...]
    expected: tuple[float, ...]
    distance: tuple[float, ...]


def gradient_noise(intensity: float, separation: float = 2.0, variance: float = 1.0, dimension: int = 2) -> float:
    """The trace of the covariance of a sample's gradient at the optimum of logistic regression on two Gaussians.

    Classes are N(-mu, s I) and N(mu, s I) with ||mu|| half the separation, so that P(y = 1 | x) = sigmoid(2 mu' x / s). With
    targets `rho P + (1 - rho) y` the optimum is theta = 2 mu / s whatever rho is, because their mean given x does not
    depend on it; the gradient there is `(1 - rho) (P - y) x`, and the trace `(1 - rho)^2 E[P (1 - P) ||x||^2]`.

    Args:
        intensity: rho in [0, 1].
        separation: Distance of the two means, > 0.
        variance: s > 0 of each coordinate within a class.
        dimension: Of the inputs.

    Returns:
        The trace, by quadrature over the direction of the means.

    Raises:
        ModicumError: A number is outside its range.

    Example:
        >>> [round(gradient_noise(rho), 4) for rho in (0, 0.5, 1)]
        [0.1789, 0.0447, 0.0]

    Reference:
        Shi et al., Efficiency for Free: Ideal Data Are Transportable Representations, 2024, arXiv 2405.14669 (the
        set-up; the statement with (1 - rho)^2 is exact here).
    """
    _check((intensity,), separation, variance, dimension)
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    half, total = separation / 2, 0.0
    for sign in (-1.0, 1.0):
        x = sign * half + math.sqrt(variance) * nodes
        p = 1 / (1 + np.exp(-2 * half * x / variance))
        values = p * (1 - p) * (x**2 + (dimension - 1) * variance)
        total += float((weights * values).sum()) / math.sqrt(2 * math.pi) / 2
    return (1 - intensity) ** 2 * total


def relabeling_noise(
    intensities: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0),
    separation: float = 2.0,
    variance: float = 1.0,
    dimension: int = 2,
    *,
    step_size: float = 0.1,
    steps: int = 4000,
    runs: int = 40,
    seed: int = 0,
) -> RelabelingNoise:
    """Stochastic gradient descent of logistic regression on two Gaussians, for targets of several intensities.

    Every run takes one new sample a step, `theta <- theta - eta (sigmoid(theta' x) - t) x` from 0, the same samples for
    every intensity. See `gradient_noise` for what must come out: less noise, a smaller distance, none at rho = 1.

    Args:
        intensities: rho in [0, 1], how far targets are from labels to posterior probabilities.
        separation: Distance of the two means, > 0.
        variance: Of each coordinate within a class.
        dimension: Of the inputs.
        step_size: eta.
        steps: Of each run.
        runs: Repetitions.
        seed: Of the samples.

    Returns:
        Noise measured and expected, and the mean squared distance to the optimum.

    Raises:
        ModicumError: A number is outside its range.

    Example:
        >>> found = relabeling_noise((0.0, 1.0), steps=2000, runs=4)
        >>> found.distance[1] < 1e-6 < found.distance[0]
        True

    Reference:
        Shi et al., Efficiency for Free: Ideal Data Are Transportable Representations, 2024, arXiv 2405.14669.
    """
    _check(intensities, separation, variance, dimension)
    for name, value in (("steps", steps), ("runs", runs)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModicumError(f"{name}={value!r}; expected an integer >= 1")
    if not 0 < step_size < math.inf:
        raise ModicumError(f"step_size={step_size!r}; expected a number > 0")
    rho = torch.tensor([*intensities], dtype=torch.float64)[:, None]
    optimum = torch.zeros(dimension, dtype=torch.float64)
    optimum[0] = separation / variance
    theta = torch.zeros(len(rho), runs, dimension, dtype=torch.float64)
    squares = torch.zeros(len(rho), dtype=torch.float64)
    draw = generator(seed, "relabeling noise")
    for _ in range(steps):
        y = (torch.rand(runs, generator=draw) < 0.5).double()
        x = math.sqrt(variance) * torch.randn(runs, dimension, generator=draw, dtype=torch.float64)
        x[:, 0] += (y - 0.5) * separation
        posterior = torch.sigmoid(x @ optimum)
        targets = y + rho * (posterior - y)
        errors = torch.sigmoid((theta * x).sum(2)) - targets
        theta -= step_size * errors[..., None] * x
        squares += ((posterior - targets).square() * x.square().sum(1)).mean(1)
    distance: Tensor = (theta - optimum).square().sum(2).mean(1)
    expected = [gradient_noise(r, separation, variance, dimension) for r in intensities]
    return RelabelingNoise(
        tuple(intensities), tuple((squares / steps).tolist()), tuple(expected), tuple(distance.tolist())
    )


def _check(intensities: Sequence[float], separation: float, variance: float, dimension: int) -> None:
    for value in intensities:
        if not 0 <= value <= 1:
            raise ModicumError(f"intensity={value!r}; expected a number in [0, 1]")
    if not len(intensities):
        raise ModicumError("intensities are empty; expected at least one number in [0, 1]")
    if not 0 < separation < math.inf:
        raise ModicumError(f"separation={separation!r}; expected a number > 0: equal means cannot be told apart")
    if not 0 < variance < math.inf:
        raise ModicumError(f"variance={variance!r}; expected a number > 0")
    if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1:
        raise ModicumError(f"dimension={dimension!r}; expected an integer >= 1")
