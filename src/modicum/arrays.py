"""Tensors or NumPy arrays in, the same kind out: the checks that every function on features and labels makes."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from modicum.errors import DataError

__all__ = [
    "Array",
    "NumPy",
    "back",
    "center_of",
    "class_indices",
    "distinct",
    "features",
    "probabilities_of",
    "real",
    "targets_for",
    "tensor",
    "to_numpy",
    "unit_rows",
]

NumPy: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Array = TypeVar("Array", Tensor, "np.ndarray[Any, np.dtype[Any]]")
BLOCK = 1 << 22  # entries of a block whose temporary copies stay small


def to_numpy(name: str, array: Any) -> NumPy:
    """A NumPy view of a tensor (copied only from an accelerator), or the array itself.

    Raises:
        DataError: It is neither.
    """
    if isinstance(array, Tensor):
        plain = array.detach().cpu()
        return (plain.float() if plain.dtype in (torch.bfloat16, torch.float16) else plain).numpy()
    if isinstance(array, np.ndarray):
        return array
    raise DataError(f"{name} is a {type(array).__name__}; expected a torch tensor or a NumPy array")


def back(result: NumPy, like: Array, floating: bool = True) -> Array:
    """A result as the kind of array, and on the device, of the input; floating results in its dtype too."""
    if isinstance(like, Tensor):
        tensor = torch.from_numpy(np.ascontiguousarray(result)).to(like.device)
        return tensor.to(like.dtype if like.is_floating_point() else torch.float64) if floating else tensor
    return result.astype(like.dtype if like.dtype.kind == "f" else np.float64) if floating else result


def real(name: str, array: Any, ndim: tuple[int, ...], shape: str) -> NumPy:
    """A non-empty, finite NumPy array of floating numbers; integers become float64.

    Args:
        name: Of the argument, for the error.
        array: A tensor or an array.
        ndim: The numbers of dimensions that are right.
        shape: What is expected, for the error.

    Raises:
        DataError: It is something else.
    """
    plain = to_numpy(name, array)
    if plain.ndim not in ndim or plain.size == 0:
        raise DataError(f"{name} has shape {plain.shape}; expected {shape}, not empty")
    if plain.dtype.kind in "iub":
        plain = plain.astype(np.float64)
    elif plain.dtype == np.float16:
        plain = plain.astype(np.float32)
    elif plain.dtype.kind != "f":
        raise DataError(f"{name} has dtype {plain.dtype}; expected floating numbers")
    rows = max(1, BLOCK * len(plain) // plain.size)
    for start in range(0, len(plain), rows):
        good = np.isfinite(plain[start : start + rows])
        if not good.all():
            at = tuple(int(i) for i in np.argwhere(~good)[0])
            where = (at[0] + start, *at[1:])
            raise DataError(
                f"{name}{list(where)} is {plain[where]}; expected finite numbers: drop or impute that entry"
            )
    return plain


def tensor(name: str, array: Any, ndim: tuple[int, ...], shape: str) -> Tensor:
    """The same check as `real`, on the device where a tensor is; half precision becomes float32.

    Raises:
        DataError: Another shape, empty, not numbers, NaN or infinite.
    """
    if not isinstance(array, Tensor):
        plain = real(name, array, ndim, shape)
        usable = plain.flags.writeable and min(plain.strides, default=0) >= 0  # torch has no views that run backwards
        return torch.from_numpy(plain if usable else plain.copy())
    moved = array.detach()
    if moved.ndim not in ndim or not moved.numel():
        raise DataError(f"{name} has shape {tuple(moved.shape)}; expected {shape}, not empty")
    if moved.is_complex():
        raise DataError(f"{name} has dtype {moved.dtype}; expected floating numbers")
    if not moved.is_floating_point():
        return moved.double()
    if not bool(moved.isfinite().all()):
        where = (~moved.isfinite()).nonzero()[0].tolist()
        raise DataError(f"{name}{where} is {float(moved[tuple(where)])}; expected finite numbers: drop that sample")
    return moved.float() if moved.dtype in (torch.bfloat16, torch.float16) else moved


def probabilities_of(array: Any, ndim: tuple[int, ...], shape: str) -> Tensor:
    """Checked probabilities (..., c): not negative, every row summing to 1.

    Raises:
        DataError: They are not.
    """
    checked = tensor("probabilities", array, ndim, shape)
    if checked.shape[-1] < 2:
        raise DataError(f"probabilities has shape {tuple(checked.shape)}; expected {shape} with c >= 2 classes")
    half = isinstance(array, Tensor) and array.dtype in (torch.bfloat16, torch.float16)
    off = (checked.sum(-1) - 1).abs()
    if bool((checked < 0).any()) or bool((off > (0.05 if half else 1e-3)).any()):
        at = (off + (checked < 0).any(-1) * 1e9).flatten().argmax()
        row = checked.reshape(-1, checked.shape[-1])[at]
        raise DataError(
            f"probabilities row {int(at)} sums to {float(row.sum()):.4g} with least entry {float(row.min()):.4g}; "
            "expected entries >= 0 that sum to 1: apply softmax to logits first"
        )
    return checked


def targets_for(outputs: Tensor, name: str, targets: Any) -> Tensor:
    """Checked class indices (n,) for outputs (..., n, c), on their device.

    Raises:
        DataError: Another length, or a label out of range.
    """
    n, c = outputs.shape[-2:]
    if c < 2:
        raise DataError(f"{name} has shape {tuple(outputs.shape)}; expected c >= 2 classes in the last dimension")
    labels = class_indices("targets", targets, n)
    if labels.max() >= c:
        at = int(labels.argmax())
        raise DataError(f"targets[{at}] is {labels[at]}; expected 0..{c - 1}, as {name} has {c} classes")
    return torch.from_numpy(labels).to(outputs.device)


def features(name: str, array: Any) -> NumPy:
    """Checked features (n, d), one row a sample.

    Raises:
        DataError: Another shape, empty, not numbers, NaN or infinite.
    """
    return real(name, array, (2,), "(n, d), one row a sample")


def class_indices(name: str, array: Any, n: int | None = None) -> NumPy:
    """Checked class indices (n,) as int64.

    Raises:
        DataError: Another shape or length, empty, negative, or not integers.
    """
    plain = to_numpy(name, array)
    if plain.ndim != 1 or not len(plain) or (n is not None and len(plain) != n):
        expected = "(n,), not empty" if n is None else f"({n},), one label a sample"
        raise DataError(f"{name} has shape {plain.shape}; expected {expected}")
    if plain.dtype.kind not in "iu":
        raise DataError(f"{name} has dtype {plain.dtype}; expected integer class indices")
    if plain.min() < 0:
        at = int(np.argmax(plain < 0))
        raise DataError(f"{name}[{at}] is {plain[at]}; expected class indices >= 0")
    return plain.astype(np.int64)


def unit_rows(name: str, rows: NumPy, zeros: bool = False) -> NumPy:
    """Every row divided by its length.

    Args:
        name: Of the argument, for the error.
        rows: (n, d) floating numbers.
        zeros: Whether a row that is all zero stays as it is.

    Raises:
        DataError: A row is all zero, so that it has no direction.
    """
    with np.errstate(over="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    odd = np.flatnonzero(~((norms > 1e-150) & (norms < np.inf)))  # squares that leave the range of doubles
    if len(odd):
        peaks = np.abs(rows[odd]).max(1, keepdims=True)
        peaks[peaks == 0] = 1
        rows = rows.copy()
        rows[odd] /= peaks
        norms[odd] = np.sqrt(np.einsum("ij,ij->i", rows[odd], rows[odd], dtype=np.float64))
    if zeros:
        norms[norms == 0] = 1
    elif not norms.all():
        at = int(np.argmin(norms))
        raise DataError(f"{name}[{at}] is all zero and has no direction; drop that sample or use another encoder")
    unit: NumPy = (rows / norms[:, None]).astype(rows.dtype)
    return unit


def center_of(rows: NumPy) -> NumPy:
    """(d,) float64 near the mean of the rows, so that squares of distances do not cancel.

    Each entry is a multiple of a power of two near the spread of its column: subtracting it stays exact for integers
    and other short numbers, whose distances may tie.
    """
    some = rows[:: max(1, len(rows) // 4096)].astype(np.float64)
    scale = np.exp2(np.ceil(np.log2(np.maximum(some.std(0), np.finfo(np.float32).tiny))))
    center: NumPy = np.round(some.mean(0) / scale) * scale
    return center


def distinct(rows: NumPy) -> tuple[NumPy, NumPy]:
    """Which rows repeat an earlier one, to the bit: matrix products may give equal rows unequal distances.

    Args:
        rows: (n, d) float32 or float64, finite.

    Returns:
        (r,) positions of the rows that repeat an earlier one, and (r,) the first position of the same row.

    Example:
        >>> again, first = distinct(np.array([[1.0], [2.0], [1.0]]))
        >>> again.tolist(), first.tolist()
        ([2], [0])
    """
    word = np.dtype(f"u{rows.dtype.itemsize}")
    mix = np.random.default_rng(0).integers(1 << 8, np.iinfo(word).max, rows.shape[1], dtype=word) | word.type(1)
    hashes = np.empty(len(rows), dtype=word)
    step = max(1, BLOCK // rows.shape[1])
    for start in range(0, len(rows), step):
        # adding zero makes the two zeros of floating numbers one
        hashes[start : start + step] = (rows[start : start + step] + rows.dtype.type(0)).view(word) @ mix
    _, group, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(counts[group] > 1)
    if not len(suspects):
        return suspects, suspects
    _, first, same = np.unique(rows[suspects] + rows.dtype.type(0), axis=0, return_index=True, return_inverse=True)
    firsts = suspects[first[same.reshape(-1)]]
    again = suspects != firsts
    return suspects[again], firsts[again]
