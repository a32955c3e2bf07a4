"""Texts as rows of token numbers, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch

from modicum.data.raw import Array, Desk, Encoded
from modicum.dataset import Dataset
from modicum.errors import DataError

if TYPE_CHECKING:
    from modicum.data.tables import Frame

__all__ = ["BETWEEN", "PADDING", "UNKNOWN", "decode", "encode_texts", "frame_tokens", "relearned", "tokenizer"]

PADDING, UNKNOWN = "<pad>", "<unk>"  # token numbers 0 and 1
BETWEEN = "<sep>"  # stands between the texts of two columns of one sample
TOKEN = rf"(?u){UNKNOWN}|{BETWEEN}|\b\w+\b|[^\w\s]"  # words and single punctuation marks
MOST_TOKENS = 20_000
LONGEST = 256  # tokens of a text that are kept at most
FREQUENT_FROM = 1000  # above so many texts, a token must occur in two of them


def tokenizer() -> Callable[[str], list[str]]:
    """The function that cuts a text into lower-case words and punctuation marks.

    Example:
        >>> tokenizer()("It's FINE.")
        ['it', "'", 's', 'fine', '.']
    """
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(token_pattern=TOKEN, lowercase=True).build_analyzer()  # type: ignore[no-any-return]


def encode_texts(frames: Mapping[str, Frame], vocabulary: tuple[str, ...], desk: Desk) -> Encoded:
    """Token numbers (n, length) as int32, with the vocabulary and the length learned from the training split.

    Texts of several columns follow each other in the order of the columns, with a token of its own between them.
    A text longer than the 95th percentile of the lengths (at most 256) is cut; a text without a token is one unknown.
    """
    cut = tokenizer()
    lengths, counts = np.empty(len(frames["train"]), np.int64), Counter[str]()
    for row, tokens in enumerate(frame_tokens(frames["train"], cut)):
        lengths[row] = len(tokens)
        counts.update(set(tokens))
    length = int(min(LONGEST, max(1, np.percentile(lengths, 95, method="higher"))))
    vocabulary = vocabulary or _vocabulary(counts, len(lengths))
    number = {token: i for i, token in enumerate(vocabulary)}

    def fill(frame: Frame, out: Array) -> None:
        for row, tokens in enumerate(frame_tokens(frame, cut)):
            numbers = [number.get(token, 1) for token in tokens[:length]] or [1]
            out[row, : len(numbers)] = numbers
            out[row, len(numbers) :] = 0

    arrays = {
        name: desk.lay_out(name, (len(frame), length), np.int32, partial(fill, frame)) for name, frame in frames.items()
    }
    return Encoded(arrays, {"modality": "text", "vocabulary": vocabulary})


def decode(dataset: Dataset, row: int) -> str:
    """The text of a sample, as its tokens with blanks between them; what was cut off or unknown is lost.

    Raises:
        DataError: The data set does not hold texts with a vocabulary.

    Example:
        >>> from modicum.data import load
        >>> train, _, _ = load((["a good film", "a bad film"] * 10, [1, 0] * 10))
        >>> decode(train, 0)
        'a good film'
    """
    if dataset.info.modality != "text" or not dataset.info.vocabulary:
        raise DataError(f"decode needs texts with a vocabulary, got a {dataset.info.modality} data set")
    numbers = dataset.inputs[row].tolist()
    return " ".join(dataset.info.vocabulary[number] for number in numbers if number)


def relearned(train: Dataset, *others: Dataset) -> list[Dataset]:
    """The same texts with the vocabulary that `load` would learn from the training texts; other words become unknown.

    Example:
        >>> from modicum.data import load
        >>> train, valid, test = load((["a good film", "a bad film", "a good book"], [1, 0, 1]), valid=0, test=0)
        >>> relearned(train[:1], train[1:])[1].inputs.tolist()
        [[2, 1, 3], [2, 4, 1]]
    """
    old, n = train.info.vocabulary, len(train)
    seen = np.zeros(len(old), np.int64)
    for _, block in train.batches(FREQUENT_FROM):
        rows, places = np.nonzero(block.numpy())
        pairs = np.unique(rows * len(old) + block.numpy()[rows, places])
        seen += np.bincount(pairs % len(old), minlength=len(old))
    vocabulary = _vocabulary(Counter({old[i]: int(seen[i]) for i in np.flatnonzero(seen)}), n)
    number = {token: i for i, token in enumerate(vocabulary)}
    new = torch.tensor([number.get(token, 1) for token in old], dtype=train.inputs.dtype)
    info = replace(train.info, vocabulary=vocabulary)
    return [data.replace(inputs=new[data.inputs.long()], info=info) for data in (train, *others)]


def frame_tokens(frame: Frame, cut: Callable[[str], list[str]]) -> Iterator[list[str]]:
    """The tokens of each text, those of several columns with a sign between them."""
    for _, batch in frame.batches():
        for texts in zip(*(batch[name].to_pylist() for name in frame.columns), strict=True):
            yield cut(f" {BETWEEN} ".join(text or "" for text in texts))


def _vocabulary(counts: Counter[str], n: int) -> tuple[str, ...]:
    least = 2 if n > FREQUENT_FROM else 1
    kept = [(-count, token) for token, count in counts.items() if count >= least and token not in (PADDING, UNKNOWN)]
    return tuple(chain((PADDING, UNKNOWN), (token for _, token in sorted(kept)[: MOST_TOKENS - 2])))
