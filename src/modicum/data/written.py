"""Texts as they are written: whole, and with every word, unlike the inputs of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modicum.data.load import read_raw
from modicum.data.raw import Array, Desk, Options
from modicum.data.tables import Frame
from modicum.data.text import frame_tokens, tokenizer
from modicum.dataset import Dataset, Splits

__all__ = ["Written", "mixed_bits", "places", "written", "written_splits"]


@dataclass(frozen=True, eq=False)
class Written:
    """The words of each text, one after the other, as numbers.

    Args:
        flat: (total,) int32 numbers of the words, those of a text together; a negative one stands for a word that nobody
            knows, and no two of them are alike.
        starts: (n + 1,) where each text begins in `flat`.
    """

    flat: Array
    starts: Array

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Array:
        """(n,) words of each text."""
        lengths: Array = np.diff(self.starts)
        return lengths

    def hashes(self) -> Array:
        """(n,) a 64-bit number for each text; equal texts have equal ones."""
        place = np.arange(len(self.flat)) - np.repeat(self.starts[:-1], self.lengths)
        mixed = mixed_bits(self.flat.astype(np.uint64) ^ mixed_bits(place.astype(np.uint64) + np.uint64(1)))
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
        sums: Array = total[self.starts[1:]] - total[self.starts[:-1]]
        return sums

    def same(self, left: Array, right: Array) -> Array:
        """(m,) whether the texts of each pair of positions are equal, word by word."""
        equal: Array = self.lengths[left] == self.lengths[right]
        at = np.flatnonzero(equal)
        other = self.flat[places(self.starts, left[at])] != self.flat[places(self.starts, right[at])]
        ends, total = np.cumsum(self.lengths[left[at]]), np.concatenate([[0], np.cumsum(other)])
        equal[at] = total[ends] == total[ends - self.lengths[left[at]]]
        return equal

    def take(self, rows: Array) -> Written:
        """The texts at these positions.

        Example:
            >>> Written(np.array([5, 6, 7]), np.array([0, 1, 3])).take(np.array([1, 0])).flat.tolist()
            [6, 7, 5]
        """
        starts = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        return Written(self.flat[places(self.starts, rows)], starts)

    @staticmethod
    def of_texts(texts: Iterable[str], numbers: dict[str, int]) -> Written:
        """The words and punctuation marks of texts, in lower case.

        Args:
            texts: n texts.
            numbers: Of words that were met before; new ones are added.

        Example:
            >>> found = Written.of_texts(["a good film", "", "A film"], numbers := {})
            >>> found.flat.tolist(), found.starts.tolist(), list(numbers)
            ([0, 1, 2, 0, 2], [0, 3, 3, 5], ['a', 'good', 'film'])
        """
        cut = tokenizer()
        return _numbered((cut(text) for text in texts), numbers)

    @staticmethod
    def of_rows(tokens: Array, unknown: int | None = 1) -> Written:
        """Rows of token numbers.

        Args:
            tokens: (n, length), 0 for padding.
            unknown: Number of the unknown token, which becomes a negative number of its own wherever it stands; None where
                there is none.
        """
        flat = tokens[tokens != 0].astype(np.int32)
        if unknown is not None:
            lost = np.flatnonzero(flat == unknown)
            flat[lost] = -1 - np.arange(len(lost))
        return Written(flat, np.concatenate([[0], np.cumsum((tokens != 0).sum(1))]))

    @staticmethod
    def of_dataset(dataset: Dataset, numbers: dict[str, int]) -> Written:
        """What a data set still knows of its texts: the words of its vocabulary, as far as they were not cut off.

        Args:
            dataset: Texts.
            numbers: Of words that were met before; new ones are added.
        """
        tokens, vocabulary = dataset.inputs.numpy(), dataset.info.vocabulary
        if not vocabulary:
            return Written.of_rows(tokens, None)
        found = Written.of_rows(tokens)
        table = np.array([0, 0, *(numbers.setdefault(t, len(numbers)) for t in vocabulary[2:])], np.int32)
        return Written(
            np.where(found.flat < 0, found.flat, table[np.maximum(found.flat, 0)]).astype(np.int32), found.starts
        )

    @staticmethod
    def joined(parts: Sequence[Written]) -> Written:
        """Several one after the other, with words that nobody knows still all different.

        Example:
            >>> one = Written.of_rows(np.array([[2, 1]]))
            >>> Written.joined([one, one]).flat.tolist()
            [2, -1, 2, -2]
        """
        lost, flat = 0, []
        for part in parts:
            unknown = part.flat < 0
            flat.append(np.where(unknown, part.flat - lost, part.flat).astype(np.int32))
            lost += int(unknown.sum())
        lengths = [np.zeros(1, np.int64), *(part.lengths for part in parts)]
        return Written(np.concatenate(flat or [np.empty(0, np.int32)]), np.cumsum(np.concatenate(lengths)))


def written(
    spec: Any,
    numbers: dict[str, int],
    *,
    inputs: str | Sequence[str] | None = None,
    label: str | bool | None = None,
    header: bool | None = None,
    **_: Any,
) -> dict[str, tuple[Array, Written]]:
    """The texts of a source as they stand in it.

    Args:
        spec: As for `modicum.load`.
        numbers: Of words that were met before; new ones are added.
        inputs: As for `modicum.load`; several columns of one sample follow each other with a sign between them.
        label: As for `modicum.load`.
        header: As for `modicum.load`.
        _: Other options of `load`, without effect.

    Returns:
        The ids and the texts of each split that the source has; nothing where they are no texts, or only numbers of them
        are known.

    Example:
        >>> ids, texts = written((["a good film", "a bad film"], [1, 0]), {})["train"]
        >>> ids.tolist(), texts.flat.tolist()
        ([0, 1], [0, 1, 2, 0, 3, 2])
    """
    options = Options((inputs,) if isinstance(inputs, str) else tuple(inputs or ()), label, header=header)
    parts = read_raw(spec, options, Desk("written", options))
    cut = tokenizer()
    return {
        name: (raw.ids, _numbered(frame_tokens(raw.inputs, cut), numbers))
        for name, raw in parts.items()
        if isinstance(raw.inputs, Frame) and raw.inputs.kind == "text"
    }


def written_splits(found: dict[str, tuple[Array, Written]], splits: Splits) -> dict[str, Written]:
    """The texts of the samples of each split, in their order.

    Args:
        found: What `written` gave for the source.
        splits: What `modicum.load` gave for it, validation and test samples perhaps cut from its training samples.
    """
    made = {}
    for name in ("train", "valid", "test") if found else ():
        ids, texts = found.get(name, found["train"])
        order = np.argsort(ids, kind="stable")
        wanted = getattr(splits, name).ids
        made[name] = texts.take(order[np.searchsorted(ids[order], wanted)])
    return made


def places(starts: Array, rows: Array) -> Array:
    """Where the elements of these rows stand in the flat array, one row after the other."""
    sizes = (starts[rows + 1] - starts[rows]).astype(np.int64)
    within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    at: Array = np.repeat(starts[rows], sizes) + within
    return at


def mixed_bits(x: Array) -> Array:
    """The finalizer of splitmix64: every bit of the result depends on every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed


def _numbered(texts: Iterator[list[str]], numbers: dict[str, int]) -> Written:
    flat, lengths = [], [0]
    for tokens in texts:
        flat.append(np.fromiter((numbers.setdefault(t, len(numbers)) for t in tokens), np.int32, len(tokens)))
        lengths.append(len(tokens))
    return Written(np.concatenate(flat or [np.empty(0, np.int32)]), np.cumsum(lengths))
