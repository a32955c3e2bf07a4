"""The noun everything acts on: columns over n samples, with ids that stay the same from file to report."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modicum.errors import DataError

__all__ = ["Dataset", "Indices", "Info", "Splits"]

Indices: TypeAlias = "Tensor | np.ndarray[Any, Any] | Sequence[int] | Sequence[bool] | slice"
Task = Literal["classification", "regression", "unlabeled"]
Modality = Literal["image", "tabular", "text"]


@dataclass(frozen=True)
class Info:
    """What the columns of a `Dataset` mean.

    Args:
        task: `classification`, `regression` or `unlabeled`.
        modality: `image` (n, channels, height, width), `tabular` (n, columns) or `text` (n, length) of token numbers.
        classes: Names of the classes, in the order of the class indices.
        mean: What to subtract from the inputs, per channel or column, in the units of the stored inputs.
        std: What to divide by afterwards. Empty when the inputs are used as stored.
        target_mean: Of regression targets; models are trained on (target - target_mean) / target_std.
        target_std: See `target_mean`.
        columns: Names of the tabular columns.
        vocabulary: Tokens of a text data set; index 0 is padding, index 1 the unknown token.
        sources: Names of the sources of a mixture, in the order of `Dataset.sources`.
        source: Where the data came from, for people.
    """

    task: Task = "classification"
    modality: Modality = "tabular"
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    target_mean: float = 0.0
    target_std: float = 1.0
    columns: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = field(default=(), repr=False)
    sources: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Columns over n samples; immutable, possibly memory-mapped; `dataset[indices]` is the only way to make a subset.

    Args:
        inputs: (n, *shape) tensor: uint8 or floating images and tables, integer token numbers for text.
        targets: (n,) class indices as int64, (n, c) soft labels or (n,) regression targets as floating, or None.
        ids: (n,) unique integers or strings that name the samples; row numbers when None.
        weights: (n,) non-negative weights of the samples in the loss, or None.
        sources: (n,) index into `info.sources` for a mixture, or None.
        info: What the columns mean.

    Raises:
        DataError: The columns do not fit together.

    Example:
        >>> data = Dataset(torch.rand(4, 2), torch.tensor([0, 1, 0, 1]), info=Info(classes=("a", "b")))
        >>> len(data[[0, 2]]), data[[0, 2]].ids.tolist()
        (2, [0, 2])
    """

    inputs: Tensor
    targets: Tensor | None = None
    ids: np.ndarray[Any, Any] = None  # type: ignore[assignment]  # filled in below
    weights: Tensor | None = None
    sources: Tensor | None = None
    info: Info = field(default_factory=Info)

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, Tensor) or self.inputs.ndim < 1:
            raise DataError(f"inputs must be a tensor of shape (n, ...), got {type(self.inputs).__name__}")
        n = len(self.inputs)
        object.__setattr__(self, "ids", np.arange(n) if self.ids is None else np.asarray(self.ids))
        for name in ("targets", "ids", "weights", "sources"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise DataError(
                    f"{name} has {len(column)} rows but inputs has {n}; every column needs one row a sample"
                )
        if self.ids.dtype.kind not in "iuU":
            raise DataError(f"ids must be integers or strings, got dtype {self.ids.dtype}")
        if self.targets is not None and self.info.task == "classification":
            self._check_labels(self.targets)

    def _check_labels(self, targets: Tensor) -> None:
        c = len(self.info.classes)
        if targets.is_floating_point():
            if targets.ndim != 2 or (c and targets.shape[1] != c):
                raise DataError(f"soft targets must have shape (n, {c or 'c'}), got {tuple(targets.shape)}")
        elif targets.ndim != 1:
            raise DataError(f"targets must have shape (n,) of class indices, got {tuple(targets.shape)}")
        elif len(targets) and c:
            low, high = int(targets.min()), int(targets.max())
            if low < 0 or high >= c:
                bad = int(((targets < 0) | (targets >= c)).nonzero()[0])
                raise DataError(
                    f"targets: label {int(targets[bad])} of sample {self.ids[bad].item()!r} is out of range; "
                    f"expected 0..{c - 1} for {c} classes"
                )

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, indices: Indices) -> Dataset:
        """The samples at these positions, in this order (a boolean mask keeps the order of the data)."""
        if isinstance(indices, slice) and (indices.step or 1) < 0:  # torch has no negative steps
            indices = list(range(len(self))[indices])
        if isinstance(indices, slice):
            at: Any = indices
            at_ids: Any = indices
        else:
            if isinstance(indices, (int, np.integer)):
                raise DataError(f"dataset[{indices}] is not a subset; use dataset[[{indices}]] for one sample")
            at = torch.as_tensor(np.asarray(indices)) if not isinstance(indices, Tensor) else indices.cpu()
            if at.ndim != 1 or (at.numel() and (at.dtype.is_floating_point or at.dtype.is_complex)):
                raise DataError(
                    f"indices are {at.dtype} of shape {tuple(at.shape)}; expected a list of integers or a mask"
                )
            at = at if at.dtype == torch.bool and len(at) else at.long()
            if at.dtype == torch.bool:
                if len(at) != len(self):
                    raise DataError(f"a mask over {len(self)} samples needs as many entries, got {len(at)}")
                at = at.nonzero().flatten()
            if len(at) and (int(at.max()) >= len(self) or int(at.min()) < -len(self)):
                raise DataError(
                    f"indices reach from {int(at.min())} to {int(at.max())}, but there are {len(self)} samples"
                )
            at_ids = at.numpy()

        def pick(column: Tensor | None) -> Tensor | None:
            return None if column is None else column[at]

        return Dataset(
            self.inputs[at], pick(self.targets), self.ids[at_ids], pick(self.weights), pick(self.sources), self.info
        )

    def replace(self, **columns: Any) -> Dataset:
        """The same samples with other columns, for example `dataset.replace(targets=better)`."""
        return replace(self, **columns)

    @property
    def classes(self) -> int:
        """Number of classes; for regression that of the columns of the targets."""
        if self.info.task == "regression":
            return 1 if self.targets is None or self.targets.ndim == 1 else self.targets.shape[1]
        if self.info.classes:
            return len(self.info.classes)
        return 0

    @property
    def labels(self) -> Tensor:
        """(n,) class indices; of soft targets, the most probable class.

        Raises:
            DataError: The data set has no class labels.
        """
        if self.targets is None or self.info.task != "classification":
            raise DataError(f"class labels are needed, but this data set is for {self.info.task}")
        return self.targets.argmax(1) if self.targets.is_floating_point() else self.targets

    def class_counts(self) -> Tensor:
        """(c,) number of samples of each class."""
        return torch.bincount(self.labels, minlength=self.classes)

    def batches(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """Consecutive slices and their inputs, so that a memory-mapped set is read a piece at a time."""
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self.inputs[part]

    def prepare(self, inputs: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Inputs as a model wants them: on the device, floating and standardized (token numbers stay integers)."""
        moved = inputs.to(device, non_blocking=True)
        if self.info.modality == "text":
            return moved.long()
        moved = moved.float()
        if not self.info.mean:
            return moved
        shape = (1, -1) + (1,) * (moved.ndim - 2)
        mean = torch.tensor(self.info.mean, dtype=moved.dtype, device=moved.device).reshape(shape)
        std = torch.tensor(self.info.std, dtype=moved.dtype, device=moved.device).reshape(shape)
        return (moved - mean) / std

    def prepare_targets(self, device: torch.device | str = "cpu") -> Tensor:
        """Targets as a model is trained on them: class indices as int64, the rest as float32, regression standardized.

        Raises:
            DataError: There are none.
        """
        if self.targets is None:
            raise DataError("the data set has no targets; training needs labels, soft labels or regression targets")
        if self.info.task == "regression":
            return (self.targets.to(device, torch.float32) - self.info.target_mean) / self.info.target_std
        return self.targets.to(device, torch.float32 if self.targets.is_floating_point() else torch.int64)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over every column, so that a cached result can never be taken for that of other data."""
        digest = hashlib.sha256(json.dumps(asdict(self.info), sort_keys=True).encode())
        for part, inputs in self.batches(max(1, (1 << 24) // max(1, math.prod(self.inputs.shape[1:])))):
            digest.update(np.ascontiguousarray(inputs.numpy()).view(np.uint8).data)
            digest.update("\n".join(map(str, self.ids[part].tolist())).encode())
        for column in (self.targets, self.weights, self.sources):
            digest.update(b"-" if column is None else f"{tuple(column.shape)} {column.dtype}".encode())
            if column is not None:
                digest.update(np.ascontiguousarray(column.numpy()).view(np.uint8).data)
        digest.update(f"{tuple(self.inputs.shape)} {self.inputs.dtype}".encode())
        return digest.hexdigest()

    def __repr__(self) -> str:
        kind = f"{self.classes} classes" if self.info.task == "classification" else self.info.task
        return (
            f"Dataset({len(self)} x {tuple(self.inputs.shape[1:])} {self.info.modality}, {kind}, {self.info.source!r})"
        )


class Splits(NamedTuple):
    """A data set for training, one for every choice, and one that is opened once, at the end.

    Example:
        >>> import modicum
        >>> train, valid, test = modicum.load("digits")
        >>> len(train) + len(valid) + len(test)
        1797
    """

    train: Dataset
    valid: Dataset
    test: Dataset
