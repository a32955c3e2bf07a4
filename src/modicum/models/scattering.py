"""The wavelet scattering transform of images: moduli of wavelets of wavelets, averaged; nothing in it is trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modicum.errors import ModicumError, TrainingError
from modicum.models.base import positive

__all__ = ["Scattering"]

BLOCK_BYTES = 16 << 20  # of intermediate maps at a time: they stay near the processor


class Scattering(nn.Module):
    """Scattering coefficients of orders 0, 1 and 2 on a grid that is 2^J times coarser than the image.

    With Morlet wavelets psi of J scales and L angles and a Gaussian phi of scale J, in this order:
    S0 = x * phi; S1(j, t) = |x * psi(j, t)| * phi; S2(j, t, k, u) = ||x * psi(j, t)| * psi(k, u)| * phi for k > j. The
    image is reflected at its border. In all K = 1 + L J + L^2 J (J - 1) / 2 maps a channel.

    The wavelets are those of Kymatio: envelopes of width 0.8 2^j with slant 4 / L, frequency 3 pi / 4 / 2^j, angles
    (L / 2 - 1 - t) pi / L. Convolutions with wavelets go through Fourier space; those with phi, which is separable and
    followed by a coarser grid, are two small matrix products.

    Args:
        shape: (height, width) of an image; both are multiples of 2^J.
        scales: J.
        angles: L.
        order: The highest order, 1 or 2.

    Raises:
        ModicumError: An option makes no sense, or a side is not a multiple of 2^J.
        TrainingError: Later, inputs have another size.

    Example:
        >>> Scattering((32, 32), scales=2, angles=8)(torch.rand(5, 3, 32, 32)).shape
        torch.Size([5, 3, 81, 8, 8])

    Reference:
        Bruna and Mallat, Invariant Scattering Convolution Networks, 2013, arXiv 1203.1513; Andreux et al., Kymatio:
        Scattering Transforms in Python, 2020, arXiv 1812.11214.
    """

    def __init__(self, shape: tuple[int, int], *, scales: int = 2, angles: int = 8, order: int = 2) -> None:
        super().__init__()
        positive(scales=scales, angles=angles)
        if order not in (1, 2):
            raise ModicumError(f"model option order={order!r}; expected 1 or 2")
        coarse = 2**scales
        if any(side < 2 or side % coarse for side in shape):
            raise ModicumError(
                f"scattering with scales={scales} makes the image {coarse} times coarser, but {shape[0]} x {shape[1]} "
                f"px is no multiple of {coarse}; use fewer scales, or resize the images"
            )
        self.shape, self.scales, self.angles, self.order = shape, scales, angles, order
        self.maps = 1 + angles * scales + (order == 2) * angles**2 * scales * (scales - 1) // 2
        padded = (shape[0] + 2 * coarse, shape[1] + 2 * coarse)
        bank = morlet_bank(padded, scales, angles)
        for j in range(scales):
            self.register_buffer(f"psi_{j}_0", bank[j].float(), persistent=False)
            for seen in range(1, j):  # on the coarser grid of the wavelet before it
                self.register_buffer(f"psi_{j}_{seen}", _coarsen(bank[j], seen).float(), persistent=False)
            for axis, side in enumerate(padded):
                average = gaussian_average(side, scales, j).float()
                self.register_buffer(f"phi_{j}_{axis}", average, persistent=False)
        for axis, side in enumerate(shape):
            self.register_buffer(f"pad_{axis}", _reflect(side, coarse), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K, height / 2^J, width / 2^J) coefficients of images (..., height, width)."""
        if tuple(x.shape[-2:]) != self.shape:
            raise TrainingError(
                f"images of {tuple(x.shape[-2:])} px, but the scattering was built for {self.shape}; resize the images"
            )
        with torch.autocast(x.device.type, enabled=False):  # a Fourier transform needs full precision
            planes = x.reshape(-1, *self.shape)
            planes = planes if planes.dtype == torch.float64 else planes.float()
            planes = planes[:, self.get_buffer("pad_0")][:, :, self.get_buffer("pad_1")]
            widest = self.angles ** min(self.order, self.scales)
            size = max(1, BLOCK_BYTES // (8 * widest * planes[0].numel())) if len(planes) else 1
            out = torch.cat([self._scatter(block) for block in torch.split(planes, size)])
        return out.reshape(*x.shape[:-2], *out.shape[1:])

    def _scatter(self, planes: Tensor) -> Tensor:
        first, second = [], []
        spectrum = torch.fft.fft2(planes)[:, None]
        for j in range(self.scales):
            one = self._modulus(spectrum, j, 0)  # (n, L, ., .)
            first.append(self._average(one, j))
            if self.order == 2 and j + 1 < self.scales:
                inner = torch.fft.fft2(one)[:, :, None]
                later = [self._average(self._modulus(inner, k, j), k) for k in range(j + 1, self.scales)]
                second.append(torch.cat(later, 2).flatten(1, 2))  # all that follow one wavelet stand together
        return torch.cat([self._average(planes[:, None], 0), *first, *second], 1)

    def _modulus(self, spectrum: Tensor, j: int, seen: int) -> Tensor:
        """|. * psi(j, .)| on the grid of scale j, of a spectrum on the grid of scale `seen`."""
        psi = self.get_buffer(f"psi_{j}_{seen}").to(spectrum.real.dtype)
        out: Tensor = torch.fft.ifft2(_filtered(spectrum, psi, 2 ** (j - seen))).abs()
        return out

    def _average(self, maps: Tensor, j: int) -> Tensor:
        """. * phi on the coarse grid, of maps on the grid of scale j."""
        rows, columns = (self.get_buffer(f"phi_{j}_{axis}").to(maps.dtype) for axis in range(2))
        narrow = maps @ columns.T
        return (narrow.transpose(-2, -1) @ rows.T).transpose(-2, -1)


def _filtered(spectrum: Tensor, psi: Tensor, factor: int) -> Tensor:
    """The spectrum of the filtered signal at every `factor`-th position: the mean over the aliases of a frequency."""
    if factor == 1:
        return spectrum * psi
    rows, columns = (side // factor for side in psi.shape[-2:])
    psi = psi / factor**2
    parts = [(slice(a * rows, (a + 1) * rows), slice(b * columns, (b + 1) * columns))
             for a in range(factor) for b in range(factor)]  # fmt: skip
    out = spectrum[(..., *parts[0])] * psi[(..., *parts[0])]
    for part in parts[1:]:
        out = out + spectrum[(..., *part)] * psi[(..., *part)]
    return out


def morlet_bank(shape: tuple[int, int], scales: int, angles: int) -> list[Tensor]:
    """Fourier transforms of the wavelets, for each scale (angles, height, width), in double precision.

    psi(u) = g(u) (exp(i w.u) - b), with g a Gaussian that is longer across the direction of w and b such that the sum
    is 0; everything is periodic in the shape.
    """
    bank = []
    turns = [(math.trunc(angles / 2 - 1) - t) * math.pi / angles for t in range(angles)]
    for j in range(scales):
        width, frequency, slant = 0.8 * 2**j, 3 * math.pi / 4 / 2**j, 4 / angles
        bank.append(torch.stack([_morlet(shape, width, turn, frequency, slant) for turn in turns]))
    return bank


def _morlet(shape: tuple[int, int], width: float, turn: float, frequency: float, slant: float) -> Tensor:
    rows, columns = (torch.arange(-2 * side, 3 * side, dtype=torch.float64) for side in shape)
    along = rows[:, None] * math.cos(turn) + columns * math.sin(turn)
    across = columns * math.cos(turn) - rows[:, None] * math.sin(turn)
    envelope = torch.exp(-(along**2 + slant**2 * across**2) / (2 * width**2))
    wave = _periodic(torch.polar(envelope, frequency * along), shape)
    envelope = _periodic(envelope, shape)
    wave = wave - wave.sum() / envelope.sum() * envelope
    spectrum: Tensor = torch.fft.fft2(wave).real * (slant / (2 * math.pi * width**2))
    return spectrum


def _periodic(x: Tensor, shape: tuple[int, int]) -> Tensor:
    return x.reshape(-1, shape[0], x.shape[1] // shape[1], shape[1]).sum((0, 2))


def _coarsen(spectrum: Tensor, octaves: int) -> Tensor:
    """The low frequencies, as the same filter on a grid 2^octaves times coarser."""
    for axis in (-2, -1):
        size = spectrum.shape[axis]
        few = size >> octaves
        keep = torch.cat([torch.arange(few // 2), torch.arange(size - few + few // 2, size)])
        spectrum = spectrum.index_select(axis, keep)
    return spectrum


def gaussian_average(side: int, scales: int, j: int) -> Tensor:
    """(side / 2^scales - 2, side / 2^j) the average by a Gaussian of width 0.8 2^(scales - 1), without the border."""
    at = torch.arange(-2 * side, 3 * side, dtype=torch.float64)
    width = 0.8 * 2 ** (scales - 1)
    kernel = torch.exp(-(at**2) / (2 * width**2)).reshape(-1, side).sum(0) / (math.sqrt(2 * math.pi) * width)
    spectrum = torch.fft.fft(kernel).real[None].expand(side, side)
    few = side >> j
    kernel = torch.fft.ifft(_coarsen(spectrum, j)[0]).real
    positions = torch.arange(1, side // 2**scales - 1) * 2 ** (scales - j)
    average: Tensor = kernel[(positions[:, None] - torch.arange(few)) % few]
    return average


def _reflect(side: int, padding: int) -> Tensor:
    """Positions of an image that is continued by its mirror image, the border pixel not repeated."""
    period = 2 * (side - 1)
    at = torch.arange(-padding, side + padding) % period
    return torch.minimum(at, period - at)
