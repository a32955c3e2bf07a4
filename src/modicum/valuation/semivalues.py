"""Semivalues: the Shapley value and its relatives as weights on the sizes of sets, and their sums over sets and orders."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modicum.arrays import Array, NumPy, back, to_numpy
from modicum.errors import DataError

__all__ = [
    "Kind",
    "position_tables",
    "semivalue_from_subsets",
    "semivalue_from_table",
    "semivalue_weights",
    "semivalues_from_permutations",
    "semivalues_from_positions",
    "shapley_from_table",
]

Kind: TypeAlias = "str | tuple[str | float, ...]"
KINDS = "'shapley', ('beta', a, b), 'banzhaf', ('banzhaf', p), 'loo' or 'loo-first'"
MOST = 24  # players of a table, whose 2^24 values are 128 MB


def semivalue_weights(n: int, kind: Kind = "shapley") -> NumPy:
    """How much a marginal contribution counts, by the number of players who are there already.

    A semivalue is `phi_i = (1/n) sum_{j=1..n} w_j Delta_j(i)`, where `Delta_j(i)` is the mean of `v(S + i) - v(S)` over
    the sets S of j - 1 other players. The weights are normalized to mean 1, so that in an additive game every semivalue is
    what each player adds.

    - `shapley`: `w_j = 1`;
    - `("beta", a, b)`: `w_j = n C(n-1, j-1) B(j+b-1, n-j+a) / B(a, b)`: a > b weights small sets, a < b large ones, and
      (1, 1) is Shapley's;
    - `banzhaf` or `("banzhaf", p)`: `w_j = n C(n-1, j-1) p^(j-1) (1-p)^(n-j)`: every other player is there with
      probability p, 1/2 by default;
    - `loo`: only the marginal to all others; `loo-first`: only that to nobody.

    Args:
        n: Players, >= 1.
        kind: Of semivalue.

    Returns:
        (n,) float64 weights `w_1 .. w_n`, made of logarithms so that no binomial overflows.

    Raises:
        DataError: n < 1, the kind is unknown, or its parameters are out of range.

    Example:
        >>> semivalue_weights(4).tolist(), semivalue_weights(3, "banzhaf").round(6).tolist()
        ([1.0, 1.0, 1.0, 1.0], [0.75, 1.5, 0.75])
        >>> semivalue_weights(50, ("beta", 16, 1)).round(1)[:2].tolist()
        [12.3, 9.4]

    Reference:
        Kwon, Zou, Beta Shapley: a Unified and Noise-reduced Data Valuation Framework, 2021, arXiv 2110.14049.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise DataError(f"n={n!r}; expected a number of players >= 1")
    name, a, b = _parsed(kind)
    weights = torch.zeros(n, dtype=torch.float64)
    if name in ("loo", "loo-first"):
        weights[-1 if name == "loo" else 0] = n
        return weights.numpy()
    if name == "shapley":
        return np.ones(n)
    j = torch.arange(1, n + 1, dtype=torch.float64)
    gamma = torch.lgamma
    logs = -gamma(j) - gamma(n - j + 1)
    if name == "beta":
        logs += gamma(j + b - 1) + gamma(n - j + a)
    else:
        logs += (j - 1) * math.log(a) + (n - j) * math.log1p(-a)
    weights = (logs - logs.max()).exp()
    return (weights / weights.mean()).numpy()


def _parsed(kind: Kind) -> tuple[str, float, float]:
    """The name of a kind and up to two parameters."""
    name, *numbers = (kind,) if isinstance(kind, str) else tuple(kind)
    bad = any(isinstance(x, (bool, str)) or not math.isfinite(x) for x in numbers)
    if name in ("shapley", "loo", "loo-first") and not numbers:
        return str(name), 1.0, 1.0
    if name == "banzhaf" and len(numbers) < 2 and not bad:
        p = float(numbers[0]) if numbers else 0.5
        if not 0 < p < 1:
            raise DataError(f"p={p} of {kind!r} is out of range; expected a probability in (0, 1)")
        return "banzhaf", p, 0.0
    if name == "beta" and len(numbers) == 2 and not bad:
        a, b = (float(x) for x in numbers)
        if a <= 0 or b <= 0:
            raise DataError(f"kind={kind!r} has a parameter that is not positive; expected alpha > 0 and beta > 0")
        return ("shapley" if a == b == 1 else "beta"), a, b
    raise DataError(f"kind={kind!r} is unknown; expected {KINDS}")


# -- from every set ----------------------------------------------------------------------------------------------------


def semivalue_from_table(utility: Any, n: int, kind: Kind = "shapley") -> NumPy:
    """Any semivalue exactly, from the worth of all 2^n sets.

    Args:
        utility: (2^n,) worth of every set, player i in the set numbered s when bit i of s is 1; or a function that is
            asked with the frozenset of the players 0..n-1 who are there.
        n: Players, up to 24; time and memory are those of n passes over, and twice, the 2^n values.
        kind: See `semivalue_weights`.

    Returns:
        (n,) float64 values.

    Raises:
        DataError: The table has another size or is not finite, or n is out of range.

    Example:
        >>> semivalue_from_table(lambda players: len(players) ** 2, 2, "banzhaf").tolist()
        [2.0, 2.0]
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= MOST:
        raise DataError(f"n={n!r}; expected 1 to {MOST} players, because all 2^n sets are looked at")
    weights = semivalue_weights(n, kind)
    if callable(utility) and not isinstance(utility, (Tensor, np.ndarray)):
        sets = (frozenset(i for i in range(n) if s >> i & 1) for s in range(1 << n))
        table = np.array([float(utility(players)) for players in sets])
    else:
        given = np.asarray(utility) if isinstance(utility, (list, tuple)) else utility
        table = to_numpy("utility", given).astype(np.float64)
    if table.shape != (1 << n,):
        raise DataError(f"utility has shape {table.shape}; expected ({1 << n},), one value for each set of {n} players")
    if not np.isfinite(table).all():
        at = int(np.argmin(np.isfinite(table)))
        players = [i for i in range(n) if at >> i & 1]
        raise DataError(f"utility of the players {players} is {table[at]}; expected finite numbers")
    size = np.zeros(1, dtype=np.int64)
    for _ in range(n - 1):
        size = np.concatenate([size, size + 1])
    share = np.array([weights[s] / (n * math.comb(n - 1, s)) for s in range(n)])[size]
    values = np.empty(n)
    for i in range(n):
        pairs = table.reshape(-1, 2, 1 << i)
        values[i] = share @ (pairs[:, 1] - pairs[:, 0]).reshape(-1)
    return values


def shapley_from_table(utility: Any, n: int) -> NumPy:
    """The Shapley value exactly, from the worth of all 2^n sets.

    `phi_i = (1/n) sum over S without i of (v(S + i) - v(S)) / C(n-1, |S|)`.

    Args:
        utility: (2^n,) worth of every set by bit mask, or a function of a frozenset of players (see
            `semivalue_from_table`).
        n: Players, up to 24.

    Returns:
        (n,) float64 values that sum to `v(everybody) - v(nobody)`.

    Raises:
        DataError: See `semivalue_from_table`.

    Example:
        >>> gloves = lambda players: float(0 in players and len(players) > 1)  # one left glove, two right ones
        >>> shapley_from_table(gloves, 3).round(4).tolist()
        [0.6667, 0.1667, 0.1667]

    Reference:
        Shapley, A Value for n-Person Games, 1953.
    """
    return semivalue_from_table(utility, n, "shapley")


# -- from orders of arrival --------------------------------------------------------------------------------------------


def semivalues_from_permutations(orders: Array, values: Array, kinds: Iterable[Kind]) -> dict[Kind, Array]:
    """Several semivalues from the same utilities: what players add as they join in random orders.

    `phi_i = mean over orders of w_j (v_j - v_{j-1})`, j being the place of player i: unbiased for every kind, because the
    players before i are a uniform set of every size equally often.

    Args:
        orders: (b, n) permutations of the players.
        values: (b, n + 1) worth of the first 0..n players of each.
        kinds: See `semivalue_weights`; `loo`, and Banzhaf's of many players, look at few places and need many orders.

    Returns:
        For each kind (n,) values.

    Raises:
        DataError: Shapes do not fit, a row of `orders` is no permutation, or a value is not finite.

    Example:
        >>> orders, values = np.array([[0, 1], [1, 0]]), np.array([[0.0, 1.0, 3.0], [0.0, 1.0, 3.0]])
        >>> semivalues_from_permutations(orders, values, ["shapley"])["shapley"].tolist()
        [1.5, 1.5]
    """
    at, worth = _checked(orders, values)
    marginal = np.diff(worth, axis=1)
    made: dict[Kind, Array] = {}
    for kind in kinds:
        sums = np.bincount(at.ravel(), (marginal * semivalue_weights(at.shape[1], kind)).ravel(), at.shape[1])
        made[kind] = back(sums / len(at), values)
    return made


def position_tables(orders: Array, values: Array) -> tuple[Array, Array]:
    """What every player added at every place: n x n tables from which any semivalue can be read later.

    Args:
        orders: (b, n) permutations of the players.
        values: (b, n + 1) worth of the first 0..n players of each.

    Returns:
        (n, n) sums of the marginal contributions of each player (row) at each place (column), and (n, n) how often each
        player came there. Tables of several batches add up.

    Raises:
        DataError: See `semivalues_from_permutations`.

    Example:
        >>> orders, values = np.array([[0, 1], [1, 0]]), np.array([[0.0, 1.0, 3.0], [0.0, 1.0, 3.0]])
        >>> position_tables(orders, values)[0].tolist()
        [[1.0, 2.0], [1.0, 2.0]]
    """
    at, worth = _checked(orders, values)
    n = at.shape[1]
    cells = (at * n + np.arange(n)).ravel()
    sums = np.bincount(cells, np.diff(worth, axis=1).ravel(), n * n).reshape(n, n)
    counts = np.bincount(cells, minlength=n * n).reshape(n, n).astype(np.float64)
    return back(sums, values), back(counts, values)


def semivalues_from_positions(sums: Array, counts: Array, kinds: Iterable[Kind]) -> dict[Kind, Array]:
    """The semivalues of `semivalues_from_permutations`, from its n x n tables.

    Args:
        sums: (n, n) of `position_tables`.
        counts: (n, n) of `position_tables`.
        kinds: See `semivalue_weights`.

    Returns:
        For each kind (n,) values.

    Raises:
        DataError: Shapes do not fit, or a player was never there.

    Example:
        >>> tables = np.array([[1.0, 2.0], [1.0, 2.0]]), np.ones((2, 2))
        >>> semivalues_from_positions(*tables, ["loo"])["loo"].tolist()
        [2.0, 2.0]
    """
    total, seen = (to_numpy(name, table).astype(np.float64) for name, table in (("sums", sums), ("counts", counts)))
    if total.ndim != 2 or total.shape[0] != total.shape[1] or total.shape != seen.shape:
        raise DataError(f"sums has shape {total.shape} and counts {seen.shape}; expected both (n, n)")
    times = seen.sum(1)
    if not times.all():
        raise DataError(f"counts of player {int(np.argmin(times))} are all 0; expected every player in every order")
    return {kind: back(total @ semivalue_weights(len(total), kind) / times, sums) for kind in kinds}


def _checked(orders: Any, values: Any) -> tuple[NumPy, NumPy]:
    at, worth = to_numpy("orders", orders), to_numpy("values", values).astype(np.float64)
    if at.ndim != 2 or not at.size or at.dtype.kind not in "iu":
        raise DataError(f"orders is {at.dtype} of shape {at.shape}; expected integers of shape (b, n), not empty")
    b, n = at.shape
    if worth.shape != (b, n + 1):
        raise DataError(f"values has shape {worth.shape}; expected ({b}, {n + 1}), the worth of 0..n players of each")
    wrong = (np.sort(at, axis=1) != np.arange(n)).any(axis=1)
    if wrong.any():
        raise DataError(f"orders[{int(np.argmax(wrong))}] is no permutation of the players 0..{n - 1}")
    if not np.isfinite(worth).all():
        row, place = (int(i) for i in np.argwhere(~np.isfinite(worth))[0])
        raise DataError(f"values[{row}, {place}] is {worth[row, place]}; expected finite numbers")
    return at.astype(np.int64), worth


# -- from random sets --------------------------------------------------------------------------------------------------


def semivalue_from_subsets(masks: Array, values: Array, kind: Kind = "banzhaf", p: float = 0.5) -> Array:
    """A semivalue from random sets, each of which informs every player (maximum sample reuse).

    `phi_i = mean(v(S) | i in S) - mean(v(S) | i not in S)` where S has each player with probability p: for `banzhaf` with
    the same p, plain means. Any other kind weights each set by how often that kind meets a set of its size over how often
    it was drawn, normalized to sum to one on either side: right where all sets are given, with variance that grows with
    the distance between the two (from sets of about n/2 players nothing is learned about small ones).

    Args:
        masks: (b, n) booleans: who is there.
        values: (b,) worth of each set.
        kind: See `semivalue_weights`.
        p: With which probability each player was drawn.

    Returns:
        (n,) values; NaN, with a warning, for a player who is in every set or in none that counts.

    Raises:
        DataError: Shapes do not fit, fewer than two sets, p is out of range, or a value is not finite.

    Example:
        >>> masks = np.array([[False, False], [True, False], [False, True], [True, True]])
        >>> semivalue_from_subsets(masks, np.array([0.0, 1.0, 2.0, 3.0])).tolist()
        [1.0, 2.0]

    Reference:
        Wang, Jia, Data Banzhaf: A Robust Data Valuation Framework for Machine Learning, 2022, arXiv 2205.15466.
    """
    there, worth = to_numpy("masks", masks), to_numpy("values", values).astype(np.float64)
    if there.ndim != 2 or there.dtype != bool or not there.shape[1]:
        raise DataError(f"masks is {there.dtype} of shape {there.shape}; expected booleans of shape (b, n)")
    b, n = there.shape
    if b < 2 or worth.shape != (b,):
        raise DataError(f"values has shape {worth.shape} for {b} masks; expected one value a mask, at least 2")
    if not np.isfinite(worth).all():
        at = int(np.argmin(np.isfinite(worth)))
        raise DataError(f"values[{at}] is {worth[at]}; expected finite numbers")
    if not 0 < p < 1:
        raise DataError(f"p={p}; expected a probability in (0, 1)")
    inside, outside = _set_weights(n, kind, p)
    size = there.sum(1)
    given, plain = there.astype(np.float64), np.full(b, 1.0)
    means = []
    for weights, member in ((inside, given), (outside, 1 - given)):
        w = plain if weights is None else weights[size]
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(((w * worth) @ member) / (w @ member))
    result = means[0] - means[1]
    if np.isnan(result).any():
        bad = np.flatnonzero(np.isnan(result))
        warnings.warn(
            f"{len(bad)} players, first {bad[:3].tolist()}, are in every set or in none that counts: their values are NaN; "
            "draw more sets",
            stacklevel=2,
        )
    return back(result, values)


def _set_weights(n: int, kind: Kind, p: float) -> tuple[NumPy, NumPy] | tuple[None, None]:
    """(n + 1,) how much a set counts by its size for players inside and outside; None where all count the same."""
    name, a, _ = _parsed(kind)
    if name == "banzhaf" and a == p:
        return None, None
    w = semivalue_weights(n, kind)
    s = torch.arange(n, dtype=torch.float64)
    drawn = s * math.log(p) + (n - 1 - s) * math.log1p(-p)
    choose = -torch.lgamma(s + 1) - torch.lgamma(n - s)  # but for a factor
    with np.errstate(divide="ignore"):
        logs = np.log(w) - (choose + drawn).numpy()
    share = np.exp(logs - logs.max())
    return np.concatenate([[0.0], share]), np.concatenate([share, [0.0]])
