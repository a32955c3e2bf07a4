"""The scattering transform against its definition, against Kymatio's numbers, and against what it must be blind to."""

import math

import pytest
import torch

import modicum.models.scattering as module
from modicum.errors import ModicumError, TrainingError
from modicum.models import ScatNet, Scattering
from modicum.models.scattering import gaussian_average, morlet_bank


@pytest.mark.parametrize("scales, angles, maps", [(1, 3, 4), (2, 8, 81), (2, 16, 289), (3, 8, 217), (3, 1, 7)])
def test_number_of_maps(scales, angles, maps):
    scattering = Scattering((16, 32), scales=scales, angles=angles)
    assert scattering.maps == maps == 1 + angles * scales + angles**2 * scales * (scales - 1) // 2
    assert scattering(torch.rand(2, 16, 32)).shape == (2, maps, 16 >> scales, 32 >> scales)
    assert Scattering((16, 32), scales=scales, angles=angles, order=1).maps == 1 + angles * scales


def by_definition(x, scales, angles):
    """Every convolution on the full grid as a sum over positions in Fourier space, then every 2^J-th position."""
    coarse = 2**scales
    rows, columns = (module._reflect(side, coarse) for side in x.shape)
    x = x[rows][:, columns]
    bank = morlet_bank(tuple(x.shape), scales, angles)
    smooth = [gaussian_average(side, 1, 0) for side in x.shape]  # only to know its form
    assert smooth[0].shape == (x.shape[0] // 2 - 2, x.shape[0])
    at = [torch.arange(side, dtype=torch.float64) for side in x.shape]
    line = [torch.exp(-(torch.minimum(a, len(a) - a) ** 2) / (2 * (0.8 * 2 ** (scales - 1)) ** 2)) for a in at]
    phi = line[0][:, None] * line[1] / (2 * math.pi * (0.8 * 2 ** (scales - 1)) ** 2)
    phi = torch.fft.fft2(phi)

    def average(u):
        return torch.fft.ifft2(torch.fft.fft2(u) * phi).real[::coarse, ::coarse][1:-1, 1:-1]

    def modulus(u, j, t):
        return torch.fft.ifft2(torch.fft.fft2(u) * bank[j][t]).abs()

    pairs = [(j, t) for j in range(scales) for t in range(angles)]
    first = [modulus(x, *pair) for pair in pairs]
    second = [modulus(u, k, s) for u, (j, _) in zip(first, pairs, strict=True) for k, s in pairs if k > j]
    return torch.stack([average(u) for u in [x, *first, *second]])


def test_it_is_what_its_definition_says():
    # coarser grids drop frequencies that the wavelets have almost none of
    x = torch.rand(16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got, wanted = Scattering((16, 24), scales=2, angles=4)(x), by_definition(x, 2, 4)
    assert got.shape == wanted.shape == (25, 4, 6)
    torch.testing.assert_close(got[:9], wanted[:9], rtol=0, atol=3e-3)
    torch.testing.assert_close(got[9:], wanted[9:], rtol=0, atol=3e-3)
    torch.testing.assert_close(got[0], wanted[0], rtol=0, atol=1e-6)
    assert float((got[1:] - wanted[1:]).norm() / wanted[1:].norm()) < 0.02


def wave(rows, columns):
    """A picture that can be written down anywhere."""
    y, x = torch.arange(rows)[:, None], torch.arange(columns)
    return (torch.sin(0.7 * y + 0.2 * x**2 / 5) + torch.cos(1.3 * x - 0.4 * y) + 2).double()


# rows, columns, scales, angles: sums over the first, second and last map, all, and all weighted by their number
KYMATIO = {
    (16, 24, 2, 4): (49.389566, 5.7203644, 0.2725539, 104.11425, 9576.1898),
    (32, 32, 2, 8): (129.47351, 18.448481, 0.5494274, 338.30904, 215518.58),
    (16, 16, 3, 5): (8.4746591, 0.68123861, 0.11800984, 25.100219, 1505.2758),
    (64, 32, 4, 3): (16.116392, 0.98276268, 0.25089056, 40.945015, 3504.671),
}


@pytest.mark.parametrize("case", KYMATIO)
def test_it_gives_the_numbers_of_kymatio(case):
    (rows, columns, scales, angles), sums = case, KYMATIO[case]
    out = Scattering((rows, columns), scales=scales, angles=angles)(wave(rows, columns))
    got = [out[0].sum(), out[1].sum(), out[-1].sum(), out.sum(), (out * torch.arange(out.numel()).view_as(out)).sum()]
    # Kymatio divides by 3.1415 instead of pi, once for each of up to three filters
    assert [float(g) for g in got] == pytest.approx(sums, rel=2e-4)


def test_a_larger_contrast_gives_larger_numbers():
    scattering, x = Scattering((16, 16), angles=4), torch.rand(2, 16, 16)
    torch.testing.assert_close(scattering(3 * x), 3 * scattering(x), rtol=1e-4, atol=1e-6)


def test_a_constant_image_has_no_waves():
    out = Scattering((32, 32))(torch.full((1, 32, 32), 2.0))
    assert float((out[:, 0] - 2).abs().max()) < 1e-4
    assert float(out[:, 1:].abs().max()) < 1e-6


def test_a_quarter_turn_moves_the_angles_by_half_of_them():
    angles = 8
    draw = torch.Generator().manual_seed(0)
    x = torch.nn.functional.interpolate(torch.rand(4, 1, 12, 12, generator=draw), size=(32, 32), mode="bicubic")
    scattering = Scattering((32, 32), scales=2, angles=angles, order=1)
    upright = scattering(x)[:, 0, 1:].unflatten(1, (2, angles))
    turned = torch.rot90(scattering(torch.rot90(x, 1, (2, 3))), -1, (3, 4))[:, 0, 1:].unflatten(1, (2, angles))
    errors = [float((upright.roll(shift, 2) - turned).norm()) for shift in range(angles)]
    assert errors.index(min(errors)) == angles // 2


def test_channels_and_samples_are_alone_and_blocks_change_nothing(monkeypatch):
    x, scattering = torch.rand(3, 2, 16, 16), Scattering((16, 16), angles=4)
    whole = scattering(x)
    torch.testing.assert_close(whole[1, 1], scattering(x[1, 1]), rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)
    torch.testing.assert_close(scattering(x), whole, rtol=1e-5, atol=1e-6)


def test_an_image_as_small_as_the_coarse_pixel():
    out = Scattering((4, 4), angles=2)(torch.rand(1, 4, 4))
    assert out.shape == (1, 9, 1, 1)
    assert bool(out.isfinite().all())


def test_it_has_a_gradient_and_no_weights():
    scattering, x = Scattering((8, 8), angles=2), torch.rand(1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert list(scattering.parameters()) == []
    assert scattering.state_dict() == {}
    weights = torch.rand(9, 2, 2, dtype=torch.float64)
    (scattering(x) * weights).sum().backward()
    step = torch.zeros_like(x)
    step[0, 3, 4] = 1e-6
    with torch.no_grad():
        slope = ((scattering(x + step) - scattering(x - step)) * weights).sum() / 2e-6
    assert float(x.grad[0, 3, 4]) == pytest.approx(float(slope), rel=1e-4)


def test_half_precision_around_it_changes_nothing():
    scattering, x = Scattering((8, 8), angles=2), torch.rand(2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scattering(x), scattering(x).float())
        inside = scattering(x)
    assert torch.equal(inside, scattering(x))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Scattering((30, 32)), "scales=2 makes the image 4 times coarser, but 30 x 32 px is no multiple of 4"),
        (lambda: Scattering((4, 4), scales=3), "4 x 4 px is no multiple of 8; use fewer scales, or resize the images"),
        (lambda: Scattering((8, 8), scales=0), "scales=0; expected an integer >= 1"),
        (lambda: Scattering((8, 8), angles=0), "angles=0; expected an integer >= 1"),
        (lambda: Scattering((8, 8), order=3), "order=3; expected 1 or 2"),
        (lambda: ScatNet((3, 8, 8), 2, blocks=9), "blocks=9; expected 8, 12, 16, 30, 45"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ModicumError, match=message):
        make()


def test_another_size_of_images_is_refused():
    with pytest.raises(TrainingError, match=r"images of \(8, 16\) px, but the scattering was built for \(8, 8\)"):
        Scattering((8, 8))(torch.rand(1, 8, 16))


@pytest.mark.parametrize(
    "angles, millions", [(16, (1.65, 4.82, 6.0, 11.04, 12.13)), (8, (1.47, 3.38, 4.56, 9.6, 10.69))]
)
def test_parameters_of_the_network_as_published(angles, millions):
    for blocks, expected in zip((8, 12, 16, 30, 45), millions, strict=True):
        model = ScatNet((3, 8, 8), 10, angles=angles, blocks=blocks)
        trained = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("head"))
        assert round(trained / 1e6, 2) == expected
        assert model.head.in_features == 2048


def test_the_network_can_standardize_its_maps():
    model = ScatNet((1, 8, 8), 3, angles=2, standardize=True).train()
    seen = []
    model.body[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert model(torch.rand(32, 1, 8, 8)).shape == (32, 3)
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(9), atol=1e-4, rtol=0)
