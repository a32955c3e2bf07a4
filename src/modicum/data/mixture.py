"""Several data sets as one mixture that remembers where each sample came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from modicum.data.load import standardized
from modicum.dataset import Dataset
from modicum.errors import DataError

__all__ = ["concatenate"]


def concatenate(datasets: Mapping[str, Dataset]) -> Dataset:
    """Put data sets one after another, with a column that tells the source of each sample.

    Class names and vocabularies are united: those of the first source keep their numbers, new ones follow. Texts are
    padded to the longest; missing weights are 1; hard labels among soft ones become one-hot. Mean and standard
    deviation are measured on the mixture.

    Args:
        datasets: Named sources with inputs of one kind and shape.

    Returns:
        The mixture, with `sources` (n,), ids such as `web/12` and the names in `info.sources`.

    Raises:
        DataError: The sources do not fit together.

    Example:
        >>> data = Dataset(torch.zeros(2, 1), torch.tensor([0, 1]))
        >>> mixed = concatenate({"web": data, "books": data})
        >>> mixed.ids.tolist(), mixed.sources.tolist()
        (['web/0', 'web/1', 'books/0', 'books/1'], [0, 0, 1, 1])
    """
    parts = list(datasets.values())
    if not parts:
        raise DataError("concatenate needs at least one data set, got none")
    first = parts[0]
    for name, part in datasets.items():
        if (part.info.task, part.info.modality) != (first.info.task, first.info.modality):
            raise DataError(
                f"source {name!r} is {part.info.task} of {part.info.modality}, but the first is {first.info.task} of {first.info.modality}"
            )
        if first.info.modality != "text" and part.inputs.shape[1:] != first.inputs.shape[1:]:
            raise DataError(
                f"source {name!r} has inputs of shape {tuple(part.inputs.shape[1:])}, but the first has {tuple(first.inputs.shape[1:])}"
            )
        if (part.targets is None) != (first.targets is None):
            raise DataError(f"source {name!r} {'lacks' if part.targets is None else 'has'} targets, unlike the first")
        if part.info.columns != first.info.columns:
            raise DataError(
                f"source {name!r} has the columns {part.info.columns}, but the first has {first.info.columns}"
            )
    classes = tuple(dict.fromkeys(c for part in parts for c in part.info.classes))
    vocabulary = tuple(dict.fromkeys(t for part in parts for t in part.info.vocabulary))
    weighted = any(part.weights is not None for part in parts)
    counts = torch.tensor([len(part) for part in parts])
    mixed = Dataset(
        _inputs(parts, vocabulary),
        None if first.targets is None else _targets(parts, classes),
        np.concatenate([np.char.add(f"{name}/", part.ids.astype(str)) for name, part in datasets.items()]),
        torch.cat([torch.ones(len(p)) if p.weights is None else p.weights for p in parts]) if weighted else None,
        torch.repeat_interleave(torch.arange(len(parts)), counts),
        replace(
            first.info, classes=classes, vocabulary=vocabulary, sources=tuple(datasets), source=" + ".join(datasets)
        ),
    )
    return standardized(mixed)


def _inputs(parts: list[Dataset], vocabulary: tuple[str, ...]) -> Tensor:
    if parts[0].info.modality != "text":
        return torch.cat([part.inputs for part in parts])
    number = {token: i for i, token in enumerate(vocabulary)}
    length = max(part.inputs.shape[1] for part in parts)
    rows = []
    for part in parts:
        new = torch.tensor([number[token] for token in part.info.vocabulary], dtype=part.inputs.dtype)
        inputs = new[part.inputs.long()] if len(new) else part.inputs
        rows.append(torch.nn.functional.pad(inputs, (0, length - inputs.shape[1])))
    return torch.cat(rows)


def _targets(parts: list[Dataset], classes: tuple[str, ...]) -> Tensor:
    targets = [part.targets for part in parts if part.targets is not None]
    if parts[0].info.task != "classification":
        return torch.cat(targets)
    place = {name: i for i, name in enumerate(classes)}
    soft = any(t.is_floating_point() for t in targets)
    width = len(classes) or max(t.shape[1] if t.ndim == 2 else int(t.max()) + 1 for t in targets)
    result = []
    for part, old in zip(parts, targets, strict=True):
        new = torch.tensor([place[name] for name in part.info.classes]) if part.info.classes else torch.arange(width)
        if old.is_floating_point():
            result.append(torch.zeros(len(old), width).index_copy_(1, new[: old.shape[1]], old.float()))
        elif soft:
            result.append(torch.nn.functional.one_hot(new[old], width).float())
        else:
            result.append(new[old])
    return torch.cat(result)
