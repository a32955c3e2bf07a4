"""Relabeling intensity: the exact law, the published sizes, what is refused."""

import pytest
import torch

from modicum.analysis import gradient_noise, relabeling_noise
from modicum.errors import ModicumError


@pytest.fixture(scope="module")
def found():
    return relabeling_noise()


def test_the_noise_falls_with_the_square_of_what_is_left_of_the_labels(found):
    for rho, noise in zip(found.intensities, found.noise):
        assert noise == pytest.approx((1 - rho) ** 2 * found.noise[0], rel=1e-9, abs=1e-30)


def test_measured_noise_is_that_of_the_formula(found):
    for noise, expected in zip(found.noise, found.expected):
        assert noise == pytest.approx(expected, rel=0.05, abs=1e-30)


def test_the_numbers_of_the_sheet(found):
    assert found.noise == pytest.approx((0.1775, 0.1013, 0.0456, 0.0111, 0.00182, 0), rel=0.05, abs=1e-6)
    assert found.distance[:5] == pytest.approx((0.108, 0.056, 0.026, 0.0073, 0.0010), rel=0.25)
    assert found.distance[5] < 1e-20


def test_the_distance_falls_with_the_intensity(found):
    assert list(found.distance) == sorted(found.distance, reverse=True)


@pytest.mark.parametrize("separation, variance, dimension", [(2.0, 1.0, 2), (3.0, 0.5, 4), (1.0, 0.1, 1)])
def test_quadrature_agrees_with_samples(separation, variance, dimension):
    draw = torch.Generator().manual_seed(0)
    y = torch.rand(400_000, generator=draw) < 0.5
    x = variance**0.5 * torch.randn(400_000, dimension, generator=draw, dtype=torch.float64)
    x[:, 0] += (y.double() - 0.5) * separation
    p = torch.sigmoid(separation / variance * x[:, 0])
    sampled = float((p * (1 - p) * x.square().sum(1)).mean())
    assert gradient_noise(0.0, separation, variance, dimension) == pytest.approx(sampled, rel=0.02)


def test_less_spread_is_less_noise():
    noises = [gradient_noise(0.0, variance=v) for v in (1.0, 0.5, 0.1)]
    assert noises == sorted(noises, reverse=True)


def test_same_seed_same_numbers():
    small = {"steps": 50, "runs": 3}
    assert relabeling_noise(**small) == relabeling_noise(**small) != relabeling_noise(**small, seed=1)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"intensities": (0.5, 1.2)}, r"intensity=1.2; expected a number in \[0, 1\]"),
        ({"intensities": (float("nan"),)}, "intensity=nan; expected"),
        ({"intensities": ()}, "intensities are empty"),
        ({"variance": 0.0}, "variance=0.0; expected a number > 0"),
        ({"separation": 0.0}, "separation=0.0; expected a number > 0: equal means cannot be told apart"),
        ({"dimension": 0}, "dimension=0; expected an integer >= 1"),
        ({"steps": 0}, "steps=0; expected an integer >= 1"),
        ({"step_size": -1.0}, "step_size=-1.0; expected a number > 0"),
    ],
)
def test_numbers_that_make_no_sense(change, text):
    with pytest.raises(ModicumError, match=text):
        relabeling_noise(**change)
