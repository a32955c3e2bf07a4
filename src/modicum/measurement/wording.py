"""How a text is worded: counts that tell scrambled, foreign and wrong texts from usual ones, without any label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from modicum.arrays import NumPy
from modicum.data.text import BETWEEN

__all__ = ["NAMES", "wording"]

NAMES = (
    *("length", "distinct words", "repeated words", "punctuation", "numbers", "unknown words", "letters of a word"),
    *("words elsewhere", "pairs elsewhere", "triples elsewhere", "strange pairs", "strange triples", "association"),
    *("usual beginning", "usual end", "shared with the first", "shared with the last", "numbers shared"),
    *("numbers out of nowhere", "calculations", "wrong calculations", "last number seen before"),
)
ENDS = 6  # tokens at the beginning and at the end that are compared with those of the other texts
SIGNS = {"+": np.add, "-": np.subtract, "*": np.multiply, "x": np.multiply, "/": np.divide}


def wording(tokens: Tensor | NumPy, vocabulary: Sequence[str]) -> tuple[NumPy, tuple[str, ...]]:
    """A row of counts and shares for each text.

    With `c(g)` the number of times an n-gram g stands in the *other* texts: means of `log(1 + c)` over words, pairs and
    triples, the shares of pairs and triples with c = 0, the association `mean log(c(ab) + 0.1) - log(c(a) + 1) -
    log(c(b) + 1)`; the same for what stands at each of the first and last six places. Where the text is several texts
    with `<sep>` between them: the share of the last one's words that are in the first and the reverse, weighted by
    inverse document frequency, and the share of its numbers that are in the first. Numbers out of nowhere are those that
    stand in the last text for the first time and not behind `=`. Calculations are patterns `a + b = c` (also - * x /) of
    three plain numbers with nothing that reckons beside them; they are checked to 1 %.

    Time is `n length log(n length)`, memory about 150 bytes a token. What the vocabulary cut off cannot be seen.

    Args:
        tokens: (n, length) token numbers; 0 is padding, 1 unknown.
        vocabulary: The tokens by number.

    Returns:
        (n, 22) float64, and the names of the columns.

    Example:
        >>> words = ("<pad>", "<unk>", "a", "good", "film", "2", "+", "=", "5")
        >>> table, names = wording(np.array([[2, 3, 4, 0, 0], [2, 3, 4, 0, 0], [5, 6, 5, 7, 8]]), words)
        >>> table[:, names.index("wrong calculations")].tolist()
        [0.0, 0.0, 1.0]
    """
    rows = np.asarray(tokens).astype(np.int64)
    n, width = len(rows), rows.shape[1]
    size = max(len(vocabulary), int(rows.max(initial=0)) + 1)
    words = [*vocabulary, *[""] * (size - len(vocabulary))]
    there = rows > 0
    lengths = np.maximum(there.sum(1), 1)
    is_number = np.array([word.isdecimal() for word in words])
    is_sign = np.array([bool(word) and not word[0].isalnum() for word in words])
    letters = np.array([len(word) for word in words], dtype=np.float64)
    separator = words.index(BETWEEN) if BETWEEN in words else -1
    at = np.arange(width)
    # where the last text of a sample begins, and where its first ends
    cut = rows == separator
    last_from = np.where(cut.any(1), width - cut[:, ::-1].argmax(1), 0)
    first_to = np.where(cut.any(1), cut.argmax(1), 0)
    in_last, in_first = there & (at >= last_from[:, None]), there & (at < first_to[:, None])

    def share(mask: NumPy) -> NumPy:
        return np.asarray((mask & there).sum(1) / lengths)

    again = np.zeros_like(there)
    again[:, 1:] = (rows[:, 1:] == rows[:, :-1]) & there[:, 1:] & ~is_sign[rows[:, 1:]]
    distinct = np.bincount(np.unique((rows + np.arange(n)[:, None] * size)[there]) // size, minlength=n)
    columns = [np.log1p(lengths), distinct / lengths, share(again), share(is_sign[rows]), share(is_number[rows])]
    columns += [share(rows == 1), (letters[rows] * there).sum(1) / lengths]
    columns += _grams(rows, there)
    columns += [_places(rows, there, lengths, False), _places(rows, there, lengths, True)]
    columns += _shared(rows, in_first, in_last, is_number, size)
    columns += _reckoning(rows, in_last, is_number, words)
    return np.stack(columns, 1), NAMES


def _elsewhere(row: NumPy, key: NumPy, n: int) -> NumPy:
    """For each entry, how often its key occurs in other rows."""
    _, number = np.unique(key, return_inverse=True)
    everywhere = np.bincount(number)
    both = number.astype(np.int64) * n + row
    _, place, own = np.unique(both, return_inverse=True, return_counts=True)
    return np.asarray(everywhere[number] - own[place])


def _mean(row: NumPy, values: NumPy, n: int) -> NumPy:
    return np.asarray(np.bincount(row, values, n) / np.maximum(np.bincount(row, minlength=n), 1))


def _grams(rows: NumPy, there: NumPy) -> list[NumPy]:
    n = len(rows)
    size = int(rows.max(initial=0)) + 1
    row, place = np.nonzero(there)
    single = np.zeros(rows.shape)
    single[row, place] = _elsewhere(row, rows[row, place], n)
    found = [_mean(row, np.log1p(single[row, place]), n)]
    strange: list[NumPy] = []
    pairs = rows[:, :-1] * size + rows[:, 1:]
    row, place = np.nonzero(there[:, 1:])
    _, pair = np.unique(pairs[row, place], return_inverse=True)
    count = _elsewhere(row, pair, n)
    found.append(_mean(row, np.log1p(count), n))
    strange.append(_mean(row, (count == 0).astype(float), n))
    bound = np.log(count + 0.1) - np.log1p(single[row, place]) - np.log1p(single[row, place + 1])
    association = _mean(row, bound, n)
    number = np.zeros(pairs.shape, dtype=np.int64)
    number[row, place] = pair
    row, place = np.nonzero(there[:, 2:])
    count = _elsewhere(row, number[row, place] * size + rows[row, place + 2], n)
    found.append(_mean(row, np.log1p(count), n))
    strange.append(_mean(row, (count == 0).astype(float), n))
    return [*found, *strange, association]


def _places(rows: NumPy, there: NumPy, lengths: NumPy, end: bool) -> NumPy:
    n, width = rows.shape
    total = np.zeros(n)
    for j in range(min(ENDS, width)):
        place = np.clip(lengths - 1 - j, 0, width - 1) if end else np.full(n, j)
        word = rows[np.arange(n), place] * (j < lengths)
        total += np.log1p(np.bincount(word)[word] - 1) * (j < lengths)
    return np.asarray(total / np.minimum(lengths, ENDS))


def _shared(rows: NumPy, in_first: NumPy, in_last: NumPy, is_number: NumPy, size: int) -> list[NumPy]:
    from scipy.sparse import csr_matrix

    n = len(rows)

    def present(mask: NumPy) -> Any:
        row, place = np.nonzero(mask & (rows > 1))
        table = csr_matrix((np.ones(len(row)), (row, rows[row, place])), shape=(n, size))
        table.data[:] = 1.0
        return table

    first, last = present(in_first), present(in_last)
    first.data[:], last.data[:] = 1.0, 1.0  # a word that stands twice counts once
    often = np.asarray(first.sum(0) + last.sum(0)).ravel()
    weight = np.log((2 * n + 1) / (often + 1))
    both = first.multiply(last).tocsr()
    common = both @ weight
    of_last, of_first = last @ weight, first @ weight
    numbers = is_number.astype(float)
    return [
        common / np.maximum(of_last, 1e-9),
        common / np.maximum(of_first, 1e-9),
        (both @ numbers) / np.maximum(last @ numbers, 1),
    ]


def _reckoning(rows: NumPy, in_last: NumPy, is_number: NumPy, words: Sequence[str]) -> list[NumPy]:
    n, width = rows.shape
    value = np.array([float(word) if word.isdecimal() else np.nan for word in words])
    is_equals = np.array([word == "=" for word in words])
    sign = np.zeros(len(words), dtype=np.int64)
    for number, mark in enumerate(SIGNS, 1):
        sign[[i for i, word in enumerate(words) if word == mark]] = number
    reckons = (sign > 0) | np.array([word in (".", ",", "%", "(", ")") for word in words])
    row, place = np.nonzero(is_number[rows])
    key = row * len(words) + rows[row, place]
    _, first = np.unique(key, return_index=True)  # entries stand in the order of their places
    new = np.zeros(len(row), dtype=bool)
    new[first] = True
    behind = (place > 0) & is_equals[rows[row, np.maximum(place - 1, 0)]]
    last = in_last[row, place]
    count = np.maximum(np.bincount(row[last], minlength=n), 1)
    nowhere = np.bincount(row[last & new & ~behind], minlength=n) / count
    final = np.zeros(n, dtype=bool)
    ends = np.zeros(n, dtype=np.int64) - 1
    ends[row] = np.arange(len(row))  # the last entry of each row stays
    some = ends >= 0
    final[some] = ~new[ends[some]]
    checked, wrong = np.zeros(n), np.zeros(n)
    if width >= 5:
        a, op, b, equals, c = (rows[:, i : width - 4 + i] for i in range(5))
        before = np.pad(rows, ((0, 0), (1, 0)))[:, : width - 4]
        after = np.pad(rows, ((0, 0), (0, 1)))[:, 5 : width + 1]
        beyond = np.pad(rows, ((0, 0), (0, 2)))[:, 6 : width + 2]
        fraction = np.array([word in (".", ",") for word in words])
        fits = is_number[a] & (sign[op] > 0) & is_number[b] & is_equals[equals] & is_number[c]
        fits &= ~reckons[before] & ~(fraction[after] & is_number[beyond])
        r, p = np.nonzero(fits)
        left, right, result = value[a[r, p]], value[b[r, p]], value[c[r, p]]
        made = np.zeros(len(r))
        with np.errstate(divide="ignore", invalid="ignore"):
            for number, function in enumerate(SIGNS.values(), 1):
                mine = sign[op[r, p]] == number
                made[mine] = function(left[mine], right[mine])
        off = ~(np.abs(made - result) <= 0.01 * np.maximum(1.0, np.abs(result)))
        checked, wrong = np.bincount(r, minlength=n), np.bincount(r[off], minlength=n)
    return [nowhere, np.log1p(checked), wrong / np.maximum(checked, 1), final.astype(float)]
