from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jacrev

from modicum.context import generator
from modicum.distillation import conv_ntk, fc_ntk
from modicum.errors import DataError, ModicumError

FORMS: list[dict[str, Any]] = [{"pool": pool, "readout": readout} for pool in (0, 1) for readout in ("flatten", "mean")]


def images(n: int, side: int = 4, channels: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(n, channels, side, side, generator=generator(seed, "images"), dtype=torch.float64)


@pytest.mark.parametrize(
    "depth, pool, readout, expected",
    [
        (1, False, "flatten", 0.2769782953088284),
        (1, False, "mean", 0.34779647325880375),
        (1, True, "flatten", 0.27076642136260815),
        (1, True, "mean", 0.34779647325880353),
        (2, False, "flatten", 0.4974607229290106),
        (2, True, "flatten", 0.3483748590167996),
    ],
)
def test_numbers_of_another_library(depth: int, pool: bool, readout: Any, expected: float) -> None:
    """What neural-tangents 0.6.5 says in double precision of two images of 6 x 6 pixels and 2 channels."""
    x = (torch.arange(144, dtype=torch.float64).square() / 7).sin().reshape(2, 6, 6, 2).permute(0, 3, 1, 2)
    assert float(conv_ntk(x[:1], x[1:], depth, pool=pool, readout=readout)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_blocks_and_gradients(form: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images(3).requires_grad_(), images(4, seed=1)
    whole = conv_ntk(x, y, 2, **form)
    (slope,) = torch.autograd.grad(whole.square().sum(), x)
    monkeypatch.setattr("modicum.distillation.convolutional.BLOCK", 1)
    parts = conv_ntk(x, y, 2, **form)
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=0)
    torch.testing.assert_close(torch.autograd.grad(parts.square().sum(), x)[0], slope, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda a: conv_ntk(a, y[:1], 1, **form), x[:1].detach().requires_grad_())


@pytest.mark.parametrize("form", FORMS)
def test_it_is_a_kernel(form: dict[str, Any]) -> None:
    x = images(6)
    kernel = conv_ntk(x, x, 2, **form)
    torch.testing.assert_close(kernel, kernel.T, rtol=1e-12, atol=0)
    assert float(torch.linalg.eigvalsh(kernel).min()) > 0


def test_one_pixel_is_a_fully_connected_network() -> None:
    """A convolution of one pixel sees one of its nine weights: a layer whose weights have a ninth of the variance."""
    x, y = images(3, 1, 4), images(2, 1, 4, seed=1)
    scale = 3.0
    found = conv_ntk(x, y, 1, pool=False, w_std=scale, b_std=0.0)
    # without biases a scale of all layers but the last is one of the kernel
    torch.testing.assert_close(found, fc_ntk(x, y, 1, w_std=scale, b_std=0.0) / 9, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_wide_networks_come_to_it(form: dict[str, Any]) -> None:
    x, width, draws = images(2), 96, 12
    side = 2 if form["pool"] else 4

    def outputs(p: dict[str, Tensor]) -> Tensor:
        h = F.conv2d(x, p["a"] * (2 / 18) ** 0.5, 0.1 * p["a0"], padding=1).relu()
        h = F.avg_pool2d(h, 2) if form["pool"] else h
        h = F.conv2d(h, p["b"] * (2 / (9 * width)) ** 0.5, 0.1 * p["b0"], padding=1).relu()
        h = F.avg_pool2d(h, 2) if form["pool"] else h
        h = h.mean((2, 3)) if form["readout"] == "mean" else h.flatten(1)
        out: Tensor = h @ p["c"] * (2 / h.shape[1]) ** 0.5 + 0.1 * p["c0"]
        return out

    last = 1 if form["readout"] == "mean" else (side // 2 if form["pool"] else side) ** 2
    shapes = {"a": (width, 2, 3, 3), "a0": (width,), "b": (width, width, 3, 3), "b0": (width,), "c": (width * last,)}
    total = torch.zeros(2, 2, dtype=torch.float64)
    for draw in range(draws):
        g = generator(draw, "wide")
        p = {k: torch.randn(*v, generator=g, dtype=torch.float64) for k, v in {**shapes, "c0": (1,)}.items()}
        slopes = torch.cat([t.flatten(1) for t in jacrev(outputs)(p).values()], 1)
        total += slopes @ slopes.T / draws
    expected = conv_ntk(x, x, 2, **form)
    assert float((total - expected).abs().max() / expected.abs().max()) < 0.06


def test_odd_images_lose_their_last_row_and_column_in_pooling() -> None:
    x, y = images(2, 5), images(2, 5, seed=1)
    assert conv_ntk(x, y, 2).shape == (2, 2)


def test_errors() -> None:
    x = images(2)
    with pytest.raises(ModicumError, match=r"readout='max'; expected 'flatten' or 'mean'"):
        conv_ntk(x, x, readout="max")  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match=r"x1 is \(2, 16\); expected images \(m, channels, height, width\), or use fc_ntk"
    ):
        conv_ntk(x.flatten(2)[:, 0], x.flatten(2)[:, 0])
    with pytest.raises(ModicumError, match=r"depth=3 halves \(4, 4\) to nothing; use a smaller depth or pool=False"):
        conv_ntk(x, x, 3)
