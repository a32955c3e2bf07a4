"""Batched augmentation: what is random is drawn for the whole batch first, then applied in one pass over tensors."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from modicum.data.geometry import Blur, Crop, Cutout, Flip, ResizedCrop
from modicum.data.mixing import CutMix, Draw, Mixup, paste
from modicum.data.operation import Operation, apply_to_some
from modicum.data.pixels import Color, Gray, Jitter, Pixels, Solarize
from modicum.data.siamese import DSA
from modicum.dataset import Dataset
from modicum.errors import ModicumError, TrainingError
from modicum.spec import parse_call

__all__ = ["OPERATIONS", "Augment", "make_augment"]

Kind: TypeAlias = "Crop | Flip | Cutout | Color | ResizedCrop | Jitter | Gray | Blur | Solarize | DSA | Mixup | CutMix"
OPERATIONS: dict[str, type[Kind]] = {
    kind.name: kind
    for kind in (Crop, Flip, Cutout, Color, ResizedCrop, Jitter, Gray, Blur, Solarize, DSA, Mixup, CutMix)
}
"""Augmentations by name."""
ON_PIXELS = (Jitter, Gray, Solarize)
ANYWHERE = (Flip, ResizedCrop, Blur)  # they give the same whether before or after a change of scale
IDENTITY = Pixels(bounded=True)


@dataclass(frozen=True)
class Augment:
    """Augmentations in order; calling it draws and applies.

    Args:
        operations: On images, in the order of application.
        shape: Of one input.
        mixing: Applied last, or None.
        pixels: How inputs are made into pixels for the operations on colors, and back.

    Example:
        >>> augment = make_augment(("crop(padding=1)", "flip"), (3, 8, 8))
        >>> x, generator = torch.rand(5, 3, 8, 8), torch.Generator().manual_seed(0)
        >>> draw = augment.draw(5, generator)
        >>> bool((augment.apply(x, draw)[2:] == augment.apply(x[2:], draw[2:])).all())
        True
    """

    operations: tuple[Operation, ...]
    shape: tuple[int, ...]
    mixing: Mixup | CutMix | None = None
    pixels: Pixels = field(default=IDENTITY, repr=False)

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        """Everything that is random about a batch of n, from a CPU generator."""
        parameters = tuple(operation.draw(n, self.shape, generator) for operation in self.operations)
        return Draw(parameters, *(self.mixing.draw(n, self.shape, generator) if self.mixing else ()))

    def apply(self, x: Tensor, draw: Draw) -> Tensor:
        """The augmented batch, in the dtype and memory format of x, which is not written to.

        Args:
            x: (n, *shape) inputs on any device, standardized: zero is the mean.
            draw: For as many inputs.

        Raises:
            TrainingError: The batch does not fit the shape or the draw.
        """
        rows = [len(p) for p in (*draw.parameters, *([] if draw.pair is None else [draw.pair]))]
        if tuple(x.shape[1:]) != self.shape or any(r != len(x) for r in rows):
            raise TrainingError(
                f"a batch of shape {tuple(x.shape)} does not fit an augmentation of {self.shape} inputs"
                + (f" drawn for {rows[0]}" if rows else "")
            )
        layout = _layout(x)
        inside, convert = False, self.pixels != IDENTITY
        for operation, parameters in zip(self.operations, draw.parameters, strict=True):
            if convert and not isinstance(operation, ANYWHERE) and isinstance(operation, ON_PIXELS) is not inside:
                x = self.pixels.leave(x) if inside else self.pixels.enter(x)
                inside = not inside
            x = apply_to_some(operation, x, parameters)
        if inside:
            x = self.pixels.leave(x)
        if draw.pair is not None:
            pair = draw.pair.to(x.device)
            x = x.lerp(x[pair], 1 - draw.lam) if draw.box is None else paste(x, pair, draw.box)
        return x.contiguous(memory_format=layout)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw for the batch and apply.

        Raises:
            TrainingError: Inputs are mixed, so that the targets must be too.
        """
        if self.mixing is not None:
            raise TrainingError(
                f"{self.mixing.name} changes the targets too: use draw, apply, and mixed_loss or mixed_targets"
            )
        return self.apply(x, self.draw(len(x), generator))


def make_augment(specs: tuple[str, ...], shape: tuple[int, ...], data: Dataset | None = None) -> Augment:
    """Augmentations from their names.

    Args:
        specs: Names with options, such as `("crop(padding=4)", "flip")`, in the order of application; what mixes inputs is
            last.
        shape: Of one input: (channels, height, width) of images; mixup works on any.
        data: Says how inputs were standardized and what white is, for the operations on colors (see `Pixels.of`);
            without it inputs are taken to be pixels in [0, 1].

    Raises:
        ModicumError: A name or option is unknown, one is for images and the inputs are none, or images are to be
            solarized whose white is unknown.

    Example:
        >>> make_augment(("crop(padding=4)", "mixup(alpha=0.4)"), (3, 32, 32))
        Augment(operations=(Crop(padding=4),), shape=(3, 32, 32), mixing=Mixup(alpha=0.4))
    """
    operations: list[Operation] = []
    mixing: Mixup | CutMix | None = None
    for spec in specs:
        made = _made(spec)
        if len(shape) != 3 and not isinstance(made, Mixup):
            raise ModicumError(
                f"augmentation {made.name!r} is for images, but an input has shape {tuple(shape)}; only mixup fits"
            )
        if not isinstance(made, (Mixup, CutMix)):
            operations.append(made)
        elif mixing is not None:
            raise ModicumError(
                f"augmentations {mixing.name!r} and {made.name!r} both mix inputs; expected at most one of them"
            )
        else:
            mixing = made
    colors = data is not None and any(isinstance(operation, ON_PIXELS) for operation in operations)
    pixels = Pixels.of(data) if data is not None and colors else IDENTITY
    if not pixels.bounded:
        if any(isinstance(operation, Solarize) for operation in operations):
            raise ModicumError(
                "augmentation 'solarize' needs to know white, but the stored images reach beyond [0, 1]; "
                "store them as uint8 or divide them by the value of white"
            )
        operations = [dataclasses.replace(o, bounded=False) if isinstance(o, Jitter) else o for o in operations]
    return Augment(tuple(operations), tuple(shape), mixing, pixels)


def _made(spec: str) -> Kind:
    name, options = parse_call(spec)
    if name not in OPERATIONS:
        near = difflib.get_close_matches(name, OPERATIONS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ModicumError(f"augmentation {name!r} is unknown; {hint}expected {', '.join(OPERATIONS)}")
    kind = OPERATIONS[name]
    known = [f.name for f in dataclasses.fields(kind) if f.init]
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise ModicumError(
            f"augmentation {name!r} has no option {wrong[0]!r}; its options are {', '.join(known) or 'none'}"
        )
    return kind(**options)


def _layout(x: Tensor) -> torch.memory_format:
    last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
